//! Very many calls from several threads at once: no count may be lost, in either attach mode.

use std::{
    ffi::OsString,
    fs,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    call_counts::CallCounts,
    context::Context,
    daemon::{Daemon, Scrape},
    generate,
    kernel::Version,
    ledger::MapCalls,
    pinscope::{self, Finished, Running},
    protocol::{Test, TestResult, Verdict},
    report::Report,
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys,
    trace::Trace,
    user::{SERVICE, as_user},
    watchdog,
};

/// Path of the generator's account.
const ACCOUNT: &str = "/tmp/guest-account.json";
const LONG: Duration = Duration::from_mins(6);

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("storm_report", report).within(LONG),
        Test::new("storm_default_sees_every_buffer", by_default).within(LONG),
        Test::new("storm_user_sees_every_buffer", as_the_service).within(LONG),
        Test::new("storm_incomplete_sums_are_marked", short_sums).within(LONG),
        Test::new("storm_joined_and_left", joined_and_left).within(LONG),
        Test::new("storm_scraped", scraped).within(LONG),
        Test::new("storm_skipped_ends_count_as_missing", heals).within(LONG),
        Test::new("storm_ended_calls_do_not_hang", do_not_hang).within(LONG),
        Test::new("storm_trace", trace).within(LONG),
        Test::new("storm_crowd", crowd).within(LONG),
        Test::new("storm_abandoned_rings", abandoned),
    ]
}

/// Command line of this program with a scenario's arguments.
pub fn generator(scenario: &[&str]) -> anyhow::Result<Vec<String>> {
    let program = std::env::current_exe().context("our own path")?.display().to_string();
    let words = [&["gen", "--out", ACCOUNT][..], scenario].concat();
    Ok(std::iter::once(program).chain(words.into_iter().map(str::to_owned)).collect())
}

/// Runs a scenario under `pinscope SUBCOMMAND --json`. Returns pinscope's output and the generator's account.
pub fn under(context: &Context, subcommand: &str, scenario: &[&str]) -> anyhow::Result<(Finished, CallCounts)> {
    let _ = fs::remove_file(ACCOUNT);
    let mut command = pinscope::command(&[subcommand, "--json", "--attach", &context.attach]);
    command.arg("--").args(generator(scenario)?);
    let finished = Running::start(&mut command)?.finish(LONG)?.expect_code(0)?;
    Ok((finished, generate::read(ACCOUNT)?))
}

fn report(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    // Before 6.3, each unregistration waits for an RCU grace period, so only one mode runs the full storm there.
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

/// A kretprobe can run out of instances. A trampoline's program is skipped if it was preempted, and the kernel counts
/// this. Other hooks are skipped only during a preempted read of a map, which does not happen in a storm.
fn all_counted(context: &Context, report: &Report, missed: u64) -> anyhow::Result<()> {
    let skipped = report.skipped()?;
    println!("    {skipped} runs skipped");
    let skips = context.attach == "fentry";
    ensure!(skips || skipped == 0, "{} skipped {skipped} runs: {}", context.attach, report.json()["skipped"]);
    ensure!(context.attach != "fentry" || missed <= skipped, "fexit missed {missed} returns, skipped {skipped}");
    Ok(())
}

/// With pinscope's default attach mode, independent of the run's.
fn by_default(context: &Context) -> TestResult {
    if context.quick {
        return Ok(Verdict::Ignored("storm_user_sees_every_buffer covers the same hooks".into()));
    }
    sees_every_buffer(context, &[])
}

/// The same with the privileges of the service's user, CAP_BPF and CAP_PERFMON, under Debian's perf_event_paranoid of
/// 3.
fn as_the_service(context: &Context) -> TestResult {
    sees_every_buffer(context, &as_user(SERVICE)?)
}

fn sees_every_buffer(context: &Context, user: &[OsString]) -> TestResult {
    if let Some(verdict) = without_tracer(context).or_else(|| without_preemption(context)) {
        return Ok(verdict);
    }
    let (json, truth) = small_storm(user, "auto")?;
    let (seen, all) = (measured(&json, "buffers", "measured")?, buffers_of(&truth));
    println!("    {}: {seen} of {all} buffers of {} calls", json["mode"], truth.all());
    ensure!(seen * 1000 >= all * 999, "{seen} of {all} buffers: {}", json["skipped"]);
    ensure!(seen <= all, "{seen} buffers where there were {all}");
    let ledger = json["books"]["operations"].as_array().context("no books")?.iter();
    let counted: u64 = ledger.filter_map(|books| books["ledger"].as_u64()).sum();
    ensure!(counted * 1000 >= truth.all() * 999, "{counted} calls of {}", truth.all());
    told_as_short(&json, "buffers", seen, all)?;
    Ok(Verdict::Passed)
}

/// In the run's mode: runs that the kernel skipped reduce the coverage, and the sums are marked as lower bounds.
fn short_sums(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context).or_else(|| without_preemption(context)) {
        return Ok(verdict);
    }
    let (json, truth) = small_storm(&[], &context.attach)?;
    let (seen, all) = (measured(&json, "buffers", "measured")?, buffers_of(&truth));
    println!("    {seen} of {all} buffers seen, coverage {}", json["books"]["figures"]["buffers"]["coverage"]);
    told_as_short(&json, "buffers", seen, all)?;
    // Each buffer here is pinned once and has memory to walk.
    for figure in ["pins", "walks"].into_iter().filter(|figure| !json["books"]["figures"][figure].is_null()) {
        told_as_short(&json, figure, measured(&json, figure, "measured")?, all)?;
    }
    Ok(Verdict::Passed)
}

/// Debian's kernels are preemptible since 6.16; on others, nothing is skipped.
fn without_preemption(context: &Context) -> Option<Verdict> {
    let preempts = context.kernel.version >= Version(6, 16);
    (!preempts).then(|| Verdict::Ignored("the kernel is not preemptible".into()))
}

/// A storm in which 26 % of the buffers were missed on 7.3 although all were reported as seen.
fn small_storm(user: &[OsString], attach: &str) -> anyhow::Result<(Value, CallCounts)> {
    let _ = fs::remove_file(ACCOUNT);
    let scenario = generator(&["storm", "--threads", "4", "--count", "3308", "--seed", "1"])?;
    let words = user.iter().cloned().chain([pinscope::binary().into()]).collect::<Vec<OsString>>();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["report", "--json", "--attach", attach, "--"]).args(scenario);
    let finished = Running::start(pinscope::piped(&mut command))?.finish(LONG)?.expect_code(0)?;
    Ok((Report::of(&finished)?.json().clone(), generate::read(ACCOUNT)?))
}

/// Number of buffers that the kernel processed, by the generator's account: each register has two valid buffers or an
/// invalid one, each update one. If a table exists, a register is refused before its buffers.
fn buffers_of(truth: &CallCounts) -> u64 {
    2 * truth.count("register", "ok")
        + truth.count("register", "EFAULT")
        + truth.count("update", "ok")
        + truth.count("update", "EFAULT")
}

fn measured(json: &Value, figure: &str, what: &str) -> anyhow::Result<u64> {
    json["books"]["figures"][figure][what].as_u64().with_context(|| format!("no {what} {figure}"))
}

/// Everything that was not seen is reported as missing and marks the sums.
fn told_as_short(json: &Value, figure: &str, seen: u64, all: u64) -> anyhow::Result<()> {
    let missing = all.saturating_sub(seen);
    let missed = measured(json, figure, "missed")?;
    ensure!(missed >= missing, "{missing} of {all} {figure} are missing, {missed} are reported");
    let coverage = json["books"]["figures"][figure]["coverage"].as_f64().context("no coverage")?;
    ensure!((coverage - 1.0).abs() < 1e-9 || missed > 0, "coverage {coverage} of {figure}, and none missed");
    for list in ["lower_bounds", "degraded"] {
        let told = json[list].as_array().with_context(|| format!("no {list}"))?;
        ensure!(missed == 0 || !told.is_empty(), "{missed} {figure} missed, but {list} is empty");
    }
    Ok(())
}

fn storm(context: &Context, count: u64) -> anyhow::Result<(Finished, CallCounts)> {
    let (calls, chosen) = (count.to_string(), context.seed.to_string());
    let scenario = ["storm", "--threads", "4", "--count", &calls, "--seed", &chosen];
    let (finished, truth) = under(context, "report", &scenario)?;
    ensure!(truth.all() == count, "the generator made {} of {count} calls", truth.all());
    let failed = truth.failed() * 100 / count;
    ensure!((35..=65).contains(&failed), "{failed} % of the calls were refused: not about half");
    Ok((finished, truth))
}

/// Number of sessions that begin and end in the middle of a storm.
const SESSIONS: usize = 2;

/// A session that begins and ends in the middle of a storm contains complete calls only. Its books balance, and calls
/// in flight at its start neither count as missed nor degrade it.
fn joined_and_left(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if context.quick && context.kernel.version < Version(7, 0) {
        return Ok(Verdict::Ignored("covered on newer kernels".into()));
    }
    let words = generator(&["storm", "--threads", "4", "--count", "1000000000", "--seed", "7"])?;
    let mut storm = Command::new(&words[0]).args(&words[1..]).spawn()?;
    watchdog::adopt(storm.id());
    let mut sessions: Vec<_> = (0..if context.quick { 1 } else { SESSIONS }).map(|_| joined(context)).collect();
    storm.kill()?;
    storm.wait()?;
    watchdog::forget(storm.id());
    sessions.drain(..).collect::<anyhow::Result<()>>()?;
    Ok(Verdict::Passed)
}

/// One of these sessions.
fn joined(context: &Context) -> anyhow::Result<()> {
    let mut command = pinscope::command(&["report", "--json", "-d", "1", "--attach", &context.attach]);
    let finished = Running::start(&mut command)?.finish(LONG)?;
    let report = Report::of(&finished.expect_code(0)?)?;
    let (json, skipped) = (report.json(), report.skipped()?);
    let books = &json["books"];
    println!("    {} calls, {} begun before, skipped {skipped}", report.call_counts()?.all(), books["begun_before"]);
    ensure!(report.call_counts()?.all() > 100, "it saw {} calls", report.call_counts()?.all());
    let of = |what: &str| -> Vec<u64> {
        books["operations"].as_array().into_iter().flatten().filter_map(|one| one[what].as_u64()).collect()
    };
    ensure!(
        books["balanced"] == true && of("unexplained").iter().all(|off| *off == 0),
        "the books do not balance: {books}"
    );
    let missed: u64 = of("missed_entries").iter().sum();
    ensure!(missed <= skipped, "{missed} entries were missed, {skipped} runs skipped: {books}");
    let lower = json["lower_bounds"].as_array().context("no lower bounds")?;
    ensure!(skipped > 0 || lower.is_empty(), "nothing was skipped: {lower:?}");
    // At most one per thread.
    let before = books["begun_before"].as_u64().context("no count of calls begun before")?;
    ensure!(before <= 4, "{before} calls of 4 threads had begun before");
    Ok(())
}

/// Number of concurrent readers of `/metrics`.
const SCRAPERS: usize = 10;

/// A daemon scraped continuously misses no call: it makes no bpf(2) call that would keep programs from running.
fn scraped(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &["--rings"])?;
    let map_calls = MapCalls::of(daemon.id())?;
    let (stop, scrapes) = (AtomicBool::new(false), AtomicU64::new(0));
    let truth = thread::scope(|scope| {
        for _ in 0..SCRAPERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && daemon.scrape().is_ok() {
                    scrapes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Before 6.3, each unregistration waits for an RCU grace period.
        let truth = one_storm(if context.kernel.version >= Version(6, 3) { "6000" } else { "2000" });
        stop.store(true, Ordering::Relaxed);
        truth
    })?;
    let scrape = daemon.scrape()?;
    let map_calls = map_calls.map(MapCalls::end).transpose()?;
    daemon.end()?;
    println!("    {} calls beside {} scrapes", truth.all(), scrapes.load(Ordering::Relaxed));
    let skipped: Vec<_> = scrape.samples("pinscope_skipped_runs_total").filter(|(_, runs)| *runs > 0.0).collect();
    println!("    skipped: {skipped:?}");
    match map_calls.as_deref() {
        Some([]) => println!("    no call of bpf(2) on an element of a map"),
        Some(calls) => bail!("{} calls of bpf(2) on elements of maps, the first: {}", calls.len(), calls[0]),
        None => println!("    this kernel does not tell of calls of bpf(2)"),
    }
    let seen = scrape.registrations()?;
    ensure!(seen == truth, "/metrics has:\n{seen}expected:\n{truth}skipped: {skipped:?}");
    is(&scrape, "pinscope_ledger_calls_total", truth.all())?;
    is(&scrape, "pinscope_in_flight", 0)?;
    is(&scrape, "pinscope_books_balanced", 1)?;
    // On preemptible kernels, trampolines are skipped independently of readers.
    if without_preemption(context).is_some() || context.attach != "fentry" {
        is(&scrape, "pinscope_registration_buffers_sum", buffers_of(&truth))?;
        ensure!(skipped.is_empty(), "skipped: {skipped:?}");
    }
    Ok(Verdict::Passed)
}

/// bpf(2) calls of other processes on a map keep programs from running. Calls whose end was hidden by this count as
/// missing, and do not stay in flight forever.
fn heals(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if context.kernel.version < Version(7, 0) {
        return Ok(Verdict::Ignored("the hook at a call's end is a raw tracepoint, which is never skipped".into()));
    }
    let daemon = Daemon::start(context, &[])?;
    let stop = AtomicBool::new(false);
    let truth = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read_maps(&stop));
        }
        let truth = one_storm("6000");
        stop.store(true, Ordering::Relaxed);
        truth
    })?;
    let scrape = daemon.scrape()?;
    daemon.end()?;
    let counted = scrape.sum("pinscope_ledger_calls_total", &[]) as u64;
    let missing = truth.all().saturating_sub(counted);
    println!("    {counted} of {} calls counted", truth.all());
    ensure!(counted <= truth.all(), "{counted} calls counted of {}", truth.all());
    let told = scrape.sum("pinscope_unmeasured_total", &[("figure", "calls")]) as u64;
    ensure!(told >= missing, "{missing} calls are missing, {told} are reported");
    is(&scrape, "pinscope_books_balanced", 1)?;
    for operation in ["register", "update", "clone", "unregister"] {
        let open = scrape.sum("pinscope_in_flight", &[("hook", operation)]);
        ensure!(open.abs() < 0.5, "every task is gone, and {open} calls of {operation} are under way");
    }
    Ok(Verdict::Passed)
}

/// A call whose end was hidden is not reported as in flight, whether its task still exists or not, and in any PID
/// namespace of the daemon.
fn do_not_hang(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if context.kernel.version < Version(7, 0) {
        return Ok(Verdict::Ignored("the hook at a call's end is a raw tracepoint, which is never skipped".into()));
    }
    let daemon = Daemon::start_as(context, &[], &["unshare", "-p", "-f", "--mount-proc"].map(OsString::from))?;
    let (stop, idle) = (AtomicBool::new(false), AtomicBool::new(true));
    let skipped = |scrape: &Scrape| scrape.sum("pinscope_skipped_runs_total", &[("program", "ledger_classic")]);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read_maps(&stop));
        }
        let callers: Vec<_> = (0..16).map(|_| scope.spawn(|| registers(30, &idle))).collect();
        for _ in 0..30 {
            thread::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| registers(1, &AtomicBool::new(false)));
                }
            });
        }
        // Longer than the time after which a call in flight is named.
        thread::sleep(Duration::from_secs(8));
        stop.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_secs(2));
        let scrape = daemon.scrape()?;
        println!("    {} runs skipped at ends of calls", skipped(&scrape));
        let told = is(&scrape, "pinscope_oldest_call_seconds", 0);
        idle.store(false, Ordering::Relaxed);
        for caller in callers {
            caller.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        told
    })?;
    // The program that created the namespace does not forward signals.
    let id = daemon.id();
    for child in fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?.split_whitespace() {
        // SAFETY: kill(2) touches no memory; the child is the daemon.
        unsafe { libc::kill(child.parse()?, libc::SIGTERM) };
    }
    let _ = daemon.end();
    Ok(Verdict::Passed)
}

/// Registers this number of times, then stays idle while `idle` is set.
fn registers(times: usize, idle: &AtomicBool) -> anyhow::Result<()> {
    let ring = Ring::new()?;
    let mut space = Space::new(16 * sys::PAGE);
    let address = space.map(Kind::Anon, sys::PAGE)?;
    for _ in 0..times {
        ensure!(ring.call(Request::Register(&[Buffer { address, length: sys::PAGE }])).ret == 0, "not registered");
        ensure!(ring.call(Request::Unregister).ret == 0, "not unregistered");
    }
    while idle.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Repeatedly reads an empty map with many buckets.
fn read_maps(stop: &AtomicBool) -> anyhow::Result<()> {
    let map = sys::hash_map(1 << 16)?;
    while !stop.load(Ordering::Relaxed) {
        sys::read_hash_map(&map)?;
    }
    Ok(())
}

fn one_storm(calls: &str) -> anyhow::Result<CallCounts> {
    let _ = fs::remove_file(ACCOUNT);
    let words = generator(&["storm", "--threads", "4", "--count", calls, "--seed", "5"])?;
    let mut command = Command::new(&words[0]);
    Running::start(pinscope::piped(command.args(&words[1..])))?.finish(LONG)?.expect_code(0)?;
    generate::read(ACCOUNT)
}

fn is(scrape: &Scrape, name: &str, expected: u64) -> anyhow::Result<()> {
    let seen = scrape.sum(name, &[]);
    ensure!((seen - expected as f64).abs() < 0.5, "{name} is {seen}, expected {expected}");
    Ok(())
}

/// With records: those that arrived and those reported as lost are all.
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
    let (told, truth) = (CallCounts::of(&ended.records), generate::read(ACCOUNT)?);
    let lost = ended.end["lost_registration_records"].as_u64().context("no count of lost records")?;
    ensure!(told.all() + lost == truth.all(), "{} records and {lost} lost of {}", told.all(), truth.all());
    ensure!(lost > 0 || told == truth, "seen:\n{told}expected:\n{truth}");
    Ok(Verdict::Passed)
}

/// More registrations blocked at once than a kretprobe has instances: misses are counted, none is lost.
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
        ensure!(
            split["complete"] == false,
            "{missed} returns were missed, but the split is marked as complete: {split}"
        );
    }
    Ok(Verdict::Passed)
}

/// Rings that end with their tables: the kernel's cleanup is not an unregistration by the user.
fn abandoned(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let (finished, truth) = under(context, "report", &["abandon", "--count", "100"])?;
    ensure!(truth.count("register", "ok") == 100, "the generator: {truth}");
    let report = Report::of(&finished)?;
    report.balanced(&truth)?;
    ensure!(report.call_counts()?.total("unregister") == 0, "unrequested unregistrations");
    Ok(Verdict::Passed)
}
