//! Very many calls from several threads at once: no count may be lost, in neither way of attaching.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::without_tracer;
use crate::{
    context::Context,
    generate,
    kernel::Version,
    pinscope::{self, Finished, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    tally::Tally,
    trace::Trace,
};

/// Where the generator writes its account.
const ACCOUNT: &str = "/tmp/guest-account.json";
const LONG: Duration = Duration::from_mins(6);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("storm_report", report).within(LONG),
        Test::new("storm_trace", trace).within(LONG),
        Test::new("storm_crowd", crowd).within(LONG),
        Test::new("storm_abandoned_rings", abandoned),
    ]
}

/// This program with the arguments of a scenario.
pub fn generator(scenario: &[&str]) -> anyhow::Result<Vec<String>> {
    let program = std::env::current_exe().context("our own path")?.display().to_string();
    let words = [&["gen", "--out", ACCOUNT][..], scenario].concat();
    Ok(std::iter::once(program).chain(words.into_iter().map(str::to_owned)).collect())
}

/// Runs a scenario under `pinscope SUBCOMMAND --json`; gives what pinscope said, and the generator's own account.
pub fn under(context: &Context, subcommand: &str, scenario: &[&str]) -> anyhow::Result<(Finished, Tally)> {
    let _ = std::fs::remove_file(ACCOUNT);
    let mut command = pinscope::command(&[subcommand, "--json", "--attach", &context.attach]);
    command.arg("--").args(generator(scenario)?);
    let finished = Running::start(&mut command)?.finish(LONG)?.expect_code(0)?;
    Ok((finished, generate::read(ACCOUNT)?))
}

fn report(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    // Before 6.3 each unregistration waits for an RCU grace period: there one mode makes the whole storm.
    let whole = context.attach == "kprobe" || context.kernel.version >= Version(6, 3);
    let count = match (context.quick, whole) {
        (true, _) => 5_000,
        (false, true) => 100_000,
        (false, false) => 20_000,
    };
    let (finished, truth) = storm(context, count)?;
    let report = Report::of(&finished)?;
    report.balanced(&truth)?;
    let missed = report.missed_returns()?;
    println!("    {count} calls, {} refused, {missed} returns missed", truth.failed());
    all_counted(context, &report, missed)?;
    Ok(Verdict::Passed)
}

/// A kretprobe runs out of instances; a trampoline's program is skipped where it was preempted, and the kernel counts
/// how often. Kprobes are skipped only beside a preempted read of a map, which nobody does during a storm.
fn all_counted(context: &Context, report: &Report, missed: u64) -> anyhow::Result<()> {
    let skipped = report.skipped()?;
    println!("    {skipped} runs skipped");
    ensure!(context.attach != "kprobe" || skipped == 0, "kprobes skipped {skipped} runs: {}", report.json()["skipped"]);
    ensure!(context.attach != "fentry" || missed <= skipped, "fexit missed {missed} returns, skipped {skipped}");
    Ok(())
}

fn storm(context: &Context, count: u64) -> anyhow::Result<(Finished, Tally)> {
    let (calls, chosen) = (count.to_string(), context.seed.to_string());
    let scenario = ["storm", "--threads", "4", "--count", &calls, "--seed", &chosen];
    let (finished, truth) = under(context, "report", &scenario)?;
    ensure!(truth.all() == count, "the generator made {} of {count} calls", truth.all());
    let failed = truth.failed() * 100 / count;
    ensure!((35..=65).contains(&failed), "{failed} % of the calls were refused: not about half");
    Ok((finished, truth))
}

/// With records: what is there and what pinscope says it lost are all.
fn trace(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let count = 2_000;
    let (calls, chosen) = (count.to_string(), context.seed.to_string());
    let scenario = ["storm", "--threads", "4", "--count", &calls, "--seed", &chosen];
    let mut command = Command::new(pinscope::binary());
    command.args(["trace", "--json", "--attach", &context.attach, "--buffer", "64", "--"]).args(generator(&scenario)?);
    let ended = Trace::start_command(pinscope::piped(&mut command))?.ended(LONG)?;
    ended.finished.expect_code(0)?;
    let (told, truth) = (Tally::of(&ended.records), generate::read(ACCOUNT)?);
    let lost = ended.end["lost_registration_records"].as_u64().context("what was lost is not known")?;
    ensure!(told.all() + lost == truth.all(), "{} records and {lost} lost of {}", told.all(), truth.all());
    ensure!(lost > 0 || told == truth, "seen:\n{told}in truth:\n{truth}");
    Ok(Verdict::Passed)
}

/// More registrations asleep at once than a kretprobe has instances for: misses are counted, never lost.
fn crowd(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let (finished, truth) = under(context, "report", &["crowd", "--threads", "64", "--pages", "1024"])?;
    let report = Report::of(&finished)?;
    report.balanced(&truth)?;
    let missed = report.missed_returns()?;
    println!("    64 threads at once: {missed} returns missed");
    all_counted(context, &report, missed)?;
    if missed > 0 {
        let split = &report.json()["split"];
        ensure!(split["complete"] == false, "{missed} returns were missed, and the split says it is whole: {split}");
    }
    Ok(Verdict::Passed)
}

/// Rings that end with their tables: the kernel's cleanup is no unregistration by the user.
fn abandoned(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let (finished, truth) = under(context, "report", &["abandon", "--count", "100"])?;
    ensure!(truth.count("register", "ok") == 100, "the generator: {truth}");
    let report = Report::of(&finished)?;
    report.balanced(&truth)?;
    ensure!(report.tally()?.total("unregister") == 0, "unregistrations that nobody asked for");
    Ok(Verdict::Passed)
}
