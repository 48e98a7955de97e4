//! A Prometheus server for the tests.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    http,
    pinscope::{Running, piped},
};

const FOLDER: &str = "/tmp/prometheus";
const ADDRESS: &str = "127.0.0.1:9090";
/// Rules of the package.
const RULES: &str = "/usr/share/pinscope/rules";
/// One recording rule of each group: by instance; by job, which reads the former; and by workload.
const GROUPS: [&str; 3] = [
    "instance:pinscope_ledger_calls:rate5m",
    "job:pinscope_installs:rate5m",
    "job_workload_outcome:pinscope_workload_registrations:rate5m",
];
/// Seconds between scrapes, and the limit for one: under emulation and load, a scrape takes a while.
pub const INTERVAL: u64 = 5;
/// Timeout for its start, and for an awaited sample.
const PATIENCE: Duration = Duration::from_mins(2);

/// A server, stopped when dropped.
pub struct Server {
    running: Running,
    address: SocketAddr,
}

impl Server {
    /// Starts a server that scrapes `target` every [`INTERVAL`] seconds and evaluates the package's rules equally often
    /// (they say once a minute). Waits until it is ready.
    pub fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let _ = fs::remove_dir_all(FOLDER);
        fs::create_dir_all(FOLDER)?;
        let rules = format!("{FOLDER}/rules");
        hurried(RULES, &rules)?;
        let config = format!("{FOLDER}/prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: {INTERVAL}s\n  scrape_timeout: {INTERVAL}s\n  evaluation_interval: {INTERVAL}s\n\
             rule_files: ['{rules}/*.yml']\nscrape_configs:\n  - job_name: pinscope\n    \
             static_configs:\n      - targets: ['{target}']\n"
        );
        fs::write(&config, text)?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={config}")).arg(format!("--storage.tsdb.path={FOLDER}/data"));
        command.args(["--log.level=warn", &format!("--web.listen-address={ADDRESS}")]);
        let mut server = Self { running: Running::start(piped(&mut command))?, address: ADDRESS.parse()? };
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = http::get(server.address, "/-/ready", Duration::from_secs(10)) {
            if Instant::now() > deadline || !server.running.is_running() {
                bail!("Prometheus does not get ready: {error:#}; {}", server.running.stderr());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// Values of an expression's series at a time in seconds, by their labels without the name.
    pub fn query(&self, expression: &str, time: f64) -> anyhow::Result<BTreeMap<BTreeMap<String, String>, f64>> {
        let path = format!("/api/v1/query?query={}&time={time:.3}", http::escape(expression));
        let answer = http::get_json(self.address, &path, Duration::from_mins(1)).context(expression.to_owned())?;
        let series = answer["data"]["result"].as_array().with_context(|| format!("{expression}: {answer}"))?;
        series.iter().map(one).collect::<Option<_>>().with_context(|| format!("{expression}: {answer}"))
    }

    /// Names of all metrics scraped so far.
    pub fn names(&self) -> anyhow::Result<Vec<String>> {
        let answer = http::get_json(self.address, "/api/v1/label/__name__/values", Duration::from_mins(1))?;
        let names = answer["data"].as_array().with_context(|| format!("no names: {answer}"))?;
        Ok(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Time of the next sample whose scrape begins after now.
    pub fn next_sample(&self) -> anyhow::Result<f64> {
        // A scrape that is under way may have read before the latest calls.
        let begun = self.scraped()?;
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::from_iter(begun);
        while seen.len() < 3 {
            thread::sleep(Duration::from_millis(200));
            if let Some(time) = self.scraped()?.filter(|time| seen.last() != Some(time)) {
                seen.push(time);
            }
            if Instant::now() > deadline {
                bail!("Prometheus scrapes nothing: {seen:?}");
            }
        }
        seen.last().copied().context("no sample")
    }

    /// A time at which all rules have been evaluated since `time`, each group after the previous one.
    pub fn next_evaluation(&self, time: f64) -> anyhow::Result<f64> {
        let deadline = Instant::now() + PATIENCE;
        let mut evaluated = time;
        for record in GROUPS {
            let before = evaluated;
            while evaluated <= before {
                thread::sleep(Duration::from_millis(200));
                evaluated = self.time_of(record)?.unwrap_or(before);
                if Instant::now() > deadline {
                    bail!("Prometheus evaluates no {record} after {before:.3}");
                }
            }
        }
        Ok(evaluated)
    }

    /// Time of the last successful scrape.
    fn scraped(&self) -> anyhow::Result<Option<f64>> {
        self.time_of("up{job=\"pinscope\"} == 1")
    }

    /// Time of the newest sample of an expression's first series.
    fn time_of(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let path = format!("/api/v1/query?query={}", http::escape(&format!("timestamp({expression})")));
        let answer = http::get_json(self.address, &path, Duration::from_mins(1))?;
        Ok(answer["data"]["result"].as_array().and_then(|all| one(all.first()?)).map(|(_, time)| time))
    }
}

/// Copies rules, with the evaluation interval reduced to that of the scrapes.
fn hurried(from: &str, to: &str) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).context(from.to_owned())? {
        let path = entry?.path();
        let name = path.file_name().with_context(|| format!("{} has no name", path.display()))?;
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let text = text.replace("interval: 1m\n", &format!("interval: {INTERVAL}s\n"));
        fs::write(Path::new(to).join(name), text)?;
    }
    Ok(())
}

/// Parses `{"metric": {...}, "value": [time, "1"]}`.
fn one(series: &Value) -> Option<(BTreeMap<String, String>, f64)> {
    let labels = series["metric"].as_object()?.iter().filter(|(name, _)| *name != "__name__");
    let labels = labels.map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Some((labels.collect::<Option<_>>()?, series["value"][1].as_str()?.parse().ok()?))
}
