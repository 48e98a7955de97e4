//! What is registered now, against what our own rings hold; and what a daemon says of itself.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{storm::generator, without_tracer};
use crate::{
    context::Context,
    daemon::{Daemon, Scrape, label},
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::PAGE,
};

/// The end of a table goes through no function of its own before.
const ENDS_ARE_SEEN: Version = Version(6, 1);
const CLONES: Version = Version(6, 12);
/// A ring's end is the work of a kernel thread.
const PATIENCE: Duration = Duration::from_secs(30);
const MANY: usize = 200;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("daemon_registered_is_what_rings_hold", holds).within(Duration::from_mins(3)),
        Test::new("daemon_registered_comes_back_after_a_storm", storm).within(Duration::from_mins(3)),
        Test::new("daemon_registered_is_absent_without_rings", absent).within(Duration::from_mins(2)),
        Test::new("daemon_runs_are_there_while_the_kernel_counts_them", runs).within(Duration::from_mins(3)),
        Test::new("daemon_process_is_itself", process).within(Duration::from_mins(2)),
    ]
}

/// What a ring has in its table: buffers and bytes, or something that pinscope cannot know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Known(u64, u64),
    Unknown,
}

/// Our rings by their fd.
type Truth = BTreeMap<i32, Held>;

fn figures(scrape: &Scrape) -> Option<[f64; 3]> {
    let value = |name: &str| scrape.samples(name).next().map(|(_, value)| value);
    Some([
        value("pinscope_registered_buffers")?,
        value("pinscope_registered_bytes")?,
        value("pinscope_registered_unknown_rings")?,
    ])
}

fn expected(truth: &Truth) -> [f64; 3] {
    truth.values().fold([0.0; 3], |[buffers, bytes, unknown], held| match held {
        Held::Known(more, length) => [buffers + *more as f64, bytes + *length as f64, unknown],
        Held::Unknown => [buffers, bytes, unknown + 1.0],
    })
}

/// Runs of the program at the end of tables that the kernel skipped.
fn skipped_ends(scrape: &Scrape) -> f64 {
    let skipped = scrape.samples("pinscope_skipped_runs_total");
    let of_ends =
        skipped.filter(|(labels, _)| label(labels, "program").is_some_and(|name| name.starts_with("release_")));
    of_ends.map(|(_, runs)| runs).sum()
}

fn check(daemon: &Daemon, truth: &Truth, when: &str) -> anyhow::Result<()> {
    let scrape = daemon.scrape()?;
    let Some(seen) = figures(&scrape) else {
        // Where tasks preempt each other in a trampoline the kernel skips runs, and says so: the end of a table may be
        // among them, and what is registered is unknown from then on.
        ensure!(skipped_ends(&scrape) > 0.0, "{when}: the gauges are not there, and no end of a table was skipped");
        return Ok(());
    };
    let wanted = expected(truth);
    let differs = seen.iter().zip(wanted).any(|(seen, wanted)| (seen - wanted).abs() > 0.5);
    ensure!(!differs, "{when}: buffers, bytes and unknown rings are {seen:?}, in truth {wanted:?}");
    Ok(())
}

fn check_soon(daemon: &Daemon, truth: &Truth, when: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check(daemon, truth, when) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}

/// Does what is asked, and notes it.
fn make(truth: &mut Truth, ring: &Ring, request: Request<'_>) -> anyhow::Result<()> {
    let answer = ring.call(request);
    ensure!(answer.ret >= 0, "{request:?} was answered {}", answer.ret);
    let buffers = request.buffers().iter().filter(|buffer| buffer.length > 0);
    match request {
        Request::Unregister => truth.remove(&ring.fd()),
        Request::Update(..) | Request::Clone(_) => truth.insert(ring.fd(), Held::Unknown),
        _ => truth.insert(ring.fd(), Held::Known(buffers.clone().count() as u64, buffers.map(|b| b.length).sum())),
    };
    Ok(())
}

fn buffers(space: &mut Space, pages: &[u64]) -> anyhow::Result<Vec<Buffer>> {
    pages
        .iter()
        .map(|pages| Ok(Buffer { address: space.map(Kind::Anon, pages * PAGE)?, length: pages * PAGE }))
        .collect()
}

fn holds(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(128 * PAGE);
    let (few, more) = (buffers(&mut space, &[1, 2, 3])?, buffers(&mut space, &[5, 8, 1, 1])?);
    let sparse = [few[0], EMPTY, few[2]];
    let mut truth = Truth::new();
    let old = Ring::new()?;
    ensure!(old.call(Request::Register(&few)).ret == 0, "a ring that was there before");
    let daemon = Daemon::start(context, &["--rings"])?;
    if context.kernel.version < ENDS_ARE_SEEN {
        ensure!(figures(&daemon.scrape()?).is_none(), "there are gauges of what is registered");
        daemon.end()?;
        return Ok(Verdict::Passed);
    }
    check(&daemon, &truth, "a ring that was there before")?;
    let (a, b, c) = (Ring::new()?, Ring::new()?, Ring::new()?);
    make(&mut truth, &a, Request::Register(&few))?;
    make(&mut truth, &b, Request::Register2(&sparse))?;
    check(&daemon, &truth, "two registers")?;
    let hole = [few[0], Buffer { address: 1 << 40, length: PAGE }];
    ensure!(c.call(Request::Register(&hole)).ret < 0 && a.call(Request::Register(&more)).ret < 0, "both are refused");
    check(&daemon, &truth, "a register that failed, and one on a ring that has a table")?;
    make(&mut truth, &b, Request::Unregister)?;
    check(&daemon, &truth, "an unregister")?;
    make(&mut truth, &b, Request::Register(&more))?;
    check(&daemon, &truth, "a register after it")?;
    make(&mut truth, &a, Request::Update(1, &more[..1]))?;
    make(&mut truth, &old, Request::Update(0, &more[..1]))?;
    check(&daemon, &truth, "updates, one on a ring that was there before")?;
    make(&mut truth, &a, Request::Unregister)?;
    make(&mut truth, &a, Request::Register(&few))?;
    check(&daemon, &truth, "a table that is known again")?;
    if context.kernel.version >= CLONES {
        make(&mut truth, &c, Request::Clone(b.fd()))?;
        check(&daemon, &truth, "a clone")?;
        make(&mut truth, &c, Request::Unregister)?;
    }
    many(&daemon, &mut truth, &few)?;
    for ring in [old, a, b, c] {
        truth.remove(&ring.fd());
        drop(ring);
        check_soon(&daemon, &truth, "a ring that is closed")?;
    }
    ensure!(truth.is_empty(), "{truth:?}");
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// Rings that come, and go without having unregistered: their tables end in a kernel thread.
fn many(daemon: &Daemon, truth: &mut Truth, table: &[Buffer]) -> anyhow::Result<()> {
    for _ in 0..2 {
        let rings: Vec<_> = (0..MANY).map(|_| Ring::new()).collect::<Result<_, _>>()?;
        for ring in &rings {
            make(truth, ring, Request::Register(table))?;
        }
        check(daemon, truth, "many rings")?;
        for ring in rings {
            truth.remove(&ring.fd());
            drop(ring);
        }
        check_soon(daemon, truth, "many rings that are closed")?;
    }
    Ok(())
}

/// Threads that register, update, clone and let go at once leave nothing behind.
fn storm(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("end of a table that is seen", ENDS_ARE_SEEN) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(16 * PAGE);
    let table = buffers(&mut space, &[1, 2])?;
    let daemon = Daemon::start(context, &["--rings"])?;
    let ring = Ring::new()?;
    let mut truth = Truth::new();
    make(&mut truth, &ring, Request::Register(&table))?;
    let words = generator(&["storm", "--threads", "4", "--count", "3000", "--seed", "11"])?;
    let mut command = Command::new(&words[0]);
    Running::start(pinscope::piped(command.args(&words[1..])))?.finish(Duration::from_mins(1))?.expect_code(0)?;
    let after = check_soon(&daemon, &truth, "after the storm");
    if after.is_err() {
        // The only excuse: runs at the end of a table were skipped. Then there is no figure.
        let scrape = daemon.scrape()?;
        let skipped = scrape
            .samples("pinscope_skipped_runs_total")
            .filter(|(labels, _)| label(labels, "program").is_some_and(|name| name.starts_with("release_")))
            .map(|(_, runs)| runs)
            .sum::<f64>();
        if skipped > 0.0 {
            ensure!(figures(&scrape).is_none(), "{skipped} runs were skipped, and there is a figure all the same");
            return Ok(Verdict::Passed);
        }
    }
    after?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

fn absent(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(16 * PAGE);
    let table = buffers(&mut space, &[1, 2])?;
    let daemon = Daemon::start(context, &[])?;
    let ring = Ring::new()?;
    ensure!(ring.call(Request::Register(&table)).ret == 0, "the register");
    let scrape = daemon.scrape()?;
    let released = |scrape: &Scrape| {
        let mut probes = scrape.samples("pinscope_probe_attached");
        probes.any(|(labels, _)| label(labels, "program").is_some_and(|name| name.starts_with("release_")))
    };
    ensure!(figures(&scrape).is_none(), "there are gauges of what is registered");
    ensure!(!released(&scrape), "the end of tables is hooked");
    ensure!(scrape.sum("pinscope_build_info", &[]) > 0.5, "no pinscope_build_info");
    let states = scrape.sum("pinscope_health", &[]);
    ensure!((states - 1.0).abs() < 0.1, "pinscope_health is in {states} states");
    let reasons = scrape.samples("pinscope_degraded_reason").count() as f64;
    let counted = scrape.sum("pinscope_degraded_reasons", &[]);
    ensure!((reasons - counted).abs() < 0.1, "{reasons} reasons, {counted} counted");
    daemon.end()?;
    Ok(Verdict::Passed)
}

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Off: no figures. On by the system's setting, and off again. On by the daemon's own wish.
fn runs(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(16 * PAGE);
    let table = buffers(&mut space, &[1])?;
    let register = || {
        let ring = Ring::new()?;
        ensure!(ring.call(Request::Register(&table)).ret == 0, "the register");
        Ok(())
    };
    let ledger = |scrape: &Scrape, name: &str| {
        let mut of_ledger = scrape
            .samples(name)
            .filter(|(labels, _)| label(labels, "program").is_some_and(|program| program.starts_with("ledger")));
        of_ledger.next().map(|(_, value)| value)
    };
    let counts = |scrape: &Scrape| ledger(scrape, "pinscope_program_runs_total");
    let daemon = Daemon::start(context, &[])?;
    register()?;
    ensure!(counts(&daemon.scrape()?).is_none(), "the kernel keeps no statistics, and there are some");
    fs::write(STATISTICS, "1").context(STATISTICS)?;
    for _ in 0..5 {
        register()?;
    }
    let scrape = daemon.scrape()?;
    fs::write(STATISTICS, "0").context(STATISTICS)?;
    let seen = counts(&scrape).context("the kernel keeps statistics, and there are none")?;
    ensure!((seen - 5.0).abs() < 0.1, "{seen} runs of the ledger's program, in truth 5");
    let time = ledger(&scrape, "pinscope_program_run_seconds_total").context("no time")?;
    ensure!(time > 0.0 && time < 1.0, "5 runs took {time} s");
    // A ring's end, which comes by itself, may have been counted after the last look.
    daemon.scrape()?;
    register()?;
    ensure!(counts(&daemon.scrape()?).is_none(), "the statistics are off again, and still there");
    daemon.end()?;
    let daemon = Daemon::start(context, &["--stats"])?;
    let before = counts(&daemon.scrape()?).context("--stats, and there are none")?;
    for _ in 0..7 {
        register()?;
    }
    let after = counts(&daemon.scrape()?).context("--stats, and there are none")?;
    ensure!((after - before - 7.0).abs() < 0.1, "{before} runs, then {after}, in truth 7 more");
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// The figures of the process against /proc, seen from outside.
fn process(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let daemon = Daemon::start(context, &[])?;
    let scrape = daemon.scrape()?;
    let proc = format!("/proc/{}", daemon.id());
    let status = fs::read_to_string(format!("{proc}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        anyhow::Ok(line.trim_end_matches("kB").trim_matches([':', ' ', '\t']).parse::<f64>()?)
    };
    let value = |name: &str| scrape.samples(name).next().map(|(_, value)| value).with_context(|| name.to_owned());
    let near = |name: &str, seen: f64, truth: f64, off: f64| {
        ensure!((seen - truth).abs() <= off, "{name} is {seen}, in truth {truth}");
        Ok(())
    };
    let resident = value("process_resident_memory_bytes")?;
    near("resident memory", resident, kib("VmRSS")? * 1024.0, 2_097_152.0)?;
    near("address space", value("process_virtual_memory_bytes")?, kib("VmSize")? * 1024.0, 4_194_304.0)?;
    near("threads", value("process_threads")?, kib("Threads")?, 1.0)?;
    let open = fs::read_dir(format!("{proc}/fd"))?.count() as f64;
    // While it counts, the connection is open, and what it reads.
    near("open descriptors", value("process_open_fds")?, open, 6.0)?;
    ensure!(value("process_max_fds")? >= 64.0, "so few descriptors");
    ensure!(value("process_cpu_seconds_total")? > 0.0, "no CPU time");
    let begun = value("process_start_time_seconds")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    ensure!(begun < now + 0.5 && begun > now - 120.0, "began at {begun}, and it is {now}");
    let again = daemon.scrape()?;
    let later = again.samples("process_start_time_seconds").next().map(|(_, value)| value);
    ensure!(later == Some(begun), "began at {begun}, then at {later:?}");
    daemon.end()?;
    Ok(Verdict::Passed)
}
