//! The system calls around the registrations: their own time, and those that hang.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    clock,
    context::Context,
    daemon::Daemon,
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    scenario::Account,
};

const TIME: Duration = Duration::from_mins(2);
const ACCOUNT: &str = "/tmp/guest-calls.json";
/// Since then a fault in a pin waits for a userfaultfd: before, io_uring pins under `mmap_lock`.
const WAITS_IN_THE_PIN: Version = Version(6, 5);

pub fn tests() -> Vec<Test> {
    vec![Test::new("calls_that_hang", that_hang).within(TIME * 3), Test::new("calls_own_time", own_time).within(TIME)]
}

/// In the middle of a hang: at a trace's end and in the daemon's metric, from when, by whom, of which operation.
fn that_hang(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &["--calls"])?;
    let idle = daemon.scrape()?.sum("pinscope_oldest_call_seconds", &[]);
    ensure!(idle < f64::EPSILON, "nothing is under way, and the oldest call has been for {idle} s");
    let mut trace = Running::start(&mut pinscope::command(&["-v", "trace", "--json", "--attach", &context.attach]))?;
    let deadline = Instant::now() + TIME;
    while trace.stdout_from(0).is_empty() {
        ensure!(trace.is_running() && Instant::now() < deadline, "the trace did not begin: {}", trace.stderr());
        thread::sleep(Duration::from_millis(50));
    }
    let waits_in_the_pin = context.kernel.version >= WAITS_IN_THE_PIN;
    let scenario = if waits_in_the_pin { "held_ring" } else { "pending_read" };
    let mut hanging = Command::new(std::env::current_exe()?)
        .args(["scenario", "--out", ACCOUNT, "--seconds", "6", scenario])
        .stdout(Stdio::null())
        .spawn()?;
    thread::sleep(Duration::from_secs(3));
    let before = clock::monotonic();
    let oldest = daemon.scrape()?.sum("pinscope_oldest_call_seconds", &[]);
    let between = clock::monotonic();
    trace.signal(libc::SIGINT);
    let finished = trace.finish(TIME)?.expect_code(0)?;
    let after = clock::monotonic();
    ensure!(hanging.wait()?.success(), "the scenario failed");
    daemon.end()?;
    let account = Account::read(ACCOUNT)?;
    let end: Value = serde_json::from_str(finished.stdout.lines().last().context("no end")?)?;
    let long = end["under_way"]["long"].as_array().with_context(|| format!("no calls under way: {end}"))?;
    let operations: &[&str] = if waits_in_the_pin { &["register", "unregister"] } else { &["unregister"] };
    ensure!(long.len() == operations.len(), "{end}: {operations:?}");
    for operation in operations {
        let began = account.more[*operation]["started_ns"].as_u64().context("no beginning")?;
        let call = long.iter().find(|call| call["operation"] == *operation).with_context(|| format!("{end}"))?;
        let age = call["age_ns"].as_u64().context("no age")?;
        ensure!(call["pid"] == account.pid && call["comm"] == "guest", "{call}: {}", account.pid);
        ensure!(age <= after - began && age + SLACK >= between - began, "{call} began {} ns before", after - began);
    }
    let began = account.more[operations[0]]["started_ns"].as_u64().context("no beginning")?;
    let (least, most) = ((before - began - SLACK) as f64 / 1e9, (between - began) as f64 / 1e9);
    ensure!((least..=most).contains(&oldest), "the oldest call is {oldest} s old, in truth {least} to {most}");
    Ok(Verdict::Passed)
}

/// From the clock before a call to the kernel's own entry of it: a thread may lose its CPU there.
const SLACK: u64 = 500_000_000;

/// The caller's time, by the caller's own clock, and the wait for the ring's lock in it.
fn own_time(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("a pin that a page can be kept from", WAITS_IN_THE_PIN) {
        return Ok(Verdict::Ignored(why));
    }
    let binary = std::env::current_exe()?;
    let binary = binary.to_str().context("the path of this program")?;
    let scenario = [binary, "scenario", "--out", ACCOUNT, "--seconds", "2", "held_ring"];
    let arguments = [&["report", "--json", "--attach", &context.attach, "--"][..], &scenario].concat();
    let report = Report::of(&pinscope::run(&arguments, TIME)?.expect_code(0)?)?;
    let account = Account::read(ACCOUNT)?;
    let calls = report.json()["calls"].as_array().context("no times of calls")?;
    for operation in ["register", "unregister"] {
        let took = |key: &str| account.more[operation][key].as_u64().with_context(|| format!("no {key}"));
        let took = took("ended_ns")? - took("started_ns")?;
        let told = calls.iter().find(|call| call["operation"] == operation).context("no such operation")?;
        let part = |key: &str| told[key].as_u64().with_context(|| format!("no {key}"));
        let (total, wait, function) = (part("total_ns")?, part("wait_ns")?, part("function_ns")?);
        ensure!(told["calls"] == 1 && wait + function + part("after_ns")? == total, "{told}");
        ensure!((took.saturating_sub(SLACK)..=took).contains(&total), "{told}: by its own clock {took}");
        // The scenario waits for 2 s; the lock's holder spends them in its function.
        let (most, least) = if operation == "register" { (function, wait) } else { (wait, function) };
        ensure!(most > 1_900_000_000 && least < 100_000_000, "{told}");
    }
    Ok(Verdict::Passed)
}
