//! Tests of optional measurements: waits for `mmap_lock`, and the phases of the time. Compared with our own clock, our
//! own count of faults, and known facts about the kernel's path.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{storm::generator, without_tracer};
use crate::{
    attempt::{Attempt, perform},
    context::Context,
    kernel::{LOCK_TRACEPOINTS, Version},
    pinscope::{self, Running},
    process,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, PAGE},
    watch::Watch,
    watchdog,
};

/// From linux/capability.h.
const CAP_IPC_LOCK: i32 = 14;
/// Since this kernel, `io_account_mem` is a separate function that is called for every buffer.
const EVERY_BUFFER: Version = Version(6, 16);

type Case = fn(&Context) -> TestResult;

pub fn tests() -> Vec<Test> {
    let cases: [(&str, Case); 10] = [
        ("locks_of_two_sessions", two_sessions),
        ("locks_beside_a_writer", beside_a_writer),
        ("locks_by_path", locks_by_path),
        ("locks_of_a_large_walk", large_walk),
        ("locks_absent_with_a_reason", locks_absent),
        ("locks_in_the_trace", in_the_trace),
        ("phases_faults", faults),
        ("phases_paths", paths),
        ("phases_accounting", accounting),
        ("phases_not_asked_for", not_asked_for),
    ];
    let test = |run: Case| {
        move |context: &Context| {
            // The walks of another pinscope take the lock as well, and cannot be recognised as walks.
            drop(context.take_session());
            without_tracer(context).map_or_else(|| run(context), Ok)
        }
    };
    cases.into_iter().map(|(name, run)| Test::new(name, test(run)).within(Duration::from_mins(4))).collect()
}

fn number(value: &Value, path: &str) -> anyhow::Result<u64> {
    value.pointer(path).and_then(Value::as_u64).with_context(|| format!("no number at {path} in {value}"))
}

/// Registers and unregisters each buffer separately.
fn register_each(context: &Context, ring: &Ring, buffers: &[Buffer]) -> anyhow::Result<Vec<Attempt>> {
    let one = |buffer: &Buffer| {
        let call = perform(context, ring, Request::Register(std::slice::from_ref(buffer)))?;
        ensure!(call.answer.ret == 0, "the kernel answered {}", call.answer.ret);
        ring.call(Request::Unregister);
        Ok(call)
    };
    buffers.iter().map(one).collect()
}

/// This number of buffers, each a new small page.
fn pages(space: &mut Space, count: u64) -> anyhow::Result<Vec<Buffer>> {
    let address = space.map(Kind::Anon, count * PAGE)?;
    sys::advise(address, count * PAGE, libc::MADV_NOHUGEPAGE)?;
    Ok((0..count).map(|page| Buffer { address: address + page * PAGE, length: PAGE }).collect())
}

fn clock_of(calls: &[Attempt]) -> u64 {
    calls.iter().map(|call| call.answer.ended_ns - call.answer.started_ns).sum()
}

/// The reason why a kernel's locks cannot be watched.
fn no_tracepoints(context: &Context) -> Option<Verdict> {
    context.kernel.lacks("tracepoints of mmap_lock", LOCK_TRACEPOINTS).map(Verdict::Ignored)
}

/// The walks of one session take the lock while another session counts waits. No process is killed here, and none may
/// be reported as killed.
fn two_sessions(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if context.kernel.version < LOCK_TRACEPOINTS {
        return Ok(Verdict::Ignored("no tracepoints of mmap_lock on this kernel".into()));
    }
    let words = generator(&["storm", "--threads", "4", "--count", "1000000000", "--seed", "3"])?;
    let mut storm = Command::new(&words[0]).args(&words[1..]).spawn()?;
    watchdog::adopt(storm.id());
    let start = || {
        let arguments = ["report", "--json", "--locks", "-d", "3", "--attach", &context.attach];
        Running::start(&mut pinscope::command(&arguments))
    };
    let ended = start().and_then(|one| Ok([one, start()?])).and_then(|two| {
        let [one, other] = two.map(|session| session.finish(Duration::from_mins(3)));
        Ok([one?, other?])
    });
    storm.kill()?;
    storm.wait()?;
    watchdog::forget(storm.id());
    for finished in ended? {
        let finished = finished.expect_code(0)?;
        let report: Value = serde_json::from_str(&finished.stdout)?;
        let locks = &report["locks"];
        println!("    {} registrations, {} trylocks failed", locks["registrations"], locks["failed_trylocks"]);
        ensure!(locks["registrations"].as_u64() > Some(50), "{} registrations", locks["registrations"]);
        ensure!(
            locks["killed_waits"] == 0,
            "{} waits ended by a fatal signal, and there was none",
            locks["killed_waits"]
        );
    }
    Ok(Verdict::Passed)
}

/// Another thread repeatedly takes the lock for writing and holds it for long. Registrations wait for it, for no longer
/// than they take by our own clock. The other thread's calls are not attributed to them.
fn beside_a_writer(context: &Context) -> TestResult {
    if let Some(verdict) = no_tracepoints(context) {
        return Ok(verdict);
    }
    let count = 40;
    let length = 64 << 20;
    let mut large = Space::new(length);
    let written = large.map(Kind::Anon, length)?;
    sys::advise(written, length, libc::MADV_NOHUGEPAGE)?;
    sys::touch(written, length);
    let ring = Ring::new()?;
    let mut waits = Vec::new();
    for contended in [false, true] {
        let mut space = Space::new(count * PAGE);
        let buffers = pages(&mut space, count)?;
        let watch = Watch::of_us(context, &["--locks"])?;
        let done = AtomicBool::new(!contended);
        let calls = thread::scope(|scope| {
            let writer = scope.spawn(|| -> anyhow::Result<()> {
                while !done.load(Ordering::Relaxed) {
                    for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
                        sys::protect(written, length, protection)?;
                    }
                }
                Ok(())
            });
            let calls = register_each(context, &ring, &buffers);
            done.store(true, Ordering::Relaxed);
            writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
            calls
        })?;
        let told = watch.finish()?;
        let q7 = told.answer("Q7")?;
        let verdict = q7["verdict"].as_str().unwrap_or_default();
        let begins =
            format!("Of {count} registrations, {count} took mmap_lock for reading and 0 for writing; together");
        // Since 7.0, the lock's tracepoints can be preempted; skipped runs degrade the answer.
        let state = q7["state"] == "answered" || (q7["state"] == "degraded" && told.skipped()? > 0);
        ensure!(state && verdict.starts_with(&begins), "{begins:?} is expected, answered: {q7}");
        let report = told.json();
        let locks = &report["locks"];
        let (wait, ours) = (number(locks, "/wait_ns")?, clock_of(&calls));
        ensure!(number(locks, "/registrations")? == count, "{count} registrations, and {locks}");
        ensure!(number(locks, "/readers")? == count, "all of {count} took the lock, and {locks}");
        ensure!(number(locks, "/writers")? == 0 && number(locks, "/write/acquisitions")? == 0, "writers: {locks}");
        ensure!(number(locks, "/read/wait/sum")? == wait, "the waits do not add up: {locks}");
        let total = number(locks, "/total_ns")?;
        ensure!(wait <= total && total <= ours, "waited {wait} of {total} ns, by our clock {ours}");
        ensure!(locks["complete"] == true, "not complete: {locks}, skipped {}", report["skipped"]);
        waits.push((wait, number(locks, "/waited")?, total));
    }
    println!("    idle (wait, waited, total) {:?}, contended {:?}", waits[0], waits[1]);
    let ((idle, ..), (contended, waited, _)) = (waits[0], waits[1]);
    ensure!(contended > 3 * idle && waited > 0, "idle {idle} ns, contended {contended} ns, {waited} waited");
    Ok(Verdict::Passed)
}

/// Which buffers take the lock: every one up to 6.9; since then, those that are not completely present. Once per
/// buffer: pinscope's own walk, which takes it too, is excluded.
fn locks_by_path(context: &Context) -> TestResult {
    if let Some(verdict) = no_tracepoints(context) {
        return Ok(verdict);
    }
    let count = 5;
    let ring = Ring::new()?;
    for touched in [false, true] {
        let mut space = Space::new(count * PAGE);
        let buffers = pages(&mut space, count)?;
        if touched {
            sys::touch(buffers[0].address, count * PAGE);
        }
        let watch = Watch::of_us(context, &["--locks"])?;
        let call = perform(context, &ring, Request::Register(&buffers))?;
        ring.call(Request::Unregister);
        ensure!(call.answer.ret == 0, "the kernel answered {}", call.answer.ret);
        let report = watch.end()?;
        let locks = &report["locks"];
        let fast = touched && context.kernel.version >= Version(6, 10);
        let (readers, taken) = if fast { (0, 0) } else { (1, count) };
        ensure!(number(locks, "/registrations")? == 1, "one registration, and {locks}");
        ensure!(number(locks, "/readers")? == readers, "touched {touched}: {locks}");
        ensure!(number(locks, "/read/acquisitions")? == taken, "touched {touched}: {locks}");
        ensure!(number(locks, "/read/wait/count")? == taken, "touched {touched}: {locks}");
        ensure!(number(locks, "/failed_trylocks")? == 0, "touched {touched}: {locks}");
    }
    Ok(Verdict::Passed)
}

/// A walk over many VMAs takes the lock once for each. None of these belongs to the registration.
fn large_walk(context: &Context) -> TestResult {
    if let Some(verdict) = no_tracepoints(context) {
        return Ok(verdict);
    }
    let count = 300;
    let mut space = Space::new(count * PAGE);
    let address = space.map_split(count)?;
    sys::touch(address, count * PAGE);
    let watch = Watch::of_us(context, &["--locks"])?;
    perform(context, &Ring::new()?, Request::Register(&[Buffer { address, length: count * PAGE }]))?;
    let report = watch.end()?;
    let slow = u64::from(context.kernel.version < Version(6, 10));
    let (walked, locks) = (number(&report, "/walks/vmas")?, &report["locks"]);
    ensure!(walked == count, "{walked} VMAs were walked, of {count}");
    ensure!(number(locks, "/read/acquisitions")? == slow, "{locks}");
    Ok(Verdict::Passed)
}

/// Whether one of the reasons contains these words.
fn has_reason(report: &Value, words: &str) -> bool {
    let reasons = report["degraded"].as_array();
    reasons.is_some_and(|reasons| reasons.iter().any(|reason| reason.as_str().is_some_and(|r| r.contains(words))))
}

/// A kernel without the tracepoints: no figure, and the reason.
fn locks_absent(context: &Context) -> TestResult {
    let avoided = ["--locks", "--avoid", "mmap_lock_acquire_returned"];
    let old = context.kernel.version < LOCK_TRACEPOINTS;
    let report = Watch::of_us(context, if old { &avoided[..1] } else { &avoided })?.end()?;
    ensure!(report["locks"].is_null(), "locks: {}", report["locks"]);
    ensure!(has_reason(&report, "waits for mmap_lock: tracepoint mmap_lock"), "no reason: {}", report["degraded"]);
    Ok(Verdict::Passed)
}

/// The same figures by registration.
fn in_the_trace(context: &Context) -> TestResult {
    let pages = 32;
    let mut space = Space::new(pages * PAGE);
    let address = space.map(Kind::Anon, pages * PAGE)?;
    sys::advise(address, pages * PAGE, libc::MADV_NOHUGEPAGE)?;
    let pid = std::process::id().to_string();
    let trace = crate::trace::Trace::start(context, &["--locks", "--phases", "--pid", &pid])?;
    let ring = Ring::new()?;
    let call = perform(context, &ring, Request::Register(&[Buffer { address, length: pages * PAGE }]))?;
    let gone = perform(context, &ring, Request::Unregister)?;
    trace.records_of(&[call.clone(), gone])?;
    let finished = trace.interrupt()?.finished.expect_code(0)?;
    let lines = finished.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of = |operation: &'static str| move |line: &Value| line["operation"] == operation;
    let lines: Vec<Value> = lines.filter(|line| line["type"] == "registration").collect();
    let line = lines.iter().find(|line| of("register")(line)).context("no line")?;
    let (pin, duration) = (number(line, "/pin_ns")?, number(line, "/duration_ns")?);
    let fault = number(line, "/fault_ns")?;
    ensure!(fault > 0 && fault <= pin, "{fault} ns of faults in a pin of {pin}");
    if context.kernel.version >= LOCK_TRACEPOINTS {
        ensure!(line["lock_acquisitions"] == 1, "{line}");
        ensure!((1..=duration).contains(&number(line, "/lock_wait_ns")?), "{line}");
    } else {
        ensure!(line["lock_wait_ns"].is_null(), "{line}");
    }
    ensure!(line["accounting_ns"].is_null() != has_accounting(context), "{line}");
    let gone = lines.iter().find(|line| of("unregister")(line)).context("no line of the unregistration")?;
    ensure!(["lock_wait_ns", "fault_ns", "accounting_ns"].iter().all(|key| gone[*key].is_null()), "{gone}");
    Ok(Verdict::Passed)
}

/// The phases sum up to the total, which equals that of the report's other sections and is at most the time of our own
/// clock.
fn sums(report: &Value, ours: u64) -> anyhow::Result<()> {
    let phases = &report["phases"];
    let part = |name: &str| phases[name]["ns"].as_u64().unwrap_or(0);
    let (total, pin, rest) = (number(phases, "/total_ns")?, part("pin"), number(phases, "/rest_ns")?);
    ensure!(total == pin + rest, "{phases}");
    ensure!(pin == part("faults") + part("lookups") + number(phases, "/pin_other_ns")?, "{phases}");
    ensure!(rest == part("accounting") + number(phases, "/rest_other_ns")?, "{phases}");
    ensure!(report["split"]["total_ns"] == total && report["split"]["pin_ns"] == pin, "{} {phases}", report["split"]);
    ensure!(total <= ours, "{total} ns, by our clock {ours}");
    ensure!(phases["missed"] == 0 && phases["left_out"] == 0, "{phases}, skipped {}", report["skipped"]);
    Ok(())
}

/// Page faults inside the pin: one per untouched page, according to our own count, and none for touched pages.
fn faults(context: &Context) -> TestResult {
    let count = 500;
    let ring = Ring::new()?;
    for touched in [false, true] {
        let mut space = Space::new(count * PAGE);
        let address = space.map(Kind::Anon, count * PAGE)?;
        sys::advise(address, count * PAGE, libc::MADV_NOHUGEPAGE)?;
        if touched {
            sys::touch(address, count * PAGE);
        }
        let watch = Watch::of_us(context, &["--phases"])?;
        let call = register_each(context, &ring, &[Buffer { address, length: count * PAGE }])?;
        let report = watch.end()?;
        let phases = &report["phases"];
        let expected = if touched { 0 } else { count };
        ensure!(call[0].faults.0 == expected, "the layout gives {} faults", call[0].faults.0);
        ensure!(number(phases, "/faults/calls")? == expected, "{expected} faults, and {phases}");
        ensure!(number(&report, "/faults/minor")? == expected, "{}", report["faults"]);
        ensure!((number(phases, "/faults/ns")? > 0) != touched, "{phases}");
        sums(&report, clock_of(&call))?;
        look_ups_are_timed(context, &report)?;
    }
    Ok(Verdict::Passed)
}

/// Every look-up is timed. 6.1 has no look-up that could be timed, and this is reported.
fn look_ups_are_timed(context: &Context, report: &Value) -> anyhow::Result<()> {
    let phases = &report["phases"];
    let untimed = context.kernel.version >= Version(5, 11) && context.kernel.version < Version(6, 5);
    if untimed {
        ensure!(phases["lookups"].is_null() && has_reason(report, "time of VMA look-ups: "), "{phases}");
        return Ok(());
    }
    ensure!(phases["lookups"]["calls"] == report["lookups"], "{} look-ups, and {phases}", report["lookups"]);
    ensure!(phases["lookups"]["calls"] == 0 || number(phases, "/lookups/ns")? > 0, "{phases}");
    Ok(())
}

/// Touched memory takes the fast path since 6.10; untouched memory, and all memory before 6.10, takes the slow one.
fn paths(context: &Context) -> TestResult {
    let ring = Ring::new()?;
    let mut space = Space::new(8 * PAGE);
    let buffers = pages(&mut space, 8)?;
    sys::touch(buffers[0].address, 5 * PAGE);
    let watch = Watch::of_us(context, &["--phases"])?;
    let calls = register_each(context, &ring, &buffers)?;
    let report = watch.end()?;
    let slow = &report["phases"]["slow"];
    let expected = if context.kernel.version >= Version(6, 10) { (3, 5) } else { (8, 0) };
    ensure!((number(slow, "/pins")?, number(slow, "/fast_pins")?) == expected, "{expected:?}, and {slow}");
    let pin = number(&report, "/phases/pin/ns")?;
    ensure!(number(slow, "/ns")? + number(slow, "/fast_ns")? == pin, "{slow} of {pin}");
    sums(&report, clock_of(&calls))?;

    let report = Watch::of_us(context, &["--phases", "--no-lookups"])?.end()?;
    let unknown = context.kernel.version >= Version(6, 5);
    ensure!(report["phases"]["slow"].is_null() == unknown, "without look-ups: {}", report["phases"]);
    ensure!(report["phases"]["lookups"].is_null() && has_reason(&report, "look-ups are not hooked"), "{report}");
    Ok(Verdict::Passed)
}

/// Charging of pages to the user. Without CAP_IPC_LOCK, each buffer is charged. With it, none is, up to the kernels in
/// which the hooked function itself checks the capability.
fn accounting(context: &Context) -> TestResult {
    if !has_accounting(context) {
        let report = Watch::of_us(context, &["--phases"])?.end()?;
        ensure!(report["phases"]["accounting"].is_null() && has_reason(&report, "time of accounting"), "{report}");
        let (page, watch) = (Space::new(PAGE).map(Kind::Anon, PAGE)?, Watch::of_us(context, &["--phases"])?);
        Ring::new()?.call(Request::Register(&[Buffer { address: page, length: PAGE }]));
        let q2 = watch.finish()?.answer("Q2")?.clone();
        let why = q2["why"].to_string();
        ensure!(q2["state"] != "answered" && why.contains("time of accounting"), "{q2}");
        return Ok(Verdict::Passed);
    }
    for charged in [false, true] {
        let watch = Watch::start(context, &["--phases"])?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["gen", "--out", "/dev/null", "steady", "--seconds", "1", "--buffers", "4"]);
        if charged {
            process::drop_capabilities(&mut child, &[CAP_IPC_LOCK]);
        }
        Running::start(pinscope::piped(&mut child))?.finish(Duration::from_mins(1))?.expect_code(0)?;
        let report = watch.end()?;
        let phases = &report["phases"];
        let buffers = number(&report, "/books/buffers/entries")?;
        ensure!(buffers > 0, "no buffers: {report}");
        let seen = charged || context.kernel.version >= EVERY_BUFFER;
        let expected = if seen { buffers } else { 0 };
        ensure!(number(phases, "/accounting/calls")? == expected, "{expected} of {buffers} buffers, and {phases}");
        ensure!((number(phases, "/accounting/ns")? > 0) == seen, "{phases}");
        sums(&report, u64::MAX)?;
    }
    Ok(Verdict::Passed)
}

/// Whether the kernel charges pages through a function.
fn has_accounting(context: &Context) -> bool {
    (Version(6, 1)..Version(7, 2)).contains(&context.kernel.version)
}

fn not_asked_for(context: &Context) -> TestResult {
    let report = Watch::of_us(context, &[])?.end()?;
    ensure!(report["locks"].is_null() && report["phases"].is_null(), "{report}");
    ensure!(!has_reason(&report, "mmap_lock") && !has_reason(&report, "time of"), "{}", report["degraded"]);
    Ok(Verdict::Passed)
}
