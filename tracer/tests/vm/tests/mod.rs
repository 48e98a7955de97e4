//! The tests, one family a file.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{
    attempt::Attempt,
    compare::compare,
    context::Context,
    protocol::{Test, Verdict, no_problems},
};

mod compat;

mod matrix;
mod operations;
mod random;

mod vmas;

/// All tests, in the order in which they run.
pub fn all() -> Vec<Test> {
    let families = [matrix::tests(), vmas::tests(), operations::tests(), compat::tests(), random::tests()];
    families.into_iter().flatten().collect()
}

/// Holds the calls against the common session's records of them. Without a tracer there is nothing to hold.
fn judge(context: &Context, attempts: &[(Attempt, Option<usize>)]) -> anyhow::Result<()> {
    if !context.traces() {
        return Ok(());
    }
    let calls: Vec<Attempt> = attempts.iter().map(|(attempt, _)| attempt.clone()).collect();
    let records = context.session()?.records_of(&calls)?;
    let problems: Vec<String> = attempts
        .iter()
        .zip(&records)
        .flat_map(|((attempt, failed_at), record)| compare(context, attempt, record, *failed_at))
        .collect();
    no_problems(&problems)
}

/// What a test of pinscope says when only the kernel is under test.
fn without_tracer(context: &Context) -> Option<Verdict> {
    (!context.traces()).then(|| Verdict::Ignored("no tracer was asked for (--attach none)".into()))
}

/// The common session has to be there before the first call that it is to see.
fn ready(context: &Context) -> anyhow::Result<()> {
    if context.traces() {
        context.session().context("starting pinscope trace")?;
    }
    Ok(())
}

/// What is run in a process, or a guest, of its own.
pub fn circumstance(name: &str) -> ExitCode {
    if name == "int80" {
        return ExitCode::from(compat::probe());
    }
    println!("guest: no circumstance is called {name:?}");
    ExitCode::FAILURE
}
