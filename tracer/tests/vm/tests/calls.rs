//! Tests of the system calls around registrations: their own time, and calls that hang.

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
    ring::{EMPTY, Request, Ring},
    scenario::Account,
    watch::Watch,
};

const TIME: Duration = Duration::from_mins(2);
const ACCOUNT: &str = "/tmp/guest-calls.json";
/// Since 6.5, a fault in a pin can wait for a userfaultfd. Before, io_uring pins under `mmap_lock`.
pub const WAITS_IN_THE_PIN: Version = Version(6, 5);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("calls_that_hang", that_hang).within(TIME * 3),
        Test::new("calls_own_time", own_time).within(TIME),
        Test::new("calls_min_duration", min_duration).within(TIME),
        Test::new("calls_wait_for_no_hook", wait_for_no_hook).within(TIME),
    ]
}

/// During a hang, the end of a trace and the daemon's metric show since when, in which process and in which operation.
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
    ensure!((least..=most).contains(&oldest), "the oldest call is {oldest} s old, expected {least} to {most}");
    Ok(Verdict::Passed)
}

/// Tolerance between our clock before a call and the kernel's entry into it: a thread may be preempted in between.
const SLACK: u64 = 500_000_000;

/// The caller's time as measured by its own clock, and the wait for the ring's lock within it.
fn own_time(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("pins that wait for a userfaultfd", WAITS_IN_THE_PIN) {
        return Ok(Verdict::Ignored(why));
    }
    let binary = std::env::current_exe()?;
    let binary = binary.to_str().context("the path of this program")?;
    let scenario = [binary, "scenario", "--out", ACCOUNT, "--seconds", "2", "held_ring"];
    let arguments = [&["report", "--json", "--attach", &context.attach, "--"][..], &scenario].concat();
    let report = Report::of(&pinscope::run(&arguments, TIME)?.expect_code(0)?)?;
    let account = Account::read(ACCOUNT)?;
    let calls = report.json()["calls"].as_array().context("no times of calls")?;
    let at = |operation: &str, key: &str| account.more[operation][key].as_u64().with_context(|| format!("no {key}"));
    // The register holds the lock for its whole duration.
    let held = at("register", "ended_ns")? - at("unregister", "started_ns")?;
    for operation in ["register", "unregister"] {
        let took = at(operation, "ended_ns")? - at(operation, "started_ns")?;
        let told = calls.iter().find(|call| call["operation"] == operation).context("unknown operation")?;
        let part = |key: &str| told[key].as_u64().with_context(|| format!("no {key}"));
        let (total, wait, function) = (part("total_ns")?, part("wait_ns")?, part("function_ns")?);
        ensure!(told["calls"] == 1, "{told}");
        let (waited, worked) = if operation == "register" { (0, took) } else { (held, took.saturating_sub(held)) };
        for (what, told, truth) in [("call", total, took), ("wait", wait, waited), ("function", function, worked)] {
            let near = truth.saturating_sub(SLACK)..=truth + SLACK;
            ensure!(near.contains(&told), "{what} of {operation}: {told} ns, by the callers' clocks {truth}");
        }
        ensure!(total <= took, "{told}: by its own clock {took}");
    }
    Ok(Verdict::Passed)
}

/// A call that waits for its ring's lock for seconds and then works for microseconds took seconds.
fn min_duration(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("pins that wait for a userfaultfd", WAITS_IN_THE_PIN) {
        return Ok(Verdict::Ignored(why));
    }
    let binary = std::env::current_exe()?;
    let binary = binary.to_str().context("the path of this program")?;
    let scenario = [binary, "scenario", "--out", ACCOUNT, "--seconds", "2", "held_ring"];
    let options = ["trace", "--json", "--min-duration", "1", "--attach", &context.attach, "--"];
    let finished = pinscope::run(&[&options[..], &scenario].concat(), TIME)?.expect_code(0)?;
    for operation in ["register", "unregister"] {
        let told = format!("\"operation\":\"{operation}\"");
        ensure!(finished.stdout.contains(&told), "no {operation}: {}", finished.stdout);
    }
    Ok(Verdict::Passed)
}

/// All operations take the same path to the function, so without contention they wait equally long, however much
/// pinscope's hook has to do there.
fn wait_for_no_hook(context: &Context) -> TestResult {
    const CALLS: u64 = 100;
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let ring = Ring::new()?;
    let made = ring.call(Request::Sparse(256));
    if made.ret < 0 {
        return Ok(Verdict::Ignored("no sparse tables".into()));
    }
    let watch = Watch::of_us(context, &[])?;
    let (all, one) = ([EMPTY; 256], [EMPTY; 1]);
    let alone = Ring::new()?;
    for _ in 0..CALLS {
        ensure!(ring.call(Request::Update(0, &all)).ret == 256, "the update failed");
        ensure!(alone.call(Request::Register(&one)).ret == 0, "the register failed");
        ensure!(alone.call(Request::Unregister).ret == 0, "the unregister failed");
    }
    let report = watch.end()?;
    let calls = report["calls"].as_array().context("no times of calls")?;
    let waited = |operation: &str| {
        let told = calls.iter().find(|call| call["operation"] == operation).context("unknown operation")?;
        println!("    {told}");
        Ok::<_, anyhow::Error>(
            told["wait_ns"].as_u64().context("no wait")? / told["calls"].as_u64().context("no calls")?,
        )
    };
    let (update, register, unregister) = (waited("update")?, waited("register")?, waited("unregister")?);
    println!("    on average: update {update} ns, register {register} ns, unregister {unregister} ns");
    ensure!(
        update < 2 * register.max(unregister),
        "an update of 256 slots waits for {update} ns, a register for {register} ns"
    );
    Ok(Verdict::Passed)
}
