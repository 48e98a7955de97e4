//! Durations of the parts of a run: how they are shown, and how they are stored for comparison with the next run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::Row;
use crate::{cache::Cache, test_results::TestResults};

/// Number of the slowest tests that are shown and stored.
const SLOWEST: usize = 10;
/// Number of runs that are stored. A part that grows a little each time still shows against the shortest of them.
const RUNS: usize = 5;
/// Growth that is reported, relative to the shortest stored run, in hundredths.
const GROWTH: u64 = 125;
/// Minimum growth in seconds; short parts vary by more than a quarter.
const LEAST: u64 = 5;
/// Prefix of the lines with the slowest tests.
const TEST: &str = "test ";

/// The last complete runs as stored in the cache, newest last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<Run>);

/// One run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Run {
    /// Duration of each part in seconds.
    parts: BTreeMap<String, u64>,
    /// Slowest tests, one line each.
    slowest: Vec<String>,
}

impl Times {
    /// Reads the stored runs; empty if there was no complete run.
    pub fn kept(cache: &Cache) -> Self {
        fs::read_to_string(file(cache)).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Stores another run.
    pub fn keep(mut self, rows: &[Row], cache: &Cache) -> Result<()> {
        self.0.push(Run::of(rows));
        let newest = self.0.len().saturating_sub(RUNS);
        let runs: Vec<_> = self.0[newest..].iter().map(Run::text).collect();
        let file = file(cache);
        fs::write(&file, runs.join("\n")).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Total duration, in the last run, of the parts whose names begin with `name`; `None` if there are none.
    pub fn beginning(&self, name: &str) -> Option<Duration> {
        let parts = &self.0.last()?.parts;
        let found: Vec<_> = parts.iter().filter(|(part, _)| part.starts_with(name)).map(|(_, &took)| took).collect();
        (!found.is_empty()).then(|| Duration::from_secs(found.iter().sum()))
    }

    fn parse(text: &str) -> Self {
        Self(text.split("\n\n").map(Run::parse).filter(|run| !run.parts.is_empty()).collect())
    }

    /// A line for each section of the guests that has grown by a quarter. Durations of this machine's own checks depend
    /// on what was built before, and are not compared.
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
        // Durations of preparation depend on what was there already.
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

/// The slowest tests and, for a complete run, the sections that have grown. Partial runs are not comparable.
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
    fn growth_by_a_quarter_is_reported() {
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
