//! The options of the export by OTLP.

use std::time::Duration;

use clap::Args;

use super::args::duration;
use crate::sink::otlp::{Attribute, Endpoint, Header, Options};

/// Whether, where and how to push metrics. The variables `OTEL_EXPORTER_OTLP_*` are not read: a service must not begin to
/// send because of what it inherited. A unit or a pod that has them writes `--otlp-endpoint` with `${…}` or `$(…)`.
#[derive(Clone, Debug, Args)]
pub struct Otlp {
    /// Also push the metrics by OTLP over HTTP, to http://HOST:PORT; a URL without a path gets /v1/metrics
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<Endpoint>,

    /// Time between pushes
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = interval)]
    pub otlp_interval: Duration,

    /// Send this HTTP header with each push, such as Authorization=...; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "otlp_endpoint")]
    pub otlp_header: Vec<Header>,

    /// Set this attribute of the OTLP resource, such as service.instance.id=...; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "otlp_endpoint")]
    pub otlp_attribute: Vec<Attribute>,
}

impl Otlp {
    /// None where nothing is to be pushed.
    pub fn options(&self) -> Option<Options> {
        Some(Options {
            endpoint: self.otlp_endpoint.clone()?,
            interval: self.otlp_interval,
            headers: self.otlp_header.clone(),
            attributes: self.otlp_attribute.clone(),
        })
    }
}

/// More often than once a second, or less than once a day, is a mistake in the unit.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let sensible = Duration::from_secs(1)..=Duration::from_hours(24);
    if sensible.contains(&interval) { Ok(interval) } else { Err("not between 1s and 24h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    fn daemon(more: &[&str]) -> Result<Option<Options>, String> {
        let words = ["pinscope", "daemon"].iter().chain(more);
        match Arguments::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Daemon(daemon) => Ok(daemon.otlp.options()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_off_unless_an_endpoint_is_given() {
        assert!(daemon(&[]).unwrap().is_none());
        assert!(daemon(&["--otlp-interval", "5s"]).unwrap().is_none());
        let options = daemon(&["--otlp-endpoint", "http://a:1", "--otlp-header", "a=b", "--otlp-header", "c=d"]);
        let options = options.unwrap().unwrap();
        assert_eq!((options.interval, options.headers.len()), (Duration::from_mins(1), 2));
    }

    #[test]
    fn what_cannot_be_followed_says_so() {
        for (words, why) in [
            (&["--otlp-endpoint", "https://a"][..], "no TLS"),
            (&["--otlp-header", "a=b"], "--otlp-endpoint"),
            (&["--otlp-endpoint", "http://a", "--otlp-interval", "10ms"], "between 1s and 24h"),
            (&["--otlp-endpoint", "http://a", "--otlp-interval", "1e15"], "between 1s and 24h"),
            (&["--otlp-endpoint", "http://a", "--otlp-attribute", "a"], "NAME=VALUE"),
        ] {
            let error = daemon(words).unwrap_err();
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }
}
