//! How long the parts of a run take: what is shown of it, and what is kept to compare the next run with.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::Row;
use crate::{cache::Cache, tally::Tally};

/// How many of the slowest tests are shown.
const SLOWEST: usize = 10;
/// A part has grown if it took so much longer than the last time, in hundredths, ...
const GROWTH: u64 = 125;
/// ... and by so many seconds: the shortest vary by more.
const LEAST: u64 = 5;

/// Seconds by part, as they are kept in the cache.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Times(BTreeMap<String, u64>);

impl Times {
    /// Those of the last whole run; none where there was none.
    pub fn last(cache: &Cache) -> Self {
        fs::read_to_string(file(cache)).map(|text| Self::parse(&text)).unwrap_or_default()
    }

    pub fn of(rows: &[Row]) -> Self {
        // What was prepared took long or not by what was there already.
        let tested = rows.iter().filter(|row| row.tally != Tally::default());
        Self(tested.map(|row| (row.what.clone(), row.elapsed.as_secs())).collect())
    }

    /// Keeps them for the next run.
    pub fn keep(&self, cache: &Cache) -> Result<()> {
        let mut text = String::new();
        for (part, seconds) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{seconds} {part}");
        }
        let file = file(cache);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the parts whose names begin so took together; `None` where there are none.
    pub fn beginning(&self, name: &str) -> Option<Duration> {
        let found: Vec<_> = self.0.iter().filter(|(part, _)| part.starts_with(name)).map(|(_, &took)| took).collect();
        (!found.is_empty()).then(|| Duration::from_secs(found.iter().sum()))
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (seconds, part) = line.split_once(' ')?;
            Some((part.to_owned(), seconds.parse().ok()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// A line for each part that has grown by a quarter since.
    fn grown(&self, now: &Self) -> Vec<String> {
        let grown = now.0.iter().filter_map(|(part, &took)| {
            let before = *self.0.get(part)?;
            let is_grown = took * 100 > before * GROWTH && took >= before + LEAST;
            is_grown.then(|| format!("grew: {part}: {took} s, {before} s in the last run"))
        });
        grown.collect()
    }
}

/// The slowest tests, and the parts that have grown.
pub fn summary(rows: &[Row], last: &Times) -> String {
    let mut tests: Vec<_> = rows.iter().flat_map(|row| row.tests.iter().map(move |test| (row, test))).collect();
    tests.sort_by_key(|(_, (_, took))| std::cmp::Reverse(*took));
    let mut text = String::new();
    for (row, (name, took)) in tests.iter().take(SLOWEST) {
        let _ = writeln!(text, "slowest: {:>6.1} s  {}: {name}", took.as_secs_f64(), row.what);
    }
    for line in last.grown(&Times::of(rows)) {
        text.push_str(&line);
        text.push('\n');
    }
    text
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
            tally: Tally::step(true),
            elapsed: Duration::from_secs(seconds),
            failures: vec![],
            tests: tests.collect(),
        }
    }

    #[test]
    fn what_grew_by_a_quarter_is_named() {
        let last = Times::parse("100 Linux 6.12 fentry\n100 Linux 6.12 kprobe\n1 formatting\n");
        let rows = [
            row("Linux 6.12 fentry", 126, &[("slow", 60), ("quick", 1)]),
            row("Linux 6.12 kprobe", 125, &[("slower", 61)]),
            row("formatting", 3, &[]),
            row("new", 500, &[]),
        ];
        assert_eq!(
            summary(&rows, &last),
            "slowest:   61.0 s  Linux 6.12 kprobe: slower\n\
             slowest:   60.0 s  Linux 6.12 fentry: slow\n\
             slowest:    1.0 s  Linux 6.12 fentry: quick\n\
             grew: Linux 6.12 fentry: 126 s, 100 s in the last run\n"
        );
    }

    #[test]
    fn a_boot_takes_what_its_sections_took() {
        let times = Times::of(&[row("Linux 6.1 kprobe", 7, &[]), row("Linux 6.1 fentry", 5, &[])]);
        assert_eq!(times.beginning("Linux 6.1 "), Some(Duration::from_secs(12)));
        assert_eq!(times.beginning("Linux 6.12 "), None);
    }
}
