//! A daemon under test, and the metrics that it serves.

use std::{
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    call_counts::CallCounts,
    context::Context,
    http,
    pinscope::{self, Running},
};

const START: Duration = Duration::from_mins(2);

/// A running `pinscope daemon`.
pub struct Daemon {
    running: Running,
    address: SocketAddr,
}

impl Daemon {
    /// Starts a daemon and waits until its port answers.
    pub fn start(context: &Context, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(context, more, &[])
    }

    /// Like [`Daemon::start`], but started through the command `by`.
    pub fn start_as(context: &Context, more: &[&str], by: &[OsString]) -> anyhow::Result<Self> {
        // A port that is currently free.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let listen = address.to_string();
        let arguments = [&["daemon", "--attach", &context.attach, "--listen", &listen], more].concat();
        let words: Vec<_> = by.iter().cloned().chain([pinscope::binary().into_os_string()]).collect();
        let mut command = Command::new(&words[0]);
        pinscope::piped(command.args(&words[1..]).args(&arguments));
        let mut daemon = Self { running: Running::start(&mut command)?, address };
        let deadline = Instant::now() + START;
        loop {
            match daemon.scrape() {
                Ok(_) => return Ok(daemon),
                Err(error) if !daemon.running.is_running() => {
                    bail!("the daemon ended: {error:#}; {}", daemon.running.stderr())
                }
                Err(error) if Instant::now() > deadline => {
                    bail!("no /metrics: {error:#}; {}", daemon.running.stderr())
                }
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Fetches /metrics.
    pub fn scrape(&self) -> anyhow::Result<Scrape> {
        http::get(self.address, "/metrics", Duration::from_secs(20)).map(Scrape::of)
    }

    /// Resident memory.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim_end().parse()?)
    }

    /// Stops it as systemd does. Its only permitted output concerns figures that this kernel does not support.
    pub fn end(self) -> anyhow::Result<()> {
        self.running.signal(libc::SIGTERM);
        let finished = self.running.finish(Duration::from_secs(10))?;
        let is_expected = |line: &str| line.contains(" WARN ") && line.contains("degraded: ");
        ensure!(finished.stderr.lines().all(is_expected), "standard error: {}", finished.stderr);
        finished.expect_code(0)?;
        Ok(())
    }
}

/// Metrics in Prometheus' text format.
pub struct Scrape(String);

impl Scrape {
    /// Wraps the text of a response.
    pub fn of(text: String) -> Self {
        Self(text)
    }

    /// Labels and values of a metric's samples.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }

    /// Whether a sample has all of these labels.
    pub fn has(&self, name: &str, wanted: &[(&str, &str)]) -> bool {
        self.with(name, wanted).next().is_some()
    }

    /// Sum over the samples that have all of these labels; 0 if there is none.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> f64 {
        self.with(name, wanted).sum()
    }

    fn with<'a>(&'a self, name: &'a str, wanted: &'a [(&str, &str)]) -> impl Iterator<Item = f64> + 'a {
        let fits = |labels: &str| wanted.iter().all(|(name, value)| label(labels, name) == Some(value));
        self.samples(name).filter(move |(labels, _)| fits(labels)).map(|(_, value)| value)
    }

    pub fn registrations(&self) -> anyhow::Result<CallCounts> {
        let mut counts = CallCounts::default();
        for (labels, value) in self.samples("pinscope_registrations_total") {
            let label = |name: &str| label(labels, name).with_context(|| format!("no {name} in {labels}"));
            counts.add(label("operation")?, label("result")?, value as u64);
        }
        Ok(counts)
    }
}

/// Value of a label. Values here contain no quotation marks.
pub fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}
