//! Tests of what is registered now, compared with our own rings, and of the daemon's own figures.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use caps::{CapSet, Capability};

use super::{storm::generator, without_tracer};
use crate::{
    cgroup::{self, Cgroup},
    context::Context,
    daemon::{Daemon, Scrape, label},
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, EMPTY, Request, Ring},
    space::{Kind, Space},
    sys::{PAGE, touch},
    user::{SERVICE, as_user},
};

/// Before this kernel, no separate function releases a table.
const ENDS_ARE_SEEN: Version = Version(6, 1);
const CLONES: Version = Version(6, 12);
/// Timeout for the end of a ring, which a kernel thread processes.
const PATIENCE: Duration = Duration::from_secs(30);
const MANY: usize = 200;
const WORKLOAD: &str = "registered.service";

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("daemon_registered_before_the_start", before).within(Duration::from_mins(2)),
        Test::new("daemon_registered_in_a_namespace", namespace).within(Duration::from_mins(2)),
        Test::new("daemon_registered_during_the_start", amid).within(Duration::from_mins(2)),
        Test::new("daemon_registered_equals_the_rings", holds).within(Duration::from_mins(3)),
        Test::new("daemon_registered_takes_turns", in_turns).within(Duration::from_mins(3)),
        Test::new("daemon_registered_of_several_processes", of_several).within(Duration::from_mins(2)),
        Test::new("daemon_registered_nothing_left_after_a_storm", storm).within(Duration::from_mins(3)),
        Test::new("daemon_registered_is_absent_without_rings", absent).within(Duration::from_mins(2)),
        Test::new("daemon_runs_only_with_kernel_statistics", runs).within(Duration::from_mins(3)),
        Test::new("daemon_process_metrics", process).within(Duration::from_mins(2)),
    ]
}

/// Our rings by their fd, with the slots of their tables.
type Truth = BTreeMap<i32, Vec<Buffer>>;

/// Gauges in the order of [`expected`].
const GAUGES: [&str; 6] = [
    "pinscope_registered_rings",
    "pinscope_registered_buffers",
    "pinscope_registered_bytes",
    "pinscope_pinned_bytes",
    "pinscope_registered_unknown_rings",
    "pinscope_registered_lower_bound",
];

fn figures(scrape: &Scrape) -> Option<Vec<f64>> {
    GAUGES.iter().map(|name| scrape.samples(name).next().map(|(_, value)| value)).collect()
}

fn expected(truth: &Truth) -> Vec<f64> {
    let buffers: Vec<_> = truth.values().flatten().filter(|buffer| buffer.length > 0).collect();
    let bytes: u64 = buffers.iter().map(|buffer| buffer.length).sum();
    let pages = |buffer: &&Buffer| buffer.address / PAGE..(buffer.address + buffer.length).div_ceil(PAGE);
    let pinned: BTreeSet<_> = buffers.iter().flat_map(pages).collect();
    [truth.len() as u64, buffers.len() as u64, bytes, pinned.len() as u64 * PAGE, 0, 0].map(|n| n as f64).into()
}

fn check(daemon: &Daemon, truth: &Truth, when: &str) -> anyhow::Result<()> {
    let seen = figures(&daemon.scrape()?).with_context(|| format!("{when}: a gauge is missing"))?;
    let wanted = expected(truth);
    ensure!(seen == wanted, "{when}: {GAUGES:?} are {seen:?}, expected {wanted:?}");
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

/// Makes the request and records its effect.
fn make(truth: &mut Truth, ring: &Ring, request: Request<'_>) -> anyhow::Result<()> {
    let answer = ring.call(request);
    ensure!(answer.ret >= 0, "{request:?} was answered {}", answer.ret);
    match request {
        Request::Unregister => {
            truth.remove(&ring.fd());
        }
        Request::Update(first, buffers) => {
            let table = truth.get_mut(&ring.fd()).context("an update without a table")?;
            table[first as usize..][..buffers.len()].copy_from_slice(buffers);
        }
        Request::Clone(source) => {
            let table = truth.get(&source).context("a clone of nothing")?.clone();
            truth.insert(ring.fd(), table);
        }
        Request::Sparse(slots) => {
            truth.insert(ring.fd(), vec![EMPTY; slots as usize]);
        }
        _ => {
            truth.insert(ring.fd(), request.buffers().to_vec());
        }
    }
    Ok(())
}

fn buffers(space: &mut Space, pages: &[u64]) -> anyhow::Result<Vec<Buffer>> {
    pages
        .iter()
        .map(|pages| Ok(Buffer { address: space.map(Kind::Anon, pages * PAGE)?, length: pages * PAGE }))
        .collect()
}

/// This number of adjacent buffers, two of which share each page.
fn halves(space: &mut Space, count: u64) -> anyhow::Result<Vec<Buffer>> {
    let start = space.map(Kind::Anon, count.div_ceil(2) * PAGE)?;
    Ok((0..count).map(|n| Buffer { address: start + n * PAGE / 2, length: PAGE / 2 }).collect())
}

/// Rings that exist when the daemon starts, and their later changes.
fn before(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(4096 * PAGE);
    let (few, many) = (buffers(&mut space, &[1, 2, 3])?, halves(&mut space, 3000)?);
    let mut truth = Truth::new();
    // Buffers in a file, in four tables with the same pages, more than is read at once, a sparse table, and no table.
    let rings: Vec<_> = (0..7).map(|_| Ring::new()).collect::<Result<_, _>>()?;
    for ring in &rings[..4] {
        make(&mut truth, ring, Request::Register(&few))?;
    }
    make(&mut truth, &rings[4], Request::Register2(&many))?;
    let sparse = if context.kernel.version >= ENDS_ARE_SEEN { Request::Sparse(64) } else { Request::Register2(&few) };
    make(&mut truth, &rings[5], sparse)?;
    let (indexed, held) = Indexed::new(few[1..].to_vec())?;
    truth.insert(INDEXED, held);
    // With the service's privileges: the search must not depend on privileges over other users' processes. Debian
    // allows kprobes only with CAP_SYS_ADMIN.
    let by = if context.attach == "kprobe" { Vec::new() } else { as_user(SERVICE)? };
    let daemon = Daemon::start_as(context, &["--rings"], &by)?;
    if context.kernel.version < ENDS_ARE_SEEN {
        ensure!(figures(&daemon.scrape()?).is_none(), "there are gauges of what is registered");
        daemon.end()?;
        return Ok(Verdict::Passed);
    }
    check(&daemon, &truth, "rings that were there before")?;
    make(&mut truth, &rings[5], Request::Update(7, &few))?;
    make(&mut truth, &rings[0], Request::Update(0, &many[5..6]))?;
    check(&daemon, &truth, "updates of them")?;
    make(&mut truth, &rings[1], Request::Unregister)?;
    check(&daemon, &truth, "an unregister of one")?;
    for ring in rings {
        truth.remove(&ring.fd());
        drop(ring);
    }
    check_soon(&daemon, &truth, "the end of those that have an fd")?;
    drop(indexed);
    truth.remove(&INDEXED);
    check_soon(&daemon, &truth, "the end of all")?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// In a PID namespace, the kernel lists only the namespace's processes: our ring is not found, and this is reported.
fn namespace(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("a function that releases tables", ENDS_ARE_SEEN) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(16 * PAGE);
    let table = buffers(&mut space, &[1, 2])?;
    let ring = Ring::new()?;
    ensure!(ring.call(Request::Register(&table)).ret == 0, "the register");
    let unshare = ["unshare", "-p", "-f", "--mount-proc"].map(OsString::from);
    let daemon = Daemon::start_as(context, &["--rings"], &unshare)?;
    let bound = |scrape: &Scrape| scrape.sum("pinscope_registered_lower_bound", &[]);
    let scrape = daemon.scrape()?;
    ensure!((bound(&scrape) - 1.0).abs() < 0.1, "the figure is not marked as a lower bound");
    let named = [("figure", "what was registered before the start")];
    ensure!(scrape.has("pinscope_degraded_reason", &named), "no reason is given");
    let later = Ring::new()?;
    ensure!(later.call(Request::Register(&table)).ret == 0, "the register");
    let seen = daemon.scrape()?.sum("pinscope_registered_buffers", &[]);
    ensure!((seen - 2.0).abs() < 0.1, "{seen} buffers, expected the 2 since the start");
    // The daemon is the namespace's init, so everything in the namespace ends with it.
    let inner = fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.id())).context("children")?;
    let inner = inner.trim().parse().context("not one child")?;
    // SAFETY: sends a signal to a child of this process.
    ensure!(unsafe { libc::kill(inner, libc::SIGKILL) } == 0, "{}", std::io::Error::last_os_error());
    Ok(Verdict::Passed)
}

/// Represents the fd of [`Indexed`] in the recorded tables.
const INDEXED: i32 = -1;

/// A ring with an index but without an fd, where the kernel supports it (5.18). It lives as long as its thread.
struct Indexed {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Indexed {
    /// Creates the ring with these buffers, and returns them.
    fn new(buffers: Vec<Buffer>) -> anyhow::Result<(Self, Vec<Buffer>)> {
        let ((end, ended), (ready, is_ready)) = (mpsc::channel::<()>(), mpsc::channel());
        let thread = thread::spawn(move || {
            let made = Ring::new().map_err(anyhow::Error::from).and_then(|ring| {
                let answer = ring.call(Request::Register(&buffers));
                ensure!(answer.ret == 0, "the register was answered {}", answer.ret);
                // Without an fd or mappings, where the index keeps the ring alive.
                Ok(ring.index().is_err().then_some(ring))
            });
            let (kept, made) = made.map_or_else(|error| (None, Err(error)), |ring| (ring, Ok(())));
            let _ = ready.send(made.map(|()| buffers));
            // Waits until the sender is dropped.
            let _ = ended.recv();
            drop(kept);
        });
        let buffers = is_ready.recv().context("the thread is gone")??;
        Ok((Self { end: Some(end), thread: Some(thread) }, buffers))
    }
}

impl Drop for Indexed {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Rings that come and go while the daemon searches for older ones.
fn amid(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("a function that releases tables", ENDS_ARE_SEEN) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(16 * PAGE);
    let table = buffers(&mut space, &[1, 2])?;
    let ring = Ring::new()?;
    let mut truth = Truth::new();
    make(&mut truth, &ring, Request::Register(&table))?;
    let done = AtomicBool::new(false);
    let clones = context.kernel.version >= CLONES;
    let (daemon, rings) = thread::scope(|scope| {
        let churn = || {
            while !done.load(Ordering::Relaxed) {
                // The kernel takes some time to end a ring.
                thread::sleep(Duration::from_millis(2));
                let Ok(ring) = Ring::new() else { continue };
                let _ = ring.call(Request::Register(&table));
                let _ = ring.call(Request::Unregister);
                let _ = ring.call(Request::Register(&table[..1]));
            }
        };
        // Some rings stay, created at any moment of the start. Each gets its table in a later round, so that creation
        // and table are separated in time. While rings are created, other tables come and go.
        let stay = || {
            let mut rings = Vec::new();
            let mut last = MANY - 1;
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
                if rings.len() < MANY {
                    rings.push(Ring::new()?);
                }
                let Some(stays) = rings.get(last) else {
                    last = 0;
                    continue;
                };
                last = (last + 1) % MANY;
                if truth.contains_key(&stays.fd()) {
                    make(&mut truth, stays, Request::Unregister)?;
                } else if clones {
                    make(&mut truth, stays, Request::Clone(ring.fd()))?;
                } else {
                    make(&mut truth, stays, Request::Register(&table))?;
                }
            }
            anyhow::Ok(rings)
        };
        let churning = [scope.spawn(churn), scope.spawn(churn)];
        let staying = scope.spawn(stay);
        let daemon = Daemon::start(context, &["--rings"]);
        done.store(true, Ordering::Relaxed);
        drop(churning);
        let rings = staying.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        anyhow::Ok((daemon?, rings))
    })?;
    ensure!(rings.len() > 2, "the daemon was ready after {} rounds", rings.len());
    check_soon(&daemon, &truth, "after rings that came and went at the start")?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

fn holds(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("a function that releases tables", ENDS_ARE_SEEN) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(128 * PAGE);
    let (few, more) = (buffers(&mut space, &[1, 2, 3])?, buffers(&mut space, &[5, 8, 1, 1])?);
    let sparse = [few[0], EMPTY, few[2]];
    let mut truth = Truth::new();
    let daemon = Daemon::start(context, &["--rings"])?;
    let (a, b, c) = (Ring::new()?, Ring::new()?, Ring::new()?);
    make(&mut truth, &a, Request::Register(&few))?;
    let cgroup = Cgroup::new(cgroup::ROOT, WORKLOAD)?;
    cgroup.enter()?;
    make(&mut truth, &b, Request::Register2(&sparse))?;
    cgroup::leave(cgroup::ROOT)?;
    check(&daemon, &truth, "two registers")?;
    let workload = [("workload", WORKLOAD)];
    let share = |name: &str| daemon.scrape().map(|scrape| scrape.sum(name, &workload));
    let shares = [share("pinscope_workload_registered_bytes")?, share("pinscope_workload_pinned_bytes")?];
    let own = (few[0].length + few[2].length) as f64;
    ensure!(
        shares.iter().all(|share| (share - own).abs() < 0.5),
        "shares of a workload are {shares:?}, expected {own}"
    );
    let hole = [few[0], Buffer { address: 1 << 40, length: PAGE }];
    ensure!(c.call(Request::Register(&hole)).ret < 0 && a.call(Request::Register(&more)).ret < 0, "both are refused");
    check(&daemon, &truth, "a register that failed, and one on a ring that has a table")?;
    make(&mut truth, &b, Request::Unregister)?;
    check(&daemon, &truth, "an unregister")?;
    make(&mut truth, &b, Request::Register(&more))?;
    check(&daemon, &truth, "a register after it")?;
    make(&mut truth, &a, Request::Update(1, &more[..1]))?;
    check(&daemon, &truth, "an update that replaces")?;
    make(&mut truth, &a, Request::Update(0, &[EMPTY, EMPTY]))?;
    check(&daemon, &truth, "an update that empties")?;
    let half = a.call(Request::Update(0, &[few[0], hole[1]]));
    ensure!(half.ret == 1, "an update with a valid and an invalid buffer was answered {}", half.ret);
    truth.get_mut(&a.fd()).context("no table")?[0] = few[0];
    check(&daemon, &truth, "an update that was refused half-way")?;
    make(&mut truth, &a, Request::Unregister)?;
    make(&mut truth, &a, Request::Register(&few))?;
    check(&daemon, &truth, "a table that is known again")?;
    // It pins its ring of descriptors, which is not a registered buffer.
    let descriptors = buffers(&mut space, &[1])?[0];
    let answer = a.call(Request::BufferRing(descriptors.address, 64));
    ensure!(answer.ret == 0, "a ring of buffers was answered {}", answer.ret);
    check(&daemon, &truth, "a ring of buffers")?;
    let mut rings = vec![a, b];
    if context.kernel.version >= CLONES {
        make(&mut truth, &c, Request::Clone(rings[1].fd()))?;
        check(&daemon, &truth, "a clone")?;
        let source = rings.remove(1);
        truth.remove(&source.fd());
        drop(source);
        check_soon(&daemon, &truth, "a clone whose source is gone")?;
    }
    rings.push(c);
    many(&daemon, &mut truth, &few)?;
    for ring in rings {
        truth.remove(&ring.fd());
        drop(ring);
        check_soon(&daemon, &truth, "a ring that is closed")?;
    }
    ensure!(truth.is_empty(), "{truth:?}");
    let_go_by_others(&daemon, &few, &hole)?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// Tables that the kernel released without an unregister: of registers that failed after their first buffer, and of
/// rings that ended with a table. Rings that never had a table do not count.
fn let_go_by_others(daemon: &Daemon, good: &[Buffer], bad: &[Buffer]) -> anyhow::Result<()> {
    const OTHERS: &str = "pinscope_other_unregisters_total";
    let of = |scrape: &Scrape| ["cleanup", "ring_exit"].map(|by| scrape.sum(OTHERS, &[("by", by)]));
    let before = of(&daemon.scrape()?);
    for _ in 0..10 {
        ensure!(Ring::new()?.call(Request::Register(bad)).ret < 0, "it is refused");
    }
    (0..20).try_for_each(|_| Ring::new().map(drop))?;
    for _ in 0..7 {
        ensure!(Ring::new()?.call(Request::Register(good)).ret == 0, "it is accepted");
    }
    let since = || -> anyhow::Result<_> {
        let now = of(&daemon.scrape()?);
        Ok([now[0] - before[0], now[1] - before[1]])
    };
    let deadline = Instant::now() + PATIENCE;
    while since()?[1] < 6.5 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    // By then, rings without tables have ended as well.
    thread::sleep(Duration::from_millis(500));
    let seen = since()?;
    let differs = seen.iter().zip([10.0, 7.0]).any(|(seen, wanted): (&f64, f64)| (seen - wanted).abs() > 0.5);
    ensure!(!differs, "{seen:?} counted, expected 10 cleanups and 7 ends of rings with a table");
    Ok(())
}

/// Rings that come and go without an unregister: a kernel thread releases their tables.
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

/// More slots than one reading looks at, by clones that cost their maker nothing: the reading ends, says what it lacks, and later
/// ones make up for it. Another workload's ring, made last, waits for none of it.
fn in_turns(context: &Context) -> TestResult {
    const TABLES: usize = 20;
    const SLOTS: u64 = 16_384;
    const AT_ONCE: u64 = 131_072;
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("clones of buffers", CLONES) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(SLOTS * PAGE);
    let (few, most) = (buffers(&mut space, &[1, 2, 3])?, halves(&mut space, SLOTS)?);
    let daemon = Daemon::start(context, &["--rings"])?;
    let mut truth = Truth::new();
    let rings: Vec<_> = (0..=TABLES).map(|_| Ring::new()).collect::<Result<_, _>>()?;
    make(&mut truth, &rings[0], Request::Register(&most))?;
    for ring in &rings[1..TABLES] {
        make(&mut truth, ring, Request::Clone(rings[0].fd()))?;
    }
    let cgroup = Cgroup::new(cgroup::ROOT, WORKLOAD)?;
    cgroup.enter()?;
    make(&mut truth, &rings[TABLES], Request::Register(&few))?;
    cgroup::leave(cgroup::ROOT)?;
    let scrape = daemon.scrape()?;
    let value = |name: &str| scrape.sum(name, &[]);
    let seen = value("pinscope_registered_buffers") as u64;
    ensure!(seen > 0 && seen < AT_ONCE + 2 * SLOTS, "the first reading listed {seen} buffers");
    let unknown = value("pinscope_registered_unknown_rings") as usize;
    ensure!((1..TABLES).contains(&unknown), "{unknown} rings are unknown");
    ensure!(value("pinscope_registered_lower_bound") > 0.5, "it is no lower bound");
    ensure!(scrape.sum("pinscope_registered_lower_bound_cause", &[("cause", "not_read_yet")]) > 0.5, "no cause");
    ensure!(scrape.sum("pinscope_registrations_total", &[]) > 20.5, "the other figures are not there");
    let own = scrape.sum("pinscope_workload_registered_bytes", &[("workload", WORKLOAD)]) as u64;
    ensure!(own == 6 * PAGE, "of the other workload {own} bytes are seen");
    for _ in 0..=TABLES as u64 * SLOTS / AT_ONCE {
        daemon.scrape()?;
    }
    check(&daemon, &truth, "after as many readings as it takes")?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// What the kernel says that it pinned for rings of ours.
fn pinned_by_us() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).context("no VmPin")?;
    Ok(line.trim().trim_end_matches("kB").trim_end().parse::<u64>()? * 1024)
}

/// Other processes' memory, at an address where we have some too: in a table of ours, and in tables that they made on rings of
/// ours and left behind. Against what the kernel charged us for.
fn of_several(context: &Context) -> TestResult {
    const OTHERS: usize = 3;
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("end of a table that is seen", ENDS_ARE_SEEN) {
        return Ok(Verdict::Ignored(why));
    }
    let mut space = Space::new(16 * PAGE);
    let buffer = buffers(&mut space, &[8])?;
    let daemon = Daemon::start(context, &["--rings"])?;
    // 7.3 charges nobody for a ring that was made with CAP_IPC_LOCK.
    caps::drop(None, CapSet::Effective, Capability::CAP_IPC_LOCK)?;
    let rings: Result<Vec<_>, _> = (0..=OTHERS).map(|_| Ring::new()).collect();
    caps::raise(None, CapSet::Effective, Capability::CAP_IPC_LOCK)?;
    let rings = rings?;
    let before = pinned_by_us()?;
    let of_another = |ring: &Ring, request: Request<'_>| {
        // SAFETY: the child writes its memory and makes system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // Memory that is its own.
            touch(buffer[0].address, buffer[0].length);
            let done = ring.call(request).ret >= 0;
            // SAFETY: takes a number.
            unsafe { libc::_exit(i32::from(!done)) };
        }
        let mut status = 0;
        // SAFETY: a child of ours, and an integer of ours.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        ensure!(ended == child && status == 0, "the child ended with {status:#x}");
        Ok(())
    };
    touch(buffer[0].address, buffer[0].length);
    ensure!(rings[0].call(Request::Sparse(4)).ret == 0, "the register");
    ensure!(rings[0].call(Request::Update(0, &buffer)).ret == 1, "the update");
    of_another(&rings[0], Request::Update(1, &buffer))?;
    for ring in &rings[1..] {
        of_another(ring, Request::Register(&buffer))?;
    }
    let pinned = pinned_by_us()? - before;
    ensure!(pinned == (OTHERS as u64 + 2) * 8 * PAGE, "the kernel pinned {pinned} bytes");
    let is_seen = |daemon: &Daemon, when: &str| {
        let scrape = daemon.scrape()?;
        let [seen, bound] =
            ["pinscope_pinned_bytes", "pinscope_registered_lower_bound"].map(|name| scrape.sum(name, &[]) as u64);
        ensure!((seen, bound) == (pinned, 0), "{when}: {seen} bytes are pinned (bound: {bound}), in truth {pinned}");
        Ok(())
    };
    is_seen(&daemon, "as it saw them")?;
    daemon.end()?;
    let daemon = Daemon::start(context, &["--rings"])?;
    is_seen(&daemon, "as it found them")?;
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// Threads that concurrently register, update, clone and release leave nothing behind.
fn storm(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    if let Some(why) = context.kernel.lacks("a function that releases tables", ENDS_ARE_SEEN) {
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
    check_soon(&daemon, &truth, "after the storm")?;
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

/// Off: no figures. Enabled by the system's setting, and disabled again. Enabled by the daemon itself.
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
    ensure!(counts(&daemon.scrape()?).is_none(), "run statistics although the kernel's are off");
    fs::write(STATISTICS, "1").context(STATISTICS)?;
    for _ in 0..5 {
        register()?;
    }
    let scrape = daemon.scrape()?;
    fs::write(STATISTICS, "0").context(STATISTICS)?;
    let seen = counts(&scrape).context("no run statistics although the kernel's are on")?;
    ensure!((seen - 5.0).abs() < 0.1, "{seen} runs of the ledger's program, expected 5");
    let time = ledger(&scrape, "pinscope_program_run_seconds_total").context("no time")?;
    ensure!(time > 0.0 && time < 1.0, "5 runs took {time} s");
    // The asynchronous end of a ring may have been counted after the last scrape.
    daemon.scrape()?;
    register()?;
    ensure!(counts(&daemon.scrape()?).is_none(), "run statistics after they were switched off");
    daemon.end()?;
    let daemon = Daemon::start(context, &["--stats"])?;
    let before = counts(&daemon.scrape()?).context("no run statistics with --stats")?;
    for _ in 0..7 {
        register()?;
    }
    let after = counts(&daemon.scrape()?).context("no run statistics with --stats")?;
    ensure!((after - before - 7.0).abs() < 0.1, "{before} runs, then {after}, expected 7 more");
    daemon.end()?;
    Ok(Verdict::Passed)
}

/// The daemon's process metrics, compared with /proc.
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
        ensure!((seen - truth).abs() <= off, "{name} is {seen}, expected {truth}");
        Ok(())
    };
    let resident = value("process_resident_memory_bytes")?;
    near("resident memory", resident, kib("VmRSS")? * 1024.0, 2_097_152.0)?;
    near("address space", value("process_virtual_memory_bytes")?, kib("VmSize")? * 1024.0, 4_194_304.0)?;
    near("threads", value("process_threads")?, kib("Threads")?, 1.0)?;
    let open = fs::read_dir(format!("{proc}/fd"))?.count() as f64;
    // During a scrape, the connection is open, and so are the files that the daemon reads.
    near("open descriptors", value("process_open_fds")?, open, 6.0)?;
    ensure!(value("process_max_fds")? >= 64.0, "limit of descriptors");
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
