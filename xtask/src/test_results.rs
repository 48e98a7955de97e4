//! Counts test results in the output of the guest program and of cargo. Pure.

use std::{collections::VecDeque, fmt};

/// Numbers of tests by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestResults {
    pub passed: usize,
    pub failed: usize,
    pub ignored: usize,
}

impl TestResults {
    /// Result of a single step.
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

/// Printed by our script before each run of the guest program, followed by the run's name.
pub const SECTION: &str = "PINSCOPE-SECTION ";
/// Printed by our script after each run, followed by the exit code.
pub const SECTION_EXIT: &str = "PINSCOPE-SECTION-EXIT ";

/// Number of lines of a failed test's output that are repeated at the end.
const SHOWN_LINES: usize = 20;

/// One run of the guest program, read line by line.
///
/// The program prints `guest: running N tests`, then one line per test (`test NAME ... ok`, `... FAILED`, `... ignored:
/// WHY`), then `guest: N passed, N failed, N ignored`. Output of a failed test precedes its line.
#[derive(Debug, Default)]
pub struct Section {
    pub results: TestResults,
    /// Failed tests with their output, and errors of the run as a whole.
    pub failures: Vec<String>,
    /// Output since the last test's line.
    output: VecDeque<String>,
    announced: Option<usize>,
    summary: Option<TestResults>,
    exit: Option<i32>,
}

impl Section {
    pub fn read_line(&mut self, line: &str) {
        if let Some((name, result)) = tested(line) {
            match result {
                "ok" => self.results.passed += 1,
                "FAILED" => {
                    self.results.failed += 1;
                    self.failures.push(self.with_output(name));
                }
                _ if result.starts_with("ignored") => self.results.ignored += 1,
                _ => {}
            }
            self.output.clear();
        } else if let Some(code) = line.strip_prefix(SECTION_EXIT) {
            self.exit = code.trim().parse().ok();
        } else if let Some(rest) = line.strip_prefix("guest: ") {
            if let Some(count) = rest.strip_prefix("running ") {
                self.announced = count.split(' ').next().and_then(|count| count.parse().ok());
            } else {
                self.summary = summary(rest).or(self.summary);
            }
        } else {
            self.output.push_back(line.to_owned());
            if self.output.len() > SHOWN_LINES {
                self.output.pop_front();
            }
        }
    }

    fn with_output(&self, name: &str) -> String {
        let lines = self.output.iter().flat_map(|line| ["\n    ", line]);
        [name].into_iter().chain(lines).collect()
    }

    /// Compares the reported results with the announced number of tests. An incomplete run counts as one more failure.
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
                Some(format!("no test failed, but the guest program's exit code is {code}"))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.results.failed += 1;
            self.failures.push(self.with_output(&wrong));
        }
        self
    }
}

/// Name and result of the test that a line ends.
pub fn tested(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... "))
}

/// Parses `3 passed, 1 failed, 0 ignored`, possibly followed by more.
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

/// Results in a summary line of `cargo test`: `test result: ok. 3 passed; 0 failed; 0 ignored; ...`.
pub fn cargo_line(line: &str) -> Option<TestResults> {
    summary(line.strip_prefix("test result: ")?.split_once(". ")?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(lines: &[&str]) -> Section {
        let mut section = Section::default();
        for line in lines {
            section.read_line(line);
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
