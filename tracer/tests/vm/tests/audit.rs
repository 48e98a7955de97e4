//! Tests of `pinscope audit`: callers of every kind that the guest has, compared with what they requested.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::without_tracer;
use crate::{
    clock,
    context::Context,
    contract,
    kernel::Version,
    pinscope::{self, Running},
    protocol::{Test, TestResult, Verdict},
    ring::{Buffer, Request, Ring},
    space::{Kind, Space},
    sys::{self, PAGE},
};

const TIME: Duration = Duration::from_mins(2);
/// Pages per buffer.
const PAGES: u64 = 8;
/// Number of times that each call is made.
const CALLS: u64 = 3;

type Case = fn(&Context) -> TestResult;

pub fn tests() -> Vec<Test> {
    let cases: [(&str, Case); 14] = [
        ("direct_read", |context| direct_read(context, Kind::Anon)),
        ("direct_read_into_shared_file", |context| direct_read(context, Kind::Ext4)),
        ("direct_read_into_private_file", |context| direct_read(context, Kind::Ext4Private)),
        ("direct_read_over_two_mappings", direct_read_over_two),
        ("direct_read_into_a_hole", direct_read_into_hole),
        ("direct_write", direct_write),
        ("process_vm", process_vm),
        ("vmsplice_is_counted_and_not_listed", vmsplice),
        ("io_uring", io_uring),
        ("proc_mem", proc_mem),
        ("xdp_umem", |context| xdp_umem(context, Kind::Memfd)),
        ("xdp_umem_in_shared_file", |context| xdp_umem(context, Kind::Ext4)),
        ("futex", futex),
        ("scope_and_end", scope_and_end),
    ];
    let test = |(name, run): (&str, Case)| {
        let run = move |context: &Context| match without_tracer(context) {
            Some(verdict) => Ok(verdict),
            None => run(context),
        };
        Test::new(format!("audit_{name}"), run).within(Duration::from_mins(5))
    };
    cases.into_iter().map(test).collect()
}

/// Result of an audit of our own calls.
struct Audited {
    json: Value,
    /// Nanoseconds by our own clock for all of the work.
    took: u64,
}

/// Audits `work` in the process `pid`.
fn audit(context: &Context, pid: u32, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Audited> {
    let pid = pid.to_string();
    let arguments = ["audit", "--json", "--attach", &context.attach, "--pid", &pid];
    let running = Running::start(&mut pinscope::command(&arguments))?;
    let deadline = Instant::now() + TIME;
    while !running.stderr().contains("attached; ") {
        ensure!(Instant::now() < deadline, "it does not attach: {}", running.stderr());
        thread::sleep(Duration::from_millis(10));
    }
    let before = clock::monotonic();
    work()?;
    let took = clock::monotonic() - before;
    running.signal(libc::SIGINT);
    let finished = running.finish(TIME)?.expect_code(0)?;
    let json: Value = serde_json::from_str(finished.stdout.trim()).with_context(|| finished.words())?;
    ensure!(json["type"] == "audit" && json["schema"] == 1, "no audit of schema 1: {json}");
    contract::kept("audit", &json)?;
    Ok(Audited { json, took })
}

/// An expected row.
struct Row {
    /// Acceptable callers; the compiler may inline some.
    callers: &'static [&'static str],
    function: &'static str,
    flags: &'static [&'static str],
    calls: u64,
    failed: u64,
    pages: u64,
    /// Total over all calls.
    vmas: u64,
    backing: Value,
    as_proposed: Value,
    since_6_5: Value,
    /// Whether the proposal exempted the caller.
    exempt: bool,
}

/// A backing that was determined completely.
fn whole(class: &str, filesystem: Option<&str>, shared: bool) -> Value {
    json!({"seen": "whole", "class": class, "filesystem": filesystem, "shared": shared, "writable": true, "mixed": false})
}

/// An unknown backing.
fn unknown(seen: &str) -> Value {
    json!({"seen": seen, "class": null, "filesystem": null, "shared": null, "writable": null, "mixed": false})
}

impl Row {
    fn problems(&self, context: &Context, row: &Value) -> Vec<String> {
        let walked = context.kernel.can_be_walked();
        let writes = self.flags.contains(&"FOLL_WRITE");
        let remote = self.backing["seen"] == "remote";
        // Without a walk, only calls to which a rule does not apply can be judged.
        let judged = |refused: &Value, falls_under: bool| {
            if walked || !falls_under || self.calls == self.failed { refused.clone() } else { Value::Null }
        };
        let for_long = self.flags.contains(&"FOLL_LONGTERM");
        let errors = if self.failed > 0 { json!({"EFAULT": self.failed}) } else { json!({}) };
        let wanted = [
            ("function", json!(self.function)),
            ("flags", json!(self.flags)),
            ("calls", json!(self.calls)),
            ("failed", json!(self.failed)),
            ("errors", errors),
            ("pages", json!(self.pages)),
            ("bytes", json!(self.pages * PAGE)),
            ("vmas", if walked && !remote { json!(self.vmas) } else { Value::Null }),
            ("backing", if walked || remote { self.backing.clone() } else { unknown("unknown") }),
            ("exempt", json!(if self.exempt { self.calls } else { 0 })),
            (
                "refused",
                json!({
                    "as_proposed": if self.exempt { json!(0) } else { judged(&self.as_proposed, writes) },
                    "since_6_5": judged(&self.since_6_5, for_long),
                }),
            ),
        ];
        let mut problems: Vec<String> = wanted
            .into_iter()
            .filter(|(key, wanted)| row[*key] != *wanted)
            .map(|(key, wanted)| format!("{key} is {}, expected {wanted}", row[key]))
            .collect();
        let caller = row["caller"].as_str().unwrap_or_default();
        // The name of a copy of a function made by the compiler has a suffix.
        if !self.callers.contains(&caller.split('.').next().unwrap_or_default()) {
            problems.push(format!("the caller is {caller:?}, expected one of {:?}", self.callers));
        }
        let chain = row["chains"][0]["steps"].as_array().cloned().unwrap_or_default();
        let ends_in_a_call = chain.iter().any(|step| step["function"].as_str() == Some("do_syscall_64"));
        // Before 5.16, the kernel cannot unwind a stack through a kretprobe.
        let whole = context.attach != "kprobe" || context.kernel.version >= Version(5, 16);
        if (whole && !ends_in_a_call) || chain.first().is_none_or(|step| step["function"] != caller) {
            problems.push(format!("a chain that does not lead from the caller to the system call: {chain:?}"));
        }
        problems
    }
}

/// Compares all rows with the expected ones, in any order, and checks the figures of the whole audit.
fn check_rows(context: &Context, said: &Audited, wanted: &[Row], read_only: u64) -> TestResult {
    let json = &said.json;
    let rows = json["rows"].as_array().context("no rows")?;
    let mut problems = Vec::new();
    for row in wanted {
        // Reports the differences from the most similar row.
        match rows.iter().map(|found| row.problems(context, found)).min_by_key(Vec::len) {
            Some(nearest) => problems.extend(nearest),
            None => problems.push(format!("no row of {}", row.function)),
        }
    }
    if rows.len() != wanted.len() {
        problems.push(format!("{} rows instead of {}", rows.len(), wanted.len()));
    }
    if json["read_only"] != read_only {
        problems.push(format!("{} calls not listed instead of {read_only}", json["read_only"]));
    }
    let calls: u64 = wanted.iter().map(|row| row.calls).sum();
    let books = json!({"entries": calls, "returns": calls, "missed_returns": 0, "missed_entries": 0, "in_flight": 0});
    if json["books"] != books {
        problems.push(format!("the books are {}, expected {books}", json["books"]));
    }
    let time: u64 = rows.iter().filter_map(|row| row["time_ns"].as_u64()).sum();
    if time > said.took || (calls > 0 && time == 0) {
        problems.push(format!("{time} ns in GUP, of {} ns by our own clock", said.took));
    }
    let (runs, run_ns) = (json["cost"]["runs"].as_u64(), json["cost"]["run_ns"].as_u64());
    if runs.is_none_or(|runs| runs < 2 * calls) || run_ns.is_none_or(|ns| calls > 0 && ns == 0) {
        problems.push(format!("the cost of {calls} calls: {}", json["cost"]));
    }
    let answer = if context.kernel.can_be_walked() { "answered" } else { "degraded" };
    if json["answer"] != answer {
        problems.push(format!("the question is {}, expected {answer}: {}", json["answer"], json["degraded"]));
    }
    if problems.is_empty() {
        return Ok(Verdict::Passed);
    }
    bail!("{}\nrows: {rows:#?}", problems.join("\n"))
}

fn us(context: &Context, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Audited> {
    audit(context, std::process::id(), work)
}

/// A file on ext4 with this number of written pages, opened with `O_DIRECT`.
fn direct_file() -> anyhow::Result<File> {
    let path = format!("/mnt/ext4/audit-{}", std::process::id());
    std::fs::write(&path, vec![7; (PAGES * PAGE) as usize])?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path)?;
    std::fs::remove_file(&path)?;
    file.sync_all()?;
    Ok(file)
}

/// Memory mapped by a test, as bytes.
fn memory(address: u64, length: u64) -> &'static mut [u8] {
    // SAFETY: callers mapped it writable, use it once at a time, and do not keep the reference longer than the mapping.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u8, length as usize) }
}

/// Whether O_DIRECT pins: since 6.5 it uses `iov_iter_extract_pages`, which pins; before, it takes references.
fn direct_pins(context: &Context) -> bool {
    context.kernel.version >= Version(6, 5)
}

const DIRECT: &[&str] =
    &["iov_iter_extract_pages", "__iov_iter_get_pages_alloc", "iov_iter_get_pages", "iov_iter_get_pages2"];

/// Row for [`CALLS`] direct reads into a buffer of [`PAGES`] pages.
fn direct_row(context: &Context, backing: Value, refused: bool) -> Row {
    let pins = direct_pins(context);
    Row {
        callers: DIRECT,
        function: if pins { "pin_user_pages_fast" } else { "get_user_pages_fast" },
        flags: if pins { &["FOLL_PIN", "FOLL_WRITE"] } else { &["FOLL_WRITE"] },
        calls: CALLS,
        failed: 0,
        pages: CALLS * PAGES,
        vmas: CALLS,
        backing,
        as_proposed: json!(if refused { CALLS } else { 0 }),
        since_6_5: json!(0),
        exempt: false,
    }
}

fn direct_read(context: &Context, kind: Kind) -> TestResult {
    let (file, mut space) = (direct_file()?, Space::new(PAGES * PAGE));
    let address = space.map(kind, PAGES * PAGE)?;
    sys::touch(address, PAGES * PAGE);
    let said = us(context, || {
        for _ in 0..CALLS {
            file.read_exact_at(memory(address, PAGES * PAGE), 0)?;
        }
        Ok(())
    })?;
    let (backing, refused) = match kind {
        Kind::Ext4 => (whole("file", Some("ext4"), true), true),
        Kind::Ext4Private => (whole("file", Some("ext4"), false), true),
        _ => (whole("anon", None, false), false),
    };
    check_rows(context, &said, &[direct_row(context, backing, refused)], 0)
}

fn direct_read_over_two(context: &Context) -> TestResult {
    let (file, mut space) = (direct_file()?, Space::new(PAGES * PAGE));
    let address = space.map(Kind::Memfd, PAGES / 2 * PAGE)?;
    space.map(Kind::Ext4Private, PAGES / 2 * PAGE)?;
    sys::touch(address, PAGES * PAGE);
    let said = us(context, || {
        for _ in 0..CALLS {
            file.read_exact_at(memory(address, PAGES * PAGE), 0)?;
        }
        Ok(())
    })?;
    let mut backing = whole("shmem", None, true);
    backing["mixed"] = json!(true);
    // A rule refuses the second mapping.
    let row = Row { vmas: 2 * CALLS, ..direct_row(context, backing, true) };
    check_rows(context, &said, &[row], 0)
}

fn direct_read_into_hole(context: &Context) -> TestResult {
    let (file, mut space) = (direct_file()?, Space::new(PAGES * PAGE));
    let address = space.hole(PAGES * PAGE)?;
    let said = us(context, || {
        // SAFETY: nothing is mapped there; the kernel returns EFAULT.
        let ret = unsafe { libc::pread(file.as_raw_fd(), address as *mut _, (PAGES * PAGE) as usize, 0) };
        let error = io::Error::last_os_error();
        ensure!(ret == -1 && error.raw_os_error() == Some(libc::EFAULT), "answered {ret}, {error}");
        Ok(())
    })?;
    let row = Row { calls: 1, failed: 1, pages: 0, vmas: 0, ..direct_row(context, unknown("unmapped"), false) };
    check_rows(context, &said, &[row], 0)
}

/// The kernel only reads from the buffer. Since 6.5, this is a pin without `FOLL_WRITE`; before, it is not listed.
fn direct_write(context: &Context) -> TestResult {
    let (file, mut space) = (direct_file()?, Space::new(PAGES * PAGE));
    let address = space.map(Kind::Ext4, PAGES * PAGE)?;
    sys::touch(address, PAGES * PAGE);
    let said = us(context, || {
        for _ in 0..CALLS {
            file.write_all_at(memory(address, PAGES * PAGE), 0)?;
        }
        Ok(())
    })?;
    if !direct_pins(context) {
        return check_rows(context, &said, &[], CALLS);
    }
    let row = direct_row(context, whole("file", Some("ext4"), true), false);
    check_rows(context, &said, &[Row { flags: &["FOLL_PIN"], ..row }], 0)
}

/// Another process's memory, whose backing cannot be known, and our own memory through the same call, whose backing is
/// known.
fn process_vm(context: &Context) -> TestResult {
    let mut space = Space::new(4 * PAGES * PAGE);
    let there = space.map(Kind::Anon, PAGES * PAGE)?;
    let here = space.map(Kind::Anon, PAGES * PAGE)?;
    sys::touch(there, 2 * PAGES * PAGE);
    // SAFETY: the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: takes no arguments.
            unsafe { libc::pause() };
        }
    }
    let said = us(context, || {
        let local = libc::iovec { iov_base: here as *mut _, iov_len: (PAGES * PAGE) as usize };
        let remote = libc::iovec { iov_base: there as *mut _, iov_len: (PAGES * PAGE) as usize };
        for (pid, writes) in [(child, false), (child, true), (std::process::id() as i32, true)] {
            for _ in 0..CALLS {
                // SAFETY: both ranges are mapped and contain no Rust object.
                let done = unsafe {
                    if writes {
                        libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0)
                    } else {
                        libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0)
                    }
                };
                ensure!(done as u64 == PAGES * PAGE, "moved {done}: {}", io::Error::last_os_error());
            }
        }
        Ok(())
    });
    // SAFETY: our own child, which has not been waited for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    let row = |writes: bool, backing, as_proposed| Row {
        callers: &["process_vm_rw_single_vec", "process_vm_rw_core", "process_vm_rw"],
        function: "pin_user_pages_remote",
        flags: if writes { &["FOLL_PIN", "FOLL_WRITE"] } else { &["FOLL_PIN"] },
        calls: CALLS,
        failed: 0,
        pages: CALLS * PAGES,
        vmas: CALLS,
        backing,
        as_proposed,
        since_6_5: json!(0),
        exempt: true,
    };
    let rows = [
        row(false, unknown("remote"), json!(0)),
        row(true, unknown("remote"), json!(0)),
        row(true, whole("anon", None, false), json!(0)),
    ];
    check_rows(context, &said?, &rows, 0)
}

/// Pages given to a pipe: the kernel takes references for reading.
fn vmsplice(context: &Context) -> TestResult {
    let mut space = Space::new(PAGES * PAGE);
    let address = space.map(Kind::Anon, PAGES * PAGE)?;
    sys::touch(address, PAGES * PAGE);
    let (reader, writer) = io::pipe()?;
    let said = us(context, || {
        let gift = libc::iovec { iov_base: address as *mut _, iov_len: (PAGES * PAGE) as usize };
        // SAFETY: the range is mapped, and nobody writes to it while the pipe refers to it.
        let done = unsafe { libc::vmsplice(writer.as_raw_fd(), &raw const gift, 1, libc::SPLICE_F_GIFT) };
        ensure!(done as u64 == PAGES * PAGE, "returned {done}: {}", io::Error::last_os_error());
        Ok(())
    })?;
    drop(reader);
    check_rows(context, &said, &[], 1)
}

fn io_uring(context: &Context) -> TestResult {
    let mut space = Space::new(8 * PAGES * PAGE);
    let mut kinds = vec![(Kind::Anon, whole("anon", None, false), false, false)];
    if context.kernel.version >= Version(6, 5) {
        kinds.push((Kind::Ext4Private, whole("file", Some("ext4"), false), false, true));
        kinds.push((Kind::Ext4, whole("file", Some("ext4"), true), true, true));
    }
    let ring = Ring::new()?;
    let mut rows = Vec::new();
    let mut buffers = Vec::new();
    for (kind, backing, refused, file) in kinds {
        let address = space.map(kind, PAGES * PAGE)?;
        sys::touch(address, PAGES * PAGE);
        buffers.push(([Buffer { address, length: PAGES * PAGE }], refused));
        rows.push(Row {
            callers: &["io_pin_pages", "io_sqe_buffer_register"],
            function: if context.kernel.version >= Version(6, 10) { "pin_user_pages_fast" } else { "pin_user_pages" },
            flags: &["FOLL_PIN", "FOLL_LONGTERM", "FOLL_WRITE"],
            calls: 1,
            failed: u64::from(refused),
            pages: if refused { 0 } else { PAGES },
            vmas: 1,
            backing,
            as_proposed: json!(u64::from(file && !refused)),
            since_6_5: json!(0),
            exempt: false,
        });
    }
    let said = us(context, || {
        for (buffer, refused) in &buffers {
            let ret = ring.call(Request::Register(buffer)).ret;
            ensure!((ret < 0) == *refused, "answered {ret}");
            if !refused {
                ring.call(Request::Unregister);
            }
        }
        Ok(())
    })?;
    check_rows(context, &said, &rows, 0)
}

/// Our own memory through /proc/self/mem, one page at a time.
fn proc_mem(context: &Context) -> TestResult {
    let mut space = Space::new(PAGES * PAGE);
    let address = space.map(Kind::Ext4, PAGES * PAGE)?;
    sys::touch(address, PAGES * PAGE);
    let file = OpenOptions::new().write(true).open("/proc/self/mem")?;
    let page = vec![9; PAGE as usize];
    // Since 6.12, the kernel's configuration decides whether the file uses FOLL_FORCE, with which writes to read-only
    // memory succeed as well.
    let mut sealed = Space::new(PAGE);
    let forces = file.write_all_at(&page, sealed.map(Kind::ReadOnly, PAGE)?).is_ok();
    let said = us(context, || {
        for place in 0..PAGES {
            file.write_all_at(&page, address + place * PAGE)?;
        }
        Ok(())
    })?;
    let row = Row {
        callers: &["__access_remote_vm"],
        function: "get_user_pages_remote",
        flags: if forces { &["FOLL_WRITE", "FOLL_FORCE"] } else { &["FOLL_WRITE"] },
        calls: PAGES,
        failed: 0,
        pages: PAGES,
        vmas: PAGES,
        backing: whole("file", Some("ext4"), true),
        as_proposed: json!(0),
        since_6_5: json!(0),
        exempt: true,
    };
    check_rows(context, &said, &[row], 0)
}

/// `struct xdp_umem_reg` of linux/if_xdp.h, in the version of 5.10.
#[repr(C)]
struct UmemReg {
    address: u64,
    length: u64,
    chunk_size: u32,
    headroom: u32,
    flags: u32,
    padding: u32,
}

/// Memory of an AF_XDP socket, pinned for the socket's lifetime. The rule since 6.5 refuses a shared file.
fn xdp_umem(context: &Context, kind: Kind) -> TestResult {
    // SAFETY: takes only integers.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Ok(Verdict::Ignored(format!("no AF_XDP sockets: {}", io::Error::last_os_error())));
    }
    // SAFETY: a new descriptor without another owner.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut space = Space::new(PAGES * PAGE);
    let address = space.map(kind, PAGES * PAGE)?;
    sys::touch(address, PAGES * PAGE);
    let umem = UmemReg { address, length: PAGES * PAGE, chunk_size: 4096, headroom: 0, flags: 0, padding: 0 };
    let file = kind == Kind::Ext4;
    let refused = file && !context.kernel.refuses_files();
    let said = us(context, || {
        // SAFETY: `umem` is valid for the given size.
        let ret = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_UMEM_REG,
                (&raw const umem).cast(),
                size_of::<UmemReg>() as u32,
            )
        };
        let error = io::Error::last_os_error();
        let answered = ret == 0 || (refused && error.raw_os_error() == Some(libc::EFAULT));
        ensure!(answered && (ret < 0) == refused, "XDP_UMEM_REG: {error}");
        Ok(())
    })?;
    let row = Row {
        callers: &["xdp_umem_create", "xdp_umem_pin_pages", "xdp_umem_reg"],
        function: "pin_user_pages",
        flags: &["FOLL_PIN", "FOLL_LONGTERM", "FOLL_WRITE"],
        calls: 1,
        failed: u64::from(refused),
        pages: if refused { 0 } else { PAGES },
        vmas: 1,
        backing: if file { whole("file", Some("ext4"), true) } else { whole("shmem", None, true) },
        as_proposed: json!(0),
        since_6_5: json!(u64::from(file && !refused)),
        exempt: true,
    };
    check_rows(context, &said, &[row], 0)
}

/// A futex shared between processes is identified by its page.
fn futex(context: &Context) -> TestResult {
    let mut space = Space::new(PAGE);
    let address = space.map(Kind::SharedAnon, PAGE)?;
    sys::touch(address, PAGE);
    let said = us(context, || {
        for _ in 0..CALLS {
            // SAFETY: the word is mapped; nobody waits on it.
            let woken = unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, 1) };
            ensure!(woken == 0, "woke {woken}: {}", io::Error::last_os_error());
        }
        Ok(())
    })?;
    let row = Row {
        callers: &["get_futex_key"],
        function: "get_user_pages_fast",
        flags: &["FOLL_WRITE"],
        calls: CALLS,
        failed: 0,
        pages: CALLS,
        vmas: CALLS,
        backing: whole("shmem", None, true),
        as_proposed: json!(0),
        since_6_5: json!(0),
        exempt: false,
    };
    check_rows(context, &said, &[row], 0)
}

/// An audit of another process contains none of our calls; also checks the time limit, the command's exit status and
/// the text output.
fn scope_and_end(context: &Context) -> TestResult {
    let (file, mut space) = (direct_file()?, Space::new(PAGES * PAGE));
    let address = space.map(Kind::Anon, PAGES * PAGE)?;
    let said = audit(context, 1, || {
        file.read_exact_at(memory(address, PAGES * PAGE), 0)?;
        Ok(())
    })?;
    ensure!(said.json["rows"] == json!([]) && said.json["read_only"] == 0, "of process 1: {}", said.json);
    let attach = context.attach.as_str();
    pinscope::run(&["audit", "--json", "--attach", attach, "-d", "300ms"], TIME)?.expect_code(0)?;
    let text = pinscope::run(&["audit", "--attach", attach, "--", "sh", "-c", "exit 7"], TIME)?.expect_code(7)?.stdout;
    // exec writes its arguments to the new program's stack.
    for words in ["Q6", "get_arg_page", "get_user_pages_remote", "do_syscall_64", "Own cost:", "exit code 7"] {
        ensure!(text.contains(words), "no {words:?} in the page:\n{text}");
    }
    ensure!(text.lines().all(|line| line.chars().count() <= 80), "a line is wider than 80 columns:\n{text}");
    pinscope::run(&["audit", "--avoid", "no_such_function"], TIME)?.expect_error_line(&["no_such_function"])?;
    Ok(Verdict::Passed)
}
