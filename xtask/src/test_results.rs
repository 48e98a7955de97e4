//! What test programs print, counted: our guest program's lines and cargo's summaries. Pure.

use std::{collections::VecDeque, fmt};

/// Tests counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestResults {
    pub passed: usize,
    pub failed: usize,
    pub ignored: usize,
}

impl TestResults {
    /// One step that either worked or did not.
    pub fn step(worked: bool) -> Self {
        Self { passed: usize::from(worked), failed: usize::from(!worked), ignored: 0 }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    fn reported(self) -> usize {
        self.passed + self.failed + self.ignored
    }
}

impl fmt::Display for TestResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} ignored", self.ignored)?;
        }
        Ok(())
    }
}

/// Printed by our script before each run of the guest program, with the run's name.
pub const SECTION: &str = "PINSCOPE-SECTION ";
/// Printed by our script behind it, with the exit code.
pub const SECTION_EXIT: &str = "PINSCOPE-SECTION-EXIT ";

/// Lines of a failed test that are shown again at the end.
const SAID: usize = 20;

/// One run of the guest program, as its lines come in.
///
/// It prints `guest: running N tests`, then a line a test (`test NAME ... ok`, `... FAILED`, `... ignored: WHY`; what a
/// failed test has to say stands before its line), then `guest: N passed, N failed, N ignored`.
#[derive(Debug, Default)]
pub struct Section {
    pub results: TestResults,
    /// The tests that failed, each with what it said, and what is wrong with the run as a whole.
    pub failures: Vec<String>,
    /// What was said since the last test's line.
    said: VecDeque<String>,
    announced: Option<usize>,
    summary: Option<TestResults>,
    exit: Option<i32>,
}

impl Section {
    pub fn see(&mut self, line: &str) {
        if let Some((name, result)) = tested(line) {
            match result {
                "ok" => self.results.passed += 1,
                "FAILED" => {
                    self.results.failed += 1;
                    self.failures.push(self.with_what_was_said(name));
                }
                _ if result.starts_with("ignored") => self.results.ignored += 1,
                _ => {}
            }
            self.said.clear();
        } else if let Some(code) = line.strip_prefix(SECTION_EXIT) {
            self.exit = code.trim().parse().ok();
        } else if let Some(rest) = line.strip_prefix("guest: ") {
            if let Some(count) = rest.strip_prefix("running ") {
                self.announced = count.split(' ').next().and_then(|count| count.parse().ok());
            } else {
                self.summary = summary(rest).or(self.summary);
            }
        } else {
            self.said.push_back(line.to_owned());
            if self.said.len() > SAID {
                self.said.pop_front();
            }
        }
    }

    fn with_what_was_said(&self, name: &str) -> String {
        let lines = self.said.iter().flat_map(|line| ["\n    ", line]);
        [name].into_iter().chain(lines).collect()
    }

    /// Holds what was reported against what was announced. A run that is not whole is one more failure.
    pub fn end(mut self) -> Self {
        let reported = self.results.reported();
        let wrong = match (self.announced, self.summary, self.exit) {
            (None, ..) => Some("the guest program announced no tests".to_owned()),
            (Some(announced), ..) if announced != reported => {
                Some(format!("{reported} of {announced} tests were reported"))
            }
            (_, None, _) => Some("the guest program printed no summary".to_owned()),
            (_, Some(summary), _) if summary != self.results => {
                Some(format!("the guest program counted {summary}, its lines say {}", self.results))
            }
            (.., None) => Some("the guest program did not end".to_owned()),
            (.., Some(code)) if code != 0 && self.results.failed == 0 => {
                Some(format!("no test failed, and the guest program's exit code is {code}"))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.results.failed += 1;
            self.failures.push(self.with_what_was_said(&wrong));
        }
        self
    }
}

/// The test of a line that ends one, and what came of it.
pub fn tested(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... "))
}

/// `3 passed, 1 failed, 0 ignored`, which may have more behind it.
fn summary(text: &str) -> Option<TestResults> {
    let mut results = TestResults::default();
    let mut known = 0;
    for part in text.split([',', ';']) {
        let mut words = part.split_whitespace();
        let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse), words.next()) else { continue };
        match what {
            "passed" => results.passed = count,
            "failed" => results.failed = count,
            "ignored" => results.ignored = count,
            _ => continue,
        }
        known += 1;
    }
    (known == 3).then_some(results)
}

/// The count in a line of `cargo test`: `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
pub fn cargo_line(line: &str) -> Option<TestResults> {
    summary(line.strip_prefix("test result: ")?.split_once(". ")?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(lines: &[&str]) -> Section {
        let mut section = Section::default();
        for line in lines {
            section.see(line);
        }
        section.end()
    }

    #[test]
    fn a_whole_run() {
        let section = section(&[
            "guest: running 3 tests",
            "test a::b ... ok",
            "expected 3, found 4",
            "test c ... with dots ... FAILED",
            "test d ... ignored: 5.10 has no clone",
            "guest: 1 passed, 1 failed, 1 ignored",
            "PINSCOPE-SECTION-EXIT 1",
        ]);
        assert_eq!(section.results, TestResults { passed: 1, failed: 1, ignored: 1 });
        assert_eq!(section.failures, ["c ... with dots\n    expected 3, found 4"]);
    }

    #[test]
    fn a_run_that_is_not_whole_fails() {
        let cases: [(&[&str], &str); 5] = [
            (&["test a ... ok"], "announced no tests"),
            (&["guest: running 2 tests", "test a ... ok"], "1 of 2 tests"),
            (&["guest: running 1 tests", "test a ... ok"], "no summary"),
            (&["guest: running 1 tests", "test a ... ok", "guest: 1 passed, 0 failed, 0 ignored"], "did not end"),
            (
                &[
                    "guest: running 1 tests",
                    "test a ... ok",
                    "guest: 1 passed, 0 failed, 0 ignored",
                    "PINSCOPE-SECTION-EXIT 101",
                ],
                "exit code is 101",
            ),
        ];
        for (lines, expected) in cases {
            let section = section(lines);
            assert_eq!(section.results.failed, 1);
            assert!(section.failures[0].contains(expected), "{:?}", section.failures);
        }
    }

    #[test]
    fn a_summary_that_contradicts_the_lines_fails() {
        let section = section(&[
            "guest: running 1 tests",
            "test a ... FAILED",
            "guest: 1 passed, 0 failed, 0 ignored",
            "PINSCOPE-SECTION-EXIT 0",
        ]);
        assert_eq!(section.results.failed, 2);
    }

    #[test]
    fn lines_of_cargo() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(cargo_line(line), Some(TestResults { passed: 3, failed: 2, ignored: 1 }));
        assert_eq!(cargo_line("test x ... ok"), None);
    }
}
