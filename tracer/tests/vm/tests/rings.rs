//! Tests of Q1 on the tests' own rings: few and recreated ones, older ones, by interval, and from several threads.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    clock,
    context::Context,
    errno::result_name,
    kernel::Version,
    protocol::{Test, TestResult, Verdict},
    report::Report,
    ring::{Answer, Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, PAGE},
    watch::Watch,
};

type Case = fn(&Context) -> TestResult;

pub fn tests() -> Vec<Test> {
    let cases: [(&str, Case); 7] = [
        ("rings_occasional", occasional),
        ("rings_renewed", renewed),
        ("rings_with_an_index", with_an_index),
        ("rings_that_were_there_switch_sets", there_before),
        ("rings_by_interval", by_interval),
        ("rings_of_several_threads", several_threads),
        ("rings_one_file_by_two_opens", one_file_by_two_opens),
    ];
    let test = |run: Case| {
        move |context: &Context| {
            drop(context.take_session());
            without_tracer(context).map_or_else(|| run(context), Ok)
        }
    };
    cases.into_iter().map(|(name, run)| Test::new(name, test(run)).within(Duration::from_mins(3))).collect()
}

/// A page to register.
struct Page {
    _space: Space,
    buffer: [Buffer; 1],
}

impl Page {
    fn new() -> anyhow::Result<Self> {
        let mut space = Space::new(PAGE);
        let address = space.map(Kind::Anon, PAGE)?;
        sys::touch(address, PAGE);
        Ok(Self { _space: space, buffer: [Buffer { address, length: PAGE }] })
    }

    fn register(&self, ring: &Ring) -> anyhow::Result<Answer> {
        let answer = ring.call(Request::Register(&self.buffer));
        ensure!(answer.ret == 0, "the kernel answered {}", result_name(answer.ret));
        Ok(answer)
    }

    /// Registers and releases it this number of times, with a pause after each.
    fn switch(&self, ring: &Ring, times: u32, pause: Duration) -> anyhow::Result<Vec<Answer>> {
        let one = |_| {
            let answer = self.register(ring)?;
            ring.call(Request::Unregister);
            thread::sleep(pause);
            Ok(answer)
        };
        (0..times).map(one).collect()
    }
}

fn q1(report: &Report, begins: &str) -> anyhow::Result<()> {
    let answer = report.answer("Q1")?;
    let verdict = answer["verdict"].as_str().with_context(|| format!("no verdict: {answer}"))?;
    ensure!(verdict.starts_with(begins), "{begins:?} is expected: {verdict}");
    Ok(())
}

fn us() -> String {
    format!("process guest (pid {})", std::process::id())
}

fn occasional(context: &Context) -> TestResult {
    let (page, watch) = (Page::new()?, Watch::of_us(context, &[])?);
    let mut ring = Ring::new()?;
    ring.nop()?;
    // Beyond the limit of set-up.
    thread::sleep(Duration::from_millis(1100));
    page.switch(&ring, 2, Duration::ZERO)?;
    q1(&watch.finish()?, "Occasional: 1 of 1 ring had buffers installed after set-up, but few times or rarely")?;
    Ok(Verdict::Passed)
}

fn renewed(context: &Context) -> TestResult {
    let (page, watch) = (Page::new()?, Watch::of_us(context, &[])?);
    for _ in 0..12 {
        page.register(&Ring::new()?)?;
    }
    let report = watch.finish()?;
    q1(&report, &format!("Run time: {} made a new ring for its buffers", us()))?;
    let verdict = report.answer("Q1")?["verdict"].to_string();
    ensure!(verdict.contains("(11 in the place of one that it had closed)"), "{verdict}");
    let tables = report.answer("Q1")?["evidence"]["tables"].as_array().context("no tables")?;
    let processes = tables.iter().find(|table| table["name"] == "processes").context("no table of processes")?;
    let row = &processes["rows"][0];
    let figures = ["rings", "replaced_rings", "installations", "run_time_rings"].map(|key| row[key].as_u64());
    ensure!(figures == [Some(12), Some(11), Some(12), Some(0)] && row["class"] == "run_time", "{row}");
    Ok(Verdict::Passed)
}

/// Rings that live on through their index while their fd is closed and reused: each is set up once.
fn with_an_index(context: &Context) -> TestResult {
    if let Some(why) = context.kernel.lacks("registered ring fds", Version(5, 18)) {
        return Ok(Verdict::Ignored(why));
    }
    let (page, watch) = (Page::new()?, Watch::of_us(context, &[])?);
    let (mut fds, mut indices) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let ring = Ring::new()?;
        page.register(&ring)?;
        indices.push(ring.index().context("IORING_REGISTER_RING_FDS")?);
        fds.push(ring.fd());
        ring.close_fd();
    }
    ensure!(fds.iter().all(|fd| *fd == fds[0]), "the fds are {fds:?}, not all the same");
    let report = watch.finish()?;
    q1(&report, "Set-up: 12 of 12 rings installed buffers only before their first request.")?;
    let notes = report.answer("Q1")?["evidence"]["notes"].to_string();
    ensure!(notes.contains("12 rings live by an index"), "{notes}");
    // They would live as long as this thread.
    let any = Ring::new()?;
    indices.into_iter().try_for_each(|index| any.release_index(index))?;
    Ok(Verdict::Passed)
}

fn there_before(context: &Context) -> TestResult {
    let (page, mut ring) = (Page::new()?, Ring::new()?);
    ring.nop()?;
    let watch = Watch::of_us(context, &[])?;
    page.switch(&ring, 12, Duration::from_millis(5))?;
    let report = watch.finish()?;
    q1(&report, &format!("Run time: {} switched buffer sets", us()))?;
    let told = &report.json()["rings"]["list"][0];
    ensure!(told["registers"] == 12 && told["first_age_ns"].is_null() && told["fd"].is_null(), "{told}");
    let notes = report.answer("Q1")?["evidence"]["notes"].to_string();
    ensure!(notes.contains("1 ring had been there before pinscope"), "{notes}");
    Ok(Verdict::Passed)
}

/// Each interval has its own rate. Together they contain all installations, and the time from the first to the last.
fn by_interval(context: &Context) -> TestResult {
    let (page, watch) = (Page::new()?, Watch::of_us(context, &["-i", "1s"])?);
    let mut ring = Ring::new()?;
    ring.nop()?;
    let calls = page.switch(&ring, 250, Duration::from_millis(10))?;
    let reports = watch.intervals()?;
    let of_ring = |report: &Value, key: &str| report["rings"]["list"][0][key].as_u64().unwrap_or(0);
    let sum = |key: &str| reports.iter().map(|report| of_ring(report, key)).sum::<u64>();
    ensure!(reports.len() >= 3, "{} intervals", reports.len());
    ensure!(sum("registers") == 250 && sum("gaps") == 249, "{} registers, {} gaps", sum("registers"), sum("gaps"));
    let (first, last) = (calls[0], calls[calls.len() - 1]);
    let span = last.started_ns - first.ended_ns..=last.ended_ns - first.started_ns;
    ensure!(span.contains(&sum("span_ns")), "{} ns in all, by our clock {span:?}", sum("span_ns"));
    let rate = 249e9 / sum("span_ns") as f64;
    for report in reports.iter().filter(|report| of_ring(report, "gaps") >= 8) {
        let answers = report["answers"].as_array().context("no answers")?;
        let answer = answers.iter().find(|answer| answer["id"] == "Q1").context("no Q1")?;
        ensure!(answer["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("Run time: ")), "{answer}");
        let told = answer["evidence"]["tables"][0]["rows"][0]["rate_per_second"].as_f64().context("no rate")?;
        ensure!((rate / 2.0..=rate * 2.0).contains(&told), "{told} per second in one interval, {rate} over all");
    }
    // The largest buffer was in the first interval, and no later one was larger.
    let told: Vec<_> = reports.iter().map(|report| report["largest_buffer"]["vmas"].clone()).collect();
    let walked = context.kernel.can_be_walked();
    let first = if walked { Value::from(1) } else { Value::Null };
    ensure!(told[0] == first && told[1..].iter().all(Value::is_null), "the largest by interval: {told:?}");
    Ok(Verdict::Passed)
}

/// Calls of several threads on one ring are serialised, in the order in which the kernel admitted them.
fn several_threads(context: &Context) -> TestResult {
    const THREADS: usize = 4;
    let (page, watch) = (Page::new()?, Watch::of_us(context, &[])?);
    let (ring, accepted) = (Ring::new()?, AtomicU64::new(0));
    let before = clock::monotonic();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..300 {
                    let taken = ring.call(Request::Register(&page.buffer)).ret == 0;
                    accepted.fetch_add(u64::from(taken), Ordering::Relaxed);
                    ring.call(Request::Unregister);
                }
            });
        }
    });
    let (took, accepted) = (clock::monotonic() - before, accepted.into_inner());
    let report = watch.end()?;
    let rings = &report["rings"];
    let told = &rings["list"][0];
    ensure!(told["registers"] == accepted, "{told}, expected {accepted}");
    ensure!(rings["ordinal"]["count"] == accepted && rings["ordinal"]["buckets"][0]["count"] == 1, "{rings}");
    ensure!(rings["gap"]["count"] == accepted - 1, "{} gaps of {accepted}", rings["gap"]["count"]);
    let sum = rings["gap"]["sum"].as_u64().context("no sum of gaps")?;
    ensure!(told["span_ns"] == sum && sum <= took, "gaps of {sum} ns, span {}, by our clock {took}", told["span_ns"]);
    Ok(Verdict::Passed)
}

/// Two `vm_file`s of one inode in one buffer count as one file, and the buffer counts once.
fn one_file_by_two_opens(context: &Context) -> TestResult {
    if let Some(why) = context.kernel.lacks("walk over a buffer's VMAs", Version(5, 17)) {
        return Ok(Verdict::Ignored(why));
    }
    let file = sys::memfd_of(0, 2 * PAGE)?;
    let again: OwnedFd = {
        use std::os::fd::AsRawFd as _;
        std::fs::File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into()
    };
    let mut space = Space::new(2 * PAGE);
    let address = space.map_file(&file, 0, PAGE)?;
    // Not the next page of the file: the kernel could merge the two VMAs.
    space.map_file(&again, 0, PAGE)?;
    let watch = Watch::of_us(context, &[])?;
    let ring = Ring::new()?;
    for _ in 0..3 {
        ring.call(Request::Register(&[Buffer { address, length: 2 * PAGE }]));
        ring.call(Request::Unregister);
    }
    let report = watch.finish()?;
    let files = report.json()["shared_buffer_files"].as_array().cloned().unwrap_or_default();
    ensure!(files.len() == 1 && files[0]["buffers"] == 3, "one file in three buffers: {files:?}");
    let counts = ["multi_vm_file_buffers", "multi_file_buffers"].map(|key| report.json()[key].as_u64());
    ensure!(counts == [Some(3), Some(0)], "three buffers over one file by two opens: {counts:?}");
    let q5 = report.answer("Q5")?;
    let verdict = q5["verdict"].as_str().unwrap_or_default();
    let begins = "3 of 3 buffers (100%) span more than one vm_file of one file, which was opened more than once, such as \
                  those of memfd:pinscope-guest (tmpfs) by guest";
    ensure!(q5["state"] == "answered" && verdict.starts_with(begins), "{q5}");
    Ok(Verdict::Passed)
}
