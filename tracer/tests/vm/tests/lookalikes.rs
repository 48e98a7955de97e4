//! Tests of things that are easily confused: processes that reuse a process id, and completion entries that no request
//! of the ring caused.

use std::{
    ffi::CString,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::without_tracer;
use crate::{
    context::Context,
    kernel::Version,
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring, call_on},
    space::{Kind, Space},
    sys::{self, PAGE},
    watch::Watch,
};

/// Number of processes with the same id. Fewer rings would already count as run time.
const PROCESSES: usize = 12;
/// Their process id.
static NUMBER: libc::pid_t = 30_123;
/// Number of slots that are filled and replaced, with tags. Fewer would already count as run time.
const SLOTS: u32 = 12;

/// `IORING_SETUP_NO_SQARRAY` (6.6) and `IORING_SETUP_SQ_REWIND` (7.0).
const REWINDS: u32 = 1 << 16 | 1 << 20;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("evidence_of_lookalikes", lookalikes).within(Duration::from_mins(3)),
        Test::new("evidence_of_one_process", one_process),
    ]
}

/// `--pid` does not follow a process that reuses the watched process's id, even before the session learns of the end of
/// the watched one.
fn one_process(context: &Context) -> TestResult {
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(PAGE);
    let page = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    sys::touch(page[0].address, PAGE);
    let (go, gate) = io::pipe()?;
    // Waits for a byte, registers once and ends.
    let child = with_number(|| {
        let mut byte = 0_u8;
        // SAFETY: reads one byte into `byte`.
        unsafe { libc::read(go.as_raw_fd(), (&raw mut byte).cast(), 1) };
        registers(&page)
    })?;
    let watch = Watch::start(context, &["--pid", &NUMBER.to_string()])?;
    watch.signal(libc::SIGSTOP);
    thread::sleep(Duration::from_millis(100));
    (&gate).write_all(b"x")?;
    ends_well(child)?;
    for _ in 0..3 {
        ends_well(with_number(|| registers(&page))?)?;
    }
    watch.signal(libc::SIGCONT);
    let counted = watch.finish()?.call_counts()?.count("register", "ok");
    ensure!(counted == 1, "the process registered once, and {counted} calls were counted");
    Ok(Verdict::Passed)
}

fn lookalikes(context: &Context) -> TestResult {
    drop(context.take_session());
    if let Some(verdict) = without_tracer(context) {
        return Ok(verdict);
    }
    let mut space = Space::new(PAGE);
    let page = [Buffer { address: space.map(Kind::Anon, PAGE)?, length: PAGE }];
    sys::touch(page[0].address, PAGE);
    let watch = Watch::start(context, &["--explain"])?;
    for turn in 0..PROCESSES {
        one_of_many(turn, &page)?;
    }
    let tagged = tagged(context, page[0])?;
    let told_by_another = message(context, &page)?;
    let rewinding = rewinding(context, &page)?;
    let report = watch.finish()?;
    let verdict = report.answer("Q1")?["verdict"].as_str().context("no verdict")?;
    ensure!(verdict.starts_with("Set-up: ") || rewinding.is_some(), "no ring had a request: {verdict}");
    processes(report.json())?;
    for (ring, requests) in [(tagged, false), (told_by_another, false), (rewinding, true)] {
        let Some(ring) = ring.map(|ring| ring.as_raw_fd()) else { continue };
        let list = report.json()["rings"]["list"].as_array().context("no rings")?;
        let own = |row: &&Value| row["pid"] == std::process::id() && row["fd"] == ring;
        let row = list.iter().find(own).with_context(|| format!("no ring with fd {ring}: {list:?}"))?;
        let after = row["after_requests"].as_u64().context("after_requests")?;
        ensure!((after > 0) == requests, "a ring with requests: {requests}: {row}");
    }
    Ok(Verdict::Passed)
}

/// Each process has a row of its own with its single installation, and replaced nothing.
fn processes(report: &Value) -> anyhow::Result<()> {
    let rows = report["processes"].as_array().context("no processes")?;
    let rows: Vec<_> = rows.iter().filter(|row| row["pid"] == NUMBER).collect();
    let mut names: Vec<_> = rows.iter().filter_map(|row| row["comm"].as_str()).collect();
    names.sort_unstable();
    let mut truth: Vec<_> = (0..PROCESSES).map(|turn| format!("lookalike{turn}")).collect();
    truth.sort_unstable();
    ensure!(names == truth, "processes with the number {NUMBER}: {rows:?}");
    for row in rows {
        let repeated = [&row["habits"]["repeated"], &row["habits"]["elsewhere"]];
        ensure!(row["registrations"] == 1 && repeated == [0, 0], "it registered once: {row}");
    }
    Ok(())
}

/// A process with this id that creates a ring, registers the buffer and ends.
fn one_of_many(turn: usize, page: &[Buffer; 1]) -> anyhow::Result<()> {
    let name = CString::new(format!("lookalike{turn}"))?;
    ends_well(with_number(|| {
        // SAFETY: the name is NUL-terminated.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        registers(page)
    })?)
}

/// Starts a process with the id [`NUMBER`] that runs `work` and ends. `work` may only make system calls.
fn with_number(work: impl FnOnce() -> bool) -> anyhow::Result<libc::pid_t> {
    // SAFETY: a struct of integers; zeros are valid.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    (how.exit_signal, how.set_tid, how.set_tid_size) = (libc::SIGCHLD as u64, &raw const NUMBER as u64, 1);
    // SAFETY: without shared memory this is a fork; the child only makes system calls.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) };
    if child == 0 {
        let done = work();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!done)) };
    }
    ensure!(child == i64::from(NUMBER), "no process with the number {NUMBER}: {}", io::Error::last_os_error());
    Ok(NUMBER)
}

/// Registers the buffer with a new ring. Returns whether this succeeded.
fn registers(page: &[Buffer; 1]) -> bool {
    raw_ring(0).is_ok_and(|ring| call_on(ring.as_raw_fd(), Request::Register(page)).ret == 0)
}

fn ends_well(child: libc::pid_t) -> anyhow::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is a valid int.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    ensure!(ended == child && status == 0, "the child's status is {status:#x}");
    Ok(())
}

/// Creates a ring of 8 entries with the plain system call.
fn raw_ring(flags: u32) -> io::Result<OwnedFd> {
    // `struct io_uring_params`.
    let mut parameters = [0_u32; 30];
    parameters[2] = flags;
    // SAFETY: the kernel reads and writes no more bytes than the array has.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A ring whose slots are filled and replaced with tags. The kernel posts a tag when it releases an old buffer.
fn tagged(context: &Context, page: Buffer) -> anyhow::Result<Option<OwnedFd>> {
    if context.kernel.lacks("empty tables", Version(5, 19)).is_some() {
        return Ok(None);
    }
    let fd = raw_ring(0)?;
    let answer = call_on(fd.as_raw_fd(), Request::Sparse(SLOTS));
    ensure!(answer.ret == 0, "a table of empty slots: {}", answer.ret);
    for _ in 0..2 {
        for slot in 0..SLOTS {
            let answer = call_on(fd.as_raw_fd(), Request::TaggedUpdate(slot, &[page], &[u64::from(slot) + 1]));
            ensure!(answer.ret == 1, "an update of slot {slot}: {}", answer.ret);
        }
    }
    Ok(Some(fd))
}

/// A ring that first received a message from another ring, and then its buffers.
fn message(context: &Context, page: &[Buffer; 1]) -> anyhow::Result<Option<OwnedFd>> {
    if context.kernel.lacks("messages between rings", Version(5, 18)).is_some() {
        return Ok(None);
    }
    let fd = raw_ring(0)?;
    let result = Ring::new()?.message(fd.as_raw_fd())?;
    ensure!(result == 0, "a message: {result}");
    ensure!(call_on(fd.as_raw_fd(), Request::Register(page)).ret == 0, "a register");
    Ok(Some(fd))
}

/// A ring that does not keep the number of requests that it consumed. Its queue is zeroed, and zeros are requests that
/// do nothing.
fn rewinding(context: &Context, page: &[Buffer; 1]) -> anyhow::Result<Option<OwnedFd>> {
    if context.kernel.lacks("rings that rewind", Version(7, 0)).is_some() {
        return Ok(None);
    }
    let fd = raw_ring(REWINDS)?;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: the call reads no memory of this process.
    let taken = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd.as_raw_fd(), 1, 0, 0, nothing, 0) };
    ensure!(taken == 1, "a request: {taken}");
    ensure!(call_on(fd.as_raw_fd(), Request::Register(page)).ret == 0, "a register");
    Ok(Some(fd))
}
