//! systemd, its journal and dpkg, through their command-line programs.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::pinscope::{Finished, Running, piped};

/// Timeout for operations that take seconds on an idle machine.
const TIME: Duration = Duration::from_mins(2);

/// Runs a program until it ends, with any exit status.
pub fn run(words: &[&str]) -> anyhow::Result<Finished> {
    let mut command = Command::new(words[0]);
    piped(command.args(&words[1..])).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    Running::start(&mut command)?.finish(TIME)
}

/// Runs a program that must succeed, and returns its output.
pub fn output(words: &[&str]) -> anyhow::Result<String> {
    let finished = run(words).and_then(|finished| finished.expect_code(0)).with_context(|| words.join(" "))?;
    Ok(finished.stdout)
}

/// Runs a program that must succeed.
pub fn succeed(words: &[&str]) -> anyhow::Result<()> {
    output(words).map(drop)
}

/// Properties of a unit, as reported by systemd.
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// Reads all of `systemctl show`.
    pub fn of(unit: &str) -> anyhow::Result<Self> {
        let shown = output(&["systemctl", "show", unit])?;
        let pairs = shown.lines().filter_map(|line| line.split_once('='));
        Ok(Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// A property; empty if systemd has none of this name.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    /// Main process id; 0 if there is none.
    pub fn main_pid(&self) -> u32 {
        self.get("MainPID").parse().unwrap_or(0)
    }

    /// Number of automatic restarts by systemd.
    pub fn restarts(&self) -> u32 {
        self.get("NRestarts").parse().unwrap_or(0)
    }
}

/// Polls until the predicate holds. The error contains the last state.
pub fn wait_for(
    unit: &str,
    time: Duration,
    what: &str,
    mut is_right: impl FnMut(&Status) -> bool,
) -> anyhow::Result<Status> {
    let deadline = Instant::now() + time;
    loop {
        let status = Status::of(unit)?;
        if is_right(&status) {
            return Ok(status);
        }
        if Instant::now() > deadline {
            let words = ["ActiveState", "SubState", "Result", "StatusText", "MainPID", "NRestarts"];
            let words = words.map(|name| format!("{name}={}", status.get(name))).join(" ");
            bail!("{unit} is not {what} after {} s: {words}\n{}", time.as_secs(), last_words(unit)?);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Last lines of a unit's journal, for the text of a failure.
pub fn last_words(unit: &str) -> anyhow::Result<String> {
    output(&["journalctl", "--no-pager", "--quiet", "--lines=20", "--unit", unit])
}

/// An entry of the journal.
pub struct Entry(Value);

impl Entry {
    /// A field as text; `None` if it is missing or is not text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    pub fn message(&self) -> &str {
        self.field("MESSAGE").unwrap_or_default()
    }

    /// Priority, from 0 (emergency) to 7 (debug).
    pub fn priority(&self) -> Option<u8> {
        self.field("PRIORITY")?.parse().ok()
    }

    /// The whole entry, for the text of a failure.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// A position in the journal from which to read.
pub struct Cursor(String);

impl Cursor {
    /// The current end of the journal.
    pub fn now() -> anyhow::Result<Self> {
        let _ = run(&["journalctl", "--sync"])?;
        let shown = output(&["journalctl", "--quiet", "--lines=1", "--output=json"])?;
        let last: Value = serde_json::from_str(shown.trim())?;
        Ok(Self(last["__CURSOR"].as_str().context("the journal has no cursor")?.to_owned()))
    }

    /// Entries of a unit's own processes since the cursor. For a process that ended immediately, journald may not know
    /// the unit.
    pub fn entries(&self, unit: &str) -> anyhow::Result<Vec<Entry>> {
        let name = unit.trim_end_matches(".service");
        self.select(|entry| {
            entry.field("_SYSTEMD_UNIT") == Some(unit) || entry.field("SYSLOG_IDENTIFIER") == Some(name)
        })
    }

    /// Entries of systemd itself about a unit since the cursor.
    pub fn of_systemd(&self, unit: &str) -> anyhow::Result<Vec<Entry>> {
        self.select(|entry| entry.field("_PID") == Some("1") && entry.field("UNIT") == Some(unit))
    }

    /// Filters here and not in journalctl: with a filter, journalctl before 253 skips the first entry after a cursor.
    fn select(&self, is_wanted: impl Fn(&Entry) -> bool) -> anyhow::Result<Vec<Entry>> {
        let _ = run(&["journalctl", "--sync"])?;
        let after = format!("--after-cursor={}", self.0);
        let shown = output(&["journalctl", "--quiet", "--all", "--output=json", &after])?;
        let all = shown.lines().map(|line| Ok(Entry(serde_json::from_str(line)?)));
        all.filter(|entry| entry.as_ref().map_or(true, &is_wanted)).collect()
    }
}
