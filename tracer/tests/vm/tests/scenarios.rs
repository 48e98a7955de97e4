//! Tests of the scenarios: each does what its name says, and pinscope's records agree with its own account.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::without_tracer;
use crate::{
    context::Context,
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict, no_problems},
    record::Record,
    scenario::{Account, Call},
    trace::Trace,
};

/// Path of a scenario's account.
const ACCOUNT: &str = "/tmp/guest-scenario.json";
const TIME: Duration = Duration::from_mins(1);

/// Every scenario, in a short form.
const SHORT: [&[&str]; 31] = [
    &["setup_only", "--seconds", "0"],
    &["switch_sets", "--count", "5"],
    &["update_slots", "--count", "5"],
    &["many_rings", "--count", "8"],
    // Its standard input is empty, so it continues at once.
    &["pre_existing"],
    &["clones", "--count", "2"],
    &["idle"],
    &["prefaulted", "--count", "2"],
    &["untouched", "--count", "2"],
    &["many_vmas", "--count", "2", "--vmas", "64"],
    &["many_vmas", "--count", "2", "--vmas", "64", "--pages", "256"],
    &["many_vmas", "--count", "2", "--vmas", "64", "--cured"],
    &["private_file", "--count", "1"],
    &["shared_file", "--count", "1"],
    &["shared_file", "--count", "1", "--cured"],
    &["anon_next_to_memfd", "--count", "1"],
    &["two_memfds", "--count", "1"],
    &["dev_zero_private", "--count", "1"],
    &["ramfs_shared", "--count", "1"],
    &["contended_mmap_lock", "--count", "5"],
    &["uncontended", "--count", "5"],
    &["page_faults", "--count", "1"],
    &["page_faults", "--count", "1", "--cured"],
    &["small_pages", "--count", "1"],
    &["small_pages", "--count", "1", "--cured"],
    &["small_iovecs", "--count", "1", "--pages", "256"],
    &["small_iovecs", "--count", "1", "--pages", "256", "--cured"],
    &["reregistration", "--count", "3"],
    &["reregistration", "--count", "3", "--cured"],
    &["memlock", "--count", "1"],
    &["memlock", "--count", "1", "--cured"],
];

pub fn tests() -> Vec<Test> {
    vec![Test::new("scenario_records", records).within(TIME * 3)]
}

/// A command that runs this program with a scenario's arguments and writes the account to the path that [`account`]
/// reads.
pub fn program(scenario: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("our own path")?);
    command.args(["scenario", "--out", ACCOUNT]).args(scenario);
    Ok(command)
}

/// The account of the last scenario.
pub fn account() -> anyhow::Result<Account> {
    Account::read(ACCOUNT)
}

/// Runs all scenarios in one session. They also run without a tracer, because they check themselves.
fn records(context: &Context) -> TestResult {
    let trace = if context.traces() { Some(Trace::start(context, &["--comm", "guest"])?) } else { None };
    let mut accounts = Vec::new();
    // For a kernel without clones, they are not operations on buffers and make no records.
    let has_clones = context.kernel.version >= Version(6, 12);
    let step = if context.quick { 3 } else { 1 };
    for scenario in SHORT.iter().step_by(step).filter(|scenario| has_clones || scenario[0] != "clones") {
        let _ = std::fs::remove_file(ACCOUNT);
        let finished = Running::start(pinscope::piped(&mut program(scenario)?))?.finish(TIME)?;
        finished.expect_code(0).with_context(|| scenario.join(" "))?;
        accounts.push(account()?);
    }
    let Some(trace) = trace else {
        return Ok(without_tracer(context).unwrap_or(Verdict::Passed));
    };
    let ended = trace.interrupt()?;
    ended.finished.expect_code(0)?;
    ensure!(ended.end["lost_registration_records"] == 0, "{}", ended.end);
    let problems: Vec<String> = accounts.iter().flat_map(|account| against(account, &ended.records)).collect();
    no_problems(&problems)?;
    Ok(Verdict::Passed)
}

/// All differences between the records of a scenario's process and its account.
fn against(account: &Account, records: &[Record]) -> Vec<String> {
    let mut records: Vec<&Record> = records.iter().filter(|record| record.pid == account.pid).collect();
    records.sort_by_key(|record| record.start_ns);
    let name = &account.scenario;
    if records.len() != account.calls.len() {
        return vec![format!("{name}: {} records of {} calls", records.len(), account.calls.len())];
    }
    let wrong = |(call, record): (&Call, &Record)| {
        let what = is_wrong(account, call, record)?;
        Some(format!("{name}: {what}: {record:?}, expected {call:?}"))
    };
    account.calls.iter().zip(records).filter_map(wrong).collect()
}

fn is_wrong(account: &Account, call: &Call, record: &Record) -> Option<&'static str> {
    let whole = call.ret >= 0 && call.buffers > 0;
    let checks = [
        ("operation", record.operation == call.operation),
        ("result", record.result == call.result && record.ret == call.ret),
        ("user", record.uid == account.uid),
        ("start", (call.started_ns..=call.ended_ns).contains(&record.start_ns)),
        ("duration", record.duration_ns.is_none_or(|duration| duration <= call.ended_ns - call.started_ns)),
        ("buffers", !whole || record.buffers == Some(call.buffers)),
        ("bytes", !whole || record.bytes == Some(call.bytes)),
        ("VMAs", !record.vmas_complete || record.vmas.unwrap_or(0) == call.vmas),
        ("faults", record.minor_faults.is_none_or(|faults| faults <= call.minor_faults)),
    ];
    checks.into_iter().find_map(|(what, right)| (!right).then_some(what))
}
