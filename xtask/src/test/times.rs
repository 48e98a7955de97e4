//! How long the parts of a run take: what is shown of it, and what is kept to compare the next run with.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::Row;
use crate::{cache::Cache, test_results::TestResults};

/// How many of the slowest tests are shown and kept.
const SLOWEST: usize = 10;
/// How many runs are kept: a part that grows by little each time is seen against the shortest of them.
const RUNS: usize = 5;
/// A part has grown if it took so much longer than the shortest of the kept runs, in hundredths, ...
const GROWTH: u64 = 125;
/// ... and by so many seconds: the shortest vary by more.
const LEAST: u64 = 5;
/// What the lines of the slowest tests begin with.
const TEST: &str = "test ";

/// The last whole runs, the newest last, as they are kept in the cache.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<Run>);

/// One run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    /// Seconds by part.
    parts: BTreeMap<String, u64>,
    /// Its slowest tests, each a line.
    slowest: Vec<String>,
}

impl Times {
    /// None where there was no whole run.
    pub fn kept(cache: &Cache) -> Self {
        fs::read_to_string(file(cache)).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Keeps another run.
    pub fn keep(mut self, rows: &[Row], cache: &Cache) -> Result<()> {
        self.0.push(Run::of(rows));
        let newest = self.0.len().saturating_sub(RUNS);
        let runs: Vec<_> = self.0[newest..].iter().map(Run::text).collect();
        let file = file(cache);
        fs::write(&file, runs.join("\n")).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the parts whose names begin so took together the last time; `None` where there are none.
    pub fn beginning(&self, name: &str) -> Option<Duration> {
        let parts = &self.0.last()?.parts;
        let found: Vec<_> = parts.iter().filter(|(part, _)| part.starts_with(name)).map(|(_, &took)| took).collect();
        (!found.is_empty()).then(|| Duration::from_secs(found.iter().sum()))
    }

    fn parse(text: &str) -> Self {
        Self(text.split("\n\n").map(Run::parse).filter(|run| !run.parts.is_empty()).collect())
    }

    /// A line for each section of the guests that has grown by a quarter since. What this machine does itself takes long or not by what
    /// was built before.
    fn grown(&self, now: &Run) -> Vec<String> {
        let sections = now.parts.iter().filter(|(part, _)| part.starts_with("Linux "));
        let grown = sections.filter_map(|(part, &took)| {
            let before = self.0.iter().filter_map(|run| run.parts.get(part)).min()?;
            let is_grown = took * 100 > before * GROWTH && took >= before + LEAST;
            is_grown.then(|| format!("grew: {part}: {took} s, {before} s in one of the last {} runs", self.0.len()))
        });
        grown.collect()
    }
}

impl Run {
    fn of(rows: &[Row]) -> Self {
        // What was prepared took long or not by what was there already.
        let tested = rows.iter().filter(|row| row.results != TestResults::default());
        let mut tests: Vec<_> = rows.iter().flat_map(|row| row.tests.iter().map(move |test| (row, test))).collect();
        tests.sort_by_key(|(_, (_, took))| std::cmp::Reverse(*took));
        let line = |(row, (name, took)): &(&Row, &(String, Duration))| {
            format!("{:>6.1} s  {}: {name}", took.as_secs_f64(), row.what)
        };
        Self {
            parts: tested.map(|row| (row.what.clone(), row.elapsed.as_secs())).collect(),
            slowest: tests.iter().take(SLOWEST).map(line).collect(),
        }
    }

    fn text(&self) -> String {
        let parts = self.parts.iter().map(|(part, seconds)| format!("{seconds} {part}\n"));
        parts.chain(self.slowest.iter().map(|test| format!("{TEST}{test}\n"))).collect()
    }

    fn parse(text: &str) -> Self {
        let mut run = Self::default();
        for line in text.lines() {
            if let Some(test) = line.strip_prefix(TEST) {
                run.slowest.push(test.to_owned());
            } else if let Some((seconds, part)) = line.split_once(' ')
                && let Ok(seconds) = seconds.parse()
            {
                run.parts.insert(part.to_owned(), seconds);
            }
        }
        run
    }
}

/// The slowest tests and, of a whole run, the sections that have grown: what runs less or more cannot be compared.
pub fn summary(rows: &[Row], kept: &Times, is_whole: bool) -> String {
    let run = Run::of(rows);
    let slowest = run.slowest.iter().map(|test| format!("slowest: {test}\n"));
    let grown = if is_whole { kept.grown(&run) } else { Vec::new() };
    slowest.chain(grown.into_iter().map(|line| line + "\n")).collect()
}

fn file(cache: &Cache) -> PathBuf {
    cache.path(Path::new("times"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(what: &str, seconds: u64, tests: &[(&str, u64)]) -> Row {
        let tests = tests.iter().map(|&(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
        Row {
            what: what.to_owned(),
            results: TestResults::step(true),
            elapsed: Duration::from_secs(seconds),
            failures: vec![],
            tests: tests.collect(),
        }
    }

    #[test]
    fn what_grew_by_a_quarter_is_named() {
        let kept = "100 Linux 6.12 fentry\n100 Linux 6.12 kprobe\n4 clippy\n1 Linux 6.1 lockdown\n\n\
                    120 Linux 6.12 fentry\n125 Linux 6.12 kprobe\ntest   61.0 s  Linux 6.12 kprobe: slower\n";
        let rows = [
            row("Linux 6.12 fentry", 126, &[("slow", 60), ("quick", 1)]),
            row("Linux 6.12 kprobe", 125, &[("slower", 61)]),
            row("Linux 6.1 lockdown", 3, &[]),
            row("clippy", 96, &[]),
            row("Linux 7.9 fentry", 500, &[]),
        ];
        let slowest = "slowest:   61.0 s  Linux 6.12 kprobe: slower\n\
                       slowest:   60.0 s  Linux 6.12 fentry: slow\n\
                       slowest:    1.0 s  Linux 6.12 fentry: quick\n";
        let grew = "grew: Linux 6.12 fentry: 126 s, 100 s in one of the last 2 runs\n";
        assert_eq!(summary(&rows, &Times::parse(kept), true), format!("{slowest}{grew}"));
        assert_eq!(summary(&rows, &Times::parse(kept), false), slowest);
    }

    #[test]
    fn a_run_is_read_back() {
        let run = Run::of(&[row("Linux 6.1 kprobe", 7, &[("one", 3)]), row("clippy", 5, &[])]);
        let text = [run.text(), run.text()].join("\n");
        assert_eq!(Times::parse(&text), Times(vec![Run::parse(&run.text()), run]));
    }

    #[test]
    fn a_boot_takes_what_its_sections_took() {
        let times = Times(vec![Run::of(&[row("Linux 6.1 kprobe", 7, &[]), row("Linux 6.1 fentry", 5, &[])])]);
        assert_eq!(times.beginning("Linux 6.1 "), Some(Duration::from_secs(12)));
        assert_eq!(times.beginning("Linux 6.12 "), None);
    }
}
