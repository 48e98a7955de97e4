//! Definition of a test, and the lines that report its result.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::{context::Context, watchdog};

/// Result of a test that did not fail.
pub enum Verdict {
    /// All checks passed.
    Passed,
    /// This kernel does not support what is tested; the reason.
    Ignored(String),
}

/// A failure is an error; its text is printed before the test's line.
pub type TestResult = anyhow::Result<Verdict>;

/// One test.
pub struct Test {
    /// Name: `family_case`.
    pub name: String,
    /// Time after which the test has failed.
    pub deadline: Duration,
    /// Function that runs the test.
    pub run: Box<dyn Fn(&Context) -> TestResult>,
}

impl Test {
    /// A test with the usual deadline of four minutes.
    pub fn new(name: impl Into<String>, run: impl Fn(&Context) -> TestResult + 'static) -> Self {
        Self { name: name.into(), deadline: Duration::from_mins(4), run: Box::new(run) }
    }

    /// The same test with another deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Runs the tests in order. The exit code is 1 if one failed.
pub fn run_all(tests: &[Test], context: &Context) -> ExitCode {
    println!("guest: running {} tests", tests.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for test in tests {
        let started = Instant::now();
        watchdog::arm(&test.name, test.deadline);
        let result = run_one(test, context);
        watchdog::disarm();
        let name = &test.name;
        match result {
            Ok(Verdict::Passed) => {
                passed += 1;
                if started.elapsed().as_secs() >= 2 {
                    println!("    after {:.1} s", started.elapsed().as_secs_f64());
                }
                println!("test {name} ... ok");
            }
            Ok(Verdict::Ignored(why)) => {
                ignored += 1;
                println!("test {name} ... ignored: {why}");
            }
            Err(problem) => {
                failed += 1;
                for line in problem.lines() {
                    println!("    {line}");
                }
                println!("    after {:.1} s", started.elapsed().as_secs_f64());
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("guest: {passed} passed, {failed} failed, {ignored} ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(test: &Test, context: &Context) -> Result<Verdict, String> {
    match catch_unwind(AssertUnwindSafe(|| (test.run)(context))) {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(panic) => Err(panic_text(panic.as_ref())),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("(no text)"))
}

/// Fails with all problems of a list, at most 20 of them.
pub fn no_problems(problems: &[String]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = problems.iter().take(20).map(String::as_str).collect();
    let more = problems.len().saturating_sub(shown.len());
    let tail = if more == 0 { String::new() } else { format!("\n... and {more} more") };
    anyhow::bail!("{}{tail}", shown.join("\n"))
}
