//! A `pinscope report` around the calls of a test.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    context::Context,
    pinscope::{self, Running},
    report::Report,
};

const ATTACH: Duration = Duration::from_mins(2);
const STOP: Duration = Duration::from_secs(20);

/// A report whose probes are attached.
pub struct Watch(Running);

impl Watch {
    /// Starts a report with additional options.
    pub fn start(context: &Context, more: &[&str]) -> anyhow::Result<Self> {
        let arguments = [&["report", "--json", "--attach", &context.attach], more].concat();
        // The line about attaching is an info message, which is off by default.
        let running = Running::start(pinscope::command(&arguments).env("RUST_LOG", "pinscope=info"))?;
        let deadline = Instant::now() + ATTACH;
        while !running.stderr().contains("attached") {
            if Instant::now() > deadline {
                bail!("not attached: {}", running.stderr());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self(running))
    }

    /// Sends pinscope a signal.
    pub fn signal(&self, signal: i32) {
        self.0.signal(signal);
    }

    /// Starts a report on this process only.
    pub fn of_us(context: &Context, more: &[&str]) -> anyhow::Result<Self> {
        let pid = std::process::id().to_string();
        Self::start(context, &[&["--pid", &pid], more].concat())
    }

    /// Ends it with SIGINT, as Ctrl-C does. Returns its last report.
    pub fn end(self) -> anyhow::Result<Value> {
        Ok(self.finish()?.json().clone())
    }

    /// Like [`Watch::end`], as a [`Report`].
    pub fn finish(self) -> anyhow::Result<Report> {
        self.0.signal(libc::SIGINT);
        Report::of(&self.0.finish(STOP)?.expect_code(0)?)
    }

    /// Like [`Watch::end`], with all interval reports before the last one.
    pub fn intervals(self) -> anyhow::Result<Vec<Value>> {
        self.0.signal(libc::SIGINT);
        let finished = self.0.finish(STOP)?.expect_code(0)?;
        let lines = finished.stdout.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| serde_json::from_str(line).with_context(|| format!("no report: {line}"))).collect()
    }
}
