//! A running `pinscope trace --json`, and the search for the records of calls.

use std::{
    cell::RefCell,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    attempt::Attempt,
    context::Context,
    contract,
    pinscope::{self, Finished, Running},
    record::Record,
};

/// Timeout for loading and attaching, which are slow under emulation.
const ATTACH: Duration = Duration::from_mins(2);
/// Maximum delay of a record after its call.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Maximum time from Ctrl-C to the end of the session.
const STOP: Duration = Duration::from_secs(10);

/// A running session.
pub struct Trace {
    running: Running,
    seen: RefCell<Seen>,
}

/// Lines read so far.
#[derive(Default)]
struct Seen {
    bytes: usize,
    rest: Vec<u8>,
    started: bool,
    end: Option<Value>,
    records: Vec<Record>,
}

/// A session that has ended.
pub struct Ended {
    /// All its records.
    pub records: Vec<Record>,
    /// Last line of the output.
    pub end: Value,
    /// Exit status and output of pinscope.
    pub finished: Finished,
}

impl Trace {
    /// Starts `pinscope trace --json` with additional arguments, and waits until its probes are attached.
    pub fn start(context: &Context, more: &[&str]) -> anyhow::Result<Self> {
        let mut arguments = vec!["trace", "--json", "--attach", &context.attach];
        arguments.extend(more);
        Self::start_command(&mut pinscope::command(&arguments))
    }

    /// Like [`Trace::start`], for a prepared command.
    pub fn start_command(command: &mut Command) -> anyhow::Result<Self> {
        let trace = Self { running: Running::start(command)?, seen: RefCell::default() };
        trace.wait(ATTACH, |seen| seen.started).context("waiting for the line of type start")?;
        Ok(trace)
    }

    /// Standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.running.stdout_from(0)
    }

    /// The records of these calls. A record belongs to a call if thread, operation and time match.
    pub fn records_of(&self, attempts: &[Attempt]) -> anyhow::Result<Vec<Record>> {
        let found = |seen: &Seen| attempts.iter().all(|attempt| seen.records.iter().any(|r| is_of(r, attempt)));
        self.wait(ARRIVAL, found).with_context(|| {
            let seen = self.seen.borrow();
            let lost = attempts.iter().filter(|attempt| !seen.records.iter().any(|r| is_of(r, attempt)));
            let lost: Vec<String> = lost.map(|a| format!("{} {:?}", a.operation, a.answer)).collect();
            format!("no record of {} of {} calls: {}", lost.len(), attempts.len(), lost.join(", "))
        })?;
        let seen = self.seen.borrow();
        attempts.iter().map(|attempt| only_one(&seen.records, attempt)).collect()
    }

    /// Ends the session with SIGINT, as Ctrl-C does.
    pub fn interrupt(self) -> anyhow::Result<Ended> {
        self.running.signal(libc::SIGINT);
        self.ended(STOP)
    }

    /// Waits until the session ends on its own.
    pub fn ended(self, time: Duration) -> anyhow::Result<Ended> {
        let finished = self.running.finish(time)?;
        let mut seen = self.seen.into_inner();
        seen.take(finished.stdout.as_bytes().get(seen.bytes..).unwrap_or_default())?;
        let Some(end) = seen.end else { bail!("no line of type end\n{}", finished.words()) };
        Ok(Ended { records: seen.records, end, finished })
    }

    fn wait(&self, time: Duration, enough: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let late = Instant::now() >= deadline;
            {
                let mut seen = self.seen.borrow_mut();
                let fresh = self.running.stdout_from(seen.bytes);
                seen.bytes += fresh.len();
                seen.take(&fresh)?;
                if enough(&seen) {
                    return Ok(());
                }
                if seen.end.is_some() {
                    bail!("pinscope ended early; stderr: {}", self.running.stderr());
                }
            }
            if late {
                bail!("still waiting after {} s; stderr: {}", time.as_secs_f64(), self.running.stderr());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Seen {
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=at).collect();
            self.line(&line).with_context(|| format!("line {}", String::from_utf8_lossy(&line).trim_end()))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let value: Value = serde_json::from_slice(line)?;
        contract::kept("trace", &value)?;
        match value["type"].as_str() {
            Some("start") => self.started = true,
            Some("end") => self.end = Some(value),
            Some("registration") if !self.started => {
                bail!("a registration before the line of type start")
            }
            Some("registration") => self.records.push(Record::from_json(&value).map_err(anyhow::Error::msg)?),
            other => bail!("a line of type {other:?}"),
        }
        Ok(())
    }
}

/// Whether a record can belong to a call. For a refusal before the hooked function, the record's time is the end of the
/// call.
fn is_of(record: &Record, attempt: &Attempt) -> bool {
    let during = attempt.answer.started_ns..=attempt.answer.ended_ns;
    record.tid == attempt.tid && record.operation == attempt.operation && during.contains(&record.start_ns)
}

fn only_one(records: &[Record], attempt: &Attempt) -> anyhow::Result<Record> {
    let mut of = records.iter().filter(|record| is_of(record, attempt));
    let record = of.next().context("no record")?;
    if let Some(second) = of.next() {
        bail!("two records of one call: {record:?} and {second:?}");
    }
    Ok(record.clone())
}
