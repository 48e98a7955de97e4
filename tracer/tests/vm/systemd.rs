//! systemd, its journal and dpkg, by their own programs.

use std::{
    collections::BTreeMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::pinscope::{Finished, Running, piped};

/// For what takes seconds on an idle machine.
const TIME: Duration = Duration::from_mins(2);

/// Runs a program to its end, however that is.
pub fn run(words: &[&str]) -> anyhow::Result<Finished> {
    let mut command = Command::new(words[0]);
    piped(command.args(&words[1..])).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    Running::start(&mut command)?.finish(TIME)
}

/// Runs a program that has to succeed; what it printed.
pub fn output(words: &[&str]) -> anyhow::Result<String> {
    let finished = run(words).and_then(|finished| finished.expect_code(0)).with_context(|| words.join(" "))?;
    Ok(finished.stdout)
}

/// Runs a program that has to succeed.
pub fn succeed(words: &[&str]) -> anyhow::Result<()> {
    output(words).map(drop)
}

/// What systemd says of a unit.
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// `systemctl show`, all of it.
    pub fn of(unit: &str) -> anyhow::Result<Self> {
        let shown = output(&["systemctl", "show", unit])?;
        let pairs = shown.lines().filter_map(|line| line.split_once('='));
        Ok(Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// A property; empty where systemd has none of the name.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub fn is_active(&self) -> bool {
        self.get("ActiveState") == "active"
    }

    /// 0 when there is none.
    pub fn main_pid(&self) -> u32 {
        self.get("MainPID").parse().unwrap_or(0)
    }

    /// How often systemd restarted it by itself.
    pub fn restarts(&self) -> u32 {
        self.get("NRestarts").parse().unwrap_or(0)
    }
}

/// Asks until the answer is right; the error has the last state in words.
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

/// The journal's last lines of a unit, for a failure's detail.
pub fn last_words(unit: &str) -> anyhow::Result<String> {
    output(&["journalctl", "--no-pager", "--quiet", "--lines=20", "--unit", unit])
}

/// An entry of the journal: its fields.
pub struct Entry(Value);

impl Entry {
    /// A field as text; none where it is missing, or is no text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    pub fn message(&self) -> &str {
        self.field("MESSAGE").unwrap_or_default()
    }

    /// From 0 (emergency) to 7 (debug).
    pub fn priority(&self) -> Option<u8> {
        self.field("PRIORITY")?.parse().ok()
    }

    /// All of it, for a failure's detail.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// A place in the journal, to read on from.
pub struct Cursor(String);

impl Cursor {
    /// Its end as it is now.
    pub fn now() -> anyhow::Result<Self> {
        let _ = run(&["journalctl", "--sync"])?;
        let shown = output(&["journalctl", "--quiet", "--lines=1", "--output=json"])?;
        let last: Value = serde_json::from_str(shown.trim())?;
        Ok(Self(last["__CURSOR"].as_str().context("the journal has no cursor")?.to_owned()))
    }

    /// What a unit's own processes have logged since. Of one that ended at once journald may not know the unit any more.
    pub fn entries(&self, unit: &str) -> anyhow::Result<Vec<Entry>> {
        let name = unit.trim_end_matches(".service");
        self.select(|entry| {
            entry.field("_SYSTEMD_UNIT") == Some(unit) || entry.field("SYSLOG_IDENTIFIER") == Some(name)
        })
    }

    /// What systemd itself has logged of a unit since.
    pub fn of_systemd(&self, unit: &str) -> anyhow::Result<Vec<Entry>> {
        self.select(|entry| entry.field("_PID") == Some("1") && entry.field("UNIT") == Some(unit))
    }

    /// Picked here: where journalctl has to pick too, it passes over the first entry behind a cursor (before 253).
    fn select(&self, is_wanted: impl Fn(&Entry) -> bool) -> anyhow::Result<Vec<Entry>> {
        let _ = run(&["journalctl", "--sync"])?;
        let after = format!("--after-cursor={}", self.0);
        let shown = output(&["journalctl", "--quiet", "--all", "--output=json", &after])?;
        let all = shown.lines().map(|line| Ok(Entry(serde_json::from_str(line)?)));
        all.filter(|entry| entry.as_ref().map_or(true, &is_wanted)).collect()
    }
}
