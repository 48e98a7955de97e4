//! The tests, one file per family.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{
    attempt::Attempt,
    compare::compare,
    context::Context,
    protocol::{Test, Verdict, no_problems},
};

mod answers;
mod audit;
mod calls;
mod cli;
mod compat;
mod daemon;
mod debian;
mod detail;
mod evidence;
mod fio;
mod held;
mod liburing;
mod lookalikes;
mod matrix;
mod mixed;
mod namespaces;
mod operations;
mod outcomes;
mod overlay;
mod policies;
mod prometheus;
mod random;
mod registered;
mod rings;
mod scenarios;
mod service;
mod session;
mod storm;
mod tasks;
mod time;
mod unserved;
mod vmas;
mod workloads;

/// All tests in the order in which they run.
pub fn all() -> Vec<Test> {
    let families = [
        matrix::tests(),
        vmas::tests(),
        overlay::tests(),
        operations::tests(),
        outcomes::tests(),
        policies::tests(),
        evidence::tests(),
        answers::tests(),
        compat::tests(),
        random::tests(),
        time::tests(),
        // Ends the session that all of the tests above share.
        session::tests(),
        storm::tests(),
        tasks::tests(),
        fio::tests(),
        liburing::tests(),
        scenarios::tests(),
        lookalikes::tests(),
        audit::tests(),
        cli::tests(),
        held::tests(),
        daemon::tests(),
        mixed::tests(),
        namespaces::tests(),
        service::tests(),
        registered::tests(),
        workloads::tests(),
        detail::tests(),
        rings::tests(),
        calls::tests(),
    ];
    families.into_iter().flatten().collect()
}

/// Compares the calls with their records in the shared session. Without a tracer, there is nothing to compare.
fn check_records(context: &Context, attempts: &[(Attempt, Option<usize>)]) -> anyhow::Result<()> {
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

/// Verdict of a pinscope test when only the kernel is tested.
fn without_tracer(context: &Context) -> Option<Verdict> {
    (!context.traces()).then(|| Verdict::Ignored("pinscope is not tested (--attach none)".into()))
}

/// Starts the shared session before the first call that it has to see.
fn ready(context: &Context) -> anyhow::Result<()> {
    if context.traces() {
        context.session().context("starting pinscope trace")?;
    }
    Ok(())
}

/// Tests for a guest that was booted in a special way; `None` for an unknown circumstance.
pub fn circumstance(name: &str) -> Option<Vec<Test>> {
    match name {
        "lockdown" => Some(cli::lockdown()),
        "debian" => Some(debian::tests()),
        "prometheus" => Some(prometheus::tests()),
        _ => None,
    }
}

/// Runs the part of a test that needs a process of its own.
pub fn probe(name: &str) -> Option<ExitCode> {
    match name {
        "int80" => Some(ExitCode::from(compat::probe())),
        "policies" => Some(policies::probe()),
        "outcomes" => Some(outcomes::probe()),
        "empty" => Some(crate::start::empty()),
        _ => None,
    }
}
