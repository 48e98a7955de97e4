//! Tests of times and faults, compared with our own clock and our own count of faults.

use anyhow::ensure;
use serde_json::Value;

use super::{check_records, ready, without_tracer};
use crate::{
    attempt::{Attempt, perform},
    context::Context,
    kernel::Version,
    protocol::{Test, TestResult, Verdict},
    record::Record,
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, HUGE_PAGE, PAGE},
    watch::Watch,
};

/// Minimum share of our own clock's time, in percent, that a large registration must account for.
const MOST: u64 = 60;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("time_large_untouched", large_untouched),
        Test::new("time_large_touched", large_touched),
        Test::new("time_half_touched", half_touched),
        Test::new("time_huge_pages", huge_pages),
        Test::new("time_many_buffers", many_buffers),
        Test::new("time_walk_is_left_out", walk_is_left_out),
        Test::new("time_major_faults", major_faults),
        Test::new("time_lookups", lookups),
    ]
}

/// One registration with its record. `check_records` has already checked everything that is not this family's subject.
fn one(context: &Context, buffers: &[Buffer]) -> anyhow::Result<(Attempt, Record)> {
    ready(context)?;
    let ring = Ring::new()?;
    let attempt = perform(context, &ring, Request::Register(buffers))?;
    ensure!(attempt.answer.ret == 0, "the kernel answered {}", attempt.answer.ret);
    let calls = [(attempt.clone(), None), (perform(context, &ring, Request::Unregister)?, None)];
    check_records(context, &calls)?;
    let record = context.session()?.records_of(std::slice::from_ref(&attempt))?.remove(0);
    Ok((attempt, record))
}

/// Expected faults of pins without a fault: unknown where huge pages cannot be distinguished from others.
fn none(context: &Context) -> Option<u64> {
    context.kernel.can_be_walked().then_some(0)
}

fn small_pages(space: &mut Space, pages: u64) -> anyhow::Result<u64> {
    let address = space.map(Kind::Anon, pages * PAGE)?;
    sys::advise(address, pages * PAGE, libc::MADV_NOHUGEPAGE)?;
    Ok(address)
}

/// The duration, without pinscope's walk, must be most of the time of our own clock.
fn accounts_for_most(context: &Context, attempt: &Attempt, record: &Record) -> anyhow::Result<()> {
    let walk = if context.kernel.can_be_walked() { record.walk_ns } else { Some(0) };
    let (Some(duration), Some(walk)) = (record.duration_ns, walk) else {
        anyhow::bail!("duration {:?} and walk {:?} are not known", record.duration_ns, record.walk_ns)
    };
    let ours = (attempt.answer.ended_ns - attempt.answer.started_ns).saturating_sub(walk);
    ensure!(duration * 100 >= ours * MOST, "duration {duration} ns of our clock's {ours} (walk {walk} taken off)");
    Ok(())
}

fn large_untouched(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let pages = 64 << 8;
    let mut space = Space::new(pages * PAGE);
    let address = small_pages(&mut space, pages)?;
    let (attempt, record) = one(context, &[Buffer { address, length: pages * PAGE }])?;
    accounts_for_most(context, &attempt, &record)?;
    ensure!(record.minor_faults == Some(pages), "{:?} minor faults for {pages} untouched pages", record.minor_faults);
    ensure!(record.major_faults == Some(0), "{:?} major faults", record.major_faults);
    let (pin, duration) = (record.pin_ns.unwrap_or(0), record.duration_ns.unwrap_or(0));
    ensure!(pin * 100 >= duration * 70, "the pin, which faults in every page, is {pin} of {duration} ns");
    Ok(Verdict::Passed)
}

fn large_touched(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let pages = 64 << 8;
    let mut space = Space::new(pages * PAGE);
    let address = small_pages(&mut space, pages)?;
    sys::touch(address, pages * PAGE);
    let (attempt, record) = one(context, &[Buffer { address, length: pages * PAGE }])?;
    accounts_for_most(context, &attempt, &record)?;
    ensure!(record.minor_faults == none(context), "{:?} minor faults for touched pages", record.minor_faults);
    Ok(Verdict::Passed)
}

fn half_touched(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(64 * PAGE);
    let address = small_pages(&mut space, 48)?;
    sys::touch(address, 20 * PAGE);
    let buffers = [Buffer { address, length: 20 * PAGE }, Buffer { address: address + 20 * PAGE, length: 28 * PAGE }];
    let (_, record) = one(context, &buffers)?;
    let faults: Vec<_> = record.buffer_list.iter().map(|buffer| buffer.minor_faults).collect();
    ensure!(faults == [none(context), Some(28)], "{faults:?} minor faults, of 0 and 28 untouched pages");
    Ok(Verdict::Passed)
}

/// Number of huge pages in one buffer.
const HUGE: u64 = 8;

/// Untouched huge pages are cleared in the pin. Before 6.5, the kernel counts no faults for them, so where pinscope
/// sees that huge pages are involved, it must not report that there was no fault.
fn huge_pages(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new((HUGE + 1) * HUGE_PAGE);
    let address = space.map(Kind::Hugetlb, HUGE * HUGE_PAGE)?;
    let small = small_pages(&mut space, 4)?;
    let buffers = [Buffer { address, length: HUGE * HUGE_PAGE }, Buffer { address: small, length: 4 * PAGE }];
    let watch = Watch::of_us(context, &["--explain"])?;
    let (_, record) = one(context, &buffers)?;
    let report = watch.end()?;
    let faults: Vec<_> = record.buffer_list.iter().map(|buffer| buffer.minor_faults).collect();
    let summary = report["explanations"][0]["summary"].as_str().unwrap_or_default();
    let told = report["degraded"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let told = told.filter(|reason| reason.starts_with("page faults")).count();
    println!("    {faults:?}, {}, {summary}", report["faults"]);
    let minor = &report["faults"]["minor"];
    if context.kernel.version >= Version(6, 5) {
        ensure!(record.minor_faults == Some(HUGE + 4) && faults == [Some(HUGE), Some(4)], "{faults:?}");
        ensure!(*minor == HUGE + 4 && report["faults"]["untold_buffers"] == 0, "{}", report["faults"]);
        ensure!(told == 0 && !summary.contains("unknown"), "{told} reasons, {summary}");
        return Ok(Verdict::Passed);
    }
    ensure!(*minor == 4 && told == 1, "{}, {told} reasons", report["faults"]);
    ensure!(summary.contains("hugetlb pages unknown") && !summary.starts_with("Nothing to advise:"), "{summary}");
    if context.kernel.can_be_walked() {
        ensure!(record.minor_faults.is_none() && faults == [None, Some(4)], "{:?}, {faults:?}", record.minor_faults);
        ensure!(
            record
                .degraded
                .iter()
                .any(|reason| reason.as_str().is_some_and(|reason| reason.contains("page faults are unknown"))),
            "{:?}",
            record.degraded
        );
        ensure!(report["faults"]["untold_buffers"] == 1, "{}", report["faults"]);
    } else {
        ensure!(faults == [None, Some(4)], "{faults:?}");
        ensure!(report["faults"]["untold_buffers"].is_null(), "{}", report["faults"]);
        let habits = &report["processes"][0]["habits"];
        ensure!(habits["untold_faults"].is_null() && habits["minor_faults"] == 4, "{habits}");
    }
    Ok(Verdict::Passed)
}

/// Times of 64 buffers; `compare` checks their sums.
fn many_buffers(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(64 * 64 * PAGE);
    let address = small_pages(&mut space, 64 * 64)?;
    let buffers: Vec<Buffer> =
        (0..64).map(|place| Buffer { address: address + place * 64 * PAGE, length: 64 * PAGE }).collect();
    let (attempt, record) = one(context, &buffers)?;
    accounts_for_most(context, &attempt, &record)?;
    let timed = record.buffer_list.iter().all(|buffer| buffer.duration_ns.is_some_and(|time| time > 0));
    ensure!(timed, "a buffer's time is not known, or zero");
    let ordered = record.buffer_list.iter().zip(0..).all(|(buffer, place)| buffer.index == place);
    ensure!(ordered, "the buffers are not in order");
    Ok(Verdict::Passed)
}

/// The walk over 4,096 VMAs takes longer than the pin of one page; the duration must not include it.
fn walk_is_left_out(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if !context.kernel.can_be_walked() {
        return Ok(Verdict::Ignored("no walk on this kernel".into()));
    }
    let count = 4096;
    let mut space = Space::new(count * PAGE);
    let address = space.map_split(count)?;
    sys::touch(address, count * PAGE);
    let (attempt, record) = one(context, &[Buffer { address, length: count * PAGE }])?;
    let ours = attempt.answer.ended_ns - attempt.answer.started_ns;
    let walk = record.walk_ns.unwrap_or(0);
    ensure!(walk > 0, "a walk over {count} VMAs took no time");
    ensure!(record.duration_ns.is_some_and(|duration| duration + walk <= ours), "more than our clock's {ours} ns");
    Ok(Verdict::Passed)
}

/// A private mapping of a file outside the page cache: the faults are major, as our own count confirms.
fn major_faults(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("registration of files", Version(6, 5)) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(256 * PAGE);
    let address = space.map(Kind::Ext4Private, 256 * PAGE)?;
    let (attempt, record) = one(context, &[Buffer { address, length: 256 * PAGE }])?;
    let ours = attempt.faults.1;
    ensure!(ours > 0, "the layout gives no major fault");
    ensure!(record.major_faults == Some(ours), "{:?} major faults, expected {ours}", record.major_faults);
    Ok(Verdict::Passed)
}

/// The kernel looks up the VMAs of untouched memory; since 6.10, it makes no look-up for memory that is present.
fn lookups(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(64 * PAGE);
    let address = space.map_split(32)?;
    let buffers = [Buffer { address, length: 32 * PAGE }];
    let (_, untouched) = one(context, &buffers)?;
    let seen = untouched.lookups.ok_or_else(|| anyhow::anyhow!("look-ups are not known: {:?}", untouched.degraded))?;
    ensure!(seen >= 32, "{seen} look-ups for 32 VMAs of untouched memory");
    let (_, touched) = one(context, &buffers)?;
    let quick = context.kernel.version >= Version(6, 10);
    let expected = |count: u64| if quick { count == 0 } else { count >= 32 };
    ensure!(touched.lookups.is_some_and(expected), "{:?} look-ups for touched memory", touched.lookups);
    Ok(Verdict::Passed)
}
