//! Where to send: the endpoint, and what is sent along. Pure.

use std::{fmt, str::FromStr};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
};

/// The path of metrics below a base URL.
const PATH: &str = "/v1/metrics";
/// Of OTLP over HTTP.
const PORT: u16 = 4318;

/// A receiver's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, or an address; one of IPv6 without its brackets.
    pub host: String,
    /// 4318 where the URL has none.
    pub port: u16,
    /// For the header Host.
    pub authority: String,
    /// With the query.
    pub path: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// `http://HOST[:PORT][/PATH]`; `/v1/metrics` is added to a path that does not end so. The error is a whole sentence.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted = "want a URL such as http://127.0.0.1:4318";
        let uri: Uri = text.parse().map_err(|error| format!("{error}; {wanted}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    "pinscope has no TLS; send to a collector or a proxy on this machine by http:// and let it \
                            use TLS from there"
                        .to_owned(),
                );
            }
            _ => return Err(wanted.to_owned()),
        }
        let authority = uri.authority().ok_or(wanted)?;
        if authority.as_str().contains('@') {
            return Err("it has a user's name in it; give an Authorization header by --otlp-header".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16();
        // `http` leaves an empty port and one above 65,535 to its users.
        if host.is_empty() || (port.is_none() && authority.as_str() != authority.host()) {
            return Err(wanted.to_owned());
        }
        let base = uri.path().trim_end_matches('/');
        let added = if base.ends_with(PATH) { "" } else { PATH };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let authority = match port {
            Some(_) => authority.to_string(),
            None => format!("{authority}:{PORT}"),
        };
        Ok(Self { host, port: port.unwrap_or(PORT), authority, path: format!("{base}{added}{query}") })
    }
}

/// A header for each request. Its value is never shown: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(pub HeaderName, pub HeaderValue);

impl FromStr for Header {
    type Err = String;

    /// `NAME=VALUE`. The error does not show the value.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("want NAME=VALUE")?;
        let name = HeaderName::from_str(name.trim()).map_err(|_| "that is no name of an HTTP header")?;
        if [hyper::header::HOST, hyper::header::CONTENT_LENGTH, hyper::header::CONTENT_TYPE].contains(&name) {
            return Err(format!("{name} is pinscope's own to set"));
        }
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| "that is no value of an HTTP header")?;
        value.set_sensitive(true);
        Ok(Self(name, value))
    }
}

/// An attribute of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute(pub String, pub String);

impl FromStr for Attribute {
    type Err = String;

    /// `NAME=VALUE`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("want NAME=VALUE")?;
        Ok(Self(name.to_owned(), value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_gets_the_path_of_metrics_and_a_whole_url_stays() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/metrics"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/metrics"),
            ("http://127.0.0.1:4318/v1/metrics", "http://127.0.0.1:4318/v1/metrics"),
            ("http://collector", "http://collector:4318/v1/metrics"),
            ("http://[::1]:9090/api/v1/otlp", "http://[::1]:9090/api/v1/otlp/v1/metrics"),
            ("http://a:1/x/v1/metrics/?t=2", "http://a:1/x/v1/metrics?t=2"),
        ] {
            assert_eq!(text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).as_deref(), Ok(shown));
        }
        let endpoint: Endpoint = "http://[::1]/".parse().unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 4318));
    }

    #[test]
    fn what_cannot_be_sent_to_says_why() {
        for (text, why) in [
            ("https://collector:4318", "has no TLS"),
            ("collector:4318", "want a URL"),
            ("/v1/metrics", "want a URL"),
            ("grpc://collector:4317", "want a URL"),
            ("http://user:secret@collector", "Authorization"),
            ("http://collector:99999", "want a URL"),
            ("http://collector:", "want a URL"),
            ("http://", "want a URL"),
            ("", "want a URL"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let header: Header = "Authorization=Bearer a=b".parse().unwrap();
        assert_eq!((header.0.as_str(), header.1.as_bytes()), ("authorization", &b"Bearer a=b"[..]));
        assert!(!format!("{header:?}").contains("Bearer"));
        for text in ["Authorization", "a b=secret", "x=sec\nret", "Host=secret"] {
            assert!(!text.parse::<Header>().unwrap_err().contains("sec"), "{text}");
        }
    }

    #[test]
    fn an_attribute_may_be_empty_but_not_nameless() {
        assert_eq!("a=b=c".parse(), Ok(Attribute("a".to_owned(), "b=c".to_owned())));
        assert_eq!("a=".parse(), Ok(Attribute("a".to_owned(), String::new())));
        assert!("=b".parse::<Attribute>().is_err() && "a".parse::<Attribute>().is_err());
    }
}
