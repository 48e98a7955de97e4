//! The kernel's own account of calls, from its tracepoints through tracefs: calls of io_uring_register(2), and of
//! bpf(2) on maps.

use std::{ffi::CString, fs, io, path::PathBuf};

use anyhow::{Context as _, ensure};

use crate::{call_counts::CallCounts, errno::result_name, ring::Request};

/// A trace instance in a private tracefs mount.
struct Buffer {
    mount: PathBuf,
    instance: PathBuf,
}

impl Buffer {
    fn new() -> anyhow::Result<Self> {
        let mount = PathBuf::from(format!("/tmp/tracefs-{}", std::process::id()));
        fs::create_dir_all(&mount)?;
        let at = CString::new(mount.to_string_lossy().as_bytes())?;
        let kind = c"tracefs".as_ptr();
        // SAFETY: all strings are NUL-terminated and outlive the call, which takes no data.
        let ret = unsafe { libc::mount(kind, at.as_ptr(), kind, 0, std::ptr::null()) };
        ensure!(ret == 0, "mounting tracefs: {}", io::Error::last_os_error());
        let buffer = Self { instance: mount.join("instances/guest"), mount };
        fs::create_dir(&buffer.instance)?;
        buffer.set("buffer_size_kb", "4096")?;
        Ok(buffer)
    }

    fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        fs::write(self.instance.join(name), value).with_context(|| format!("writing {value} to tracefs' {name}"))
    }

    fn has(&self, name: &str) -> bool {
        self.instance.join(name).exists()
    }

    /// Lines of the trace, one per event.
    fn lines(&self) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(self.instance.join("trace"))?;
        ensure!(is_whole(&text), "the kernel overwrote some of the trace");
        Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
        if let Ok(at) = CString::new(self.mount.to_string_lossy().as_bytes()) {
            // SAFETY: the string is NUL-terminated and outlives the call.
            unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = fs::remove_dir(&self.mount);
    }
}

/// Calls of all processes since its start.
pub struct Ledger(Buffer);

impl Ledger {
    const ENABLE: &'static str = "events/io_uring/io_uring_register/enable";

    /// Enables the tracepoint.
    pub fn start() -> anyhow::Result<Self> {
        let buffer = Buffer::new()?;
        buffer.set(Self::ENABLE, "1")?;
        Ok(Self(buffer))
    }

    /// Counts the traced operations on buffers.
    pub fn end(self) -> anyhow::Result<CallCounts> {
        self.0.set(Self::ENABLE, "0")?;
        let mut counts = CallCounts::default();
        for line in self.0.lines()? {
            let (opcode, ret) = call(&line).with_context(|| format!("a line of the trace: {line}"))?;
            let operation = Request::Bare(opcode, 0).operation();
            counts.add(operation, &result_name(ret), u64::from(operation != "none"));
        }
        Ok(counts)
    }
}

/// Calls of bpf(2) on map elements by a process and its threads.
pub struct MapCalls(Buffer);

impl MapCalls {
    const EVENT: &'static str = "events/syscalls/sys_enter_bpf";
    /// Filter on `enum bpf_cmd`: lookup, update, deletion, lookup with deletion, and their batch variants. Stepping to
    /// the next key is not included: the kernel prevents no program from running during it.
    const COMMANDS: &'static str = "cmd == 1 || cmd == 2 || cmd == 3 || cmd == 21 || (cmd >= 24 && cmd <= 27)";

    /// Starts tracing a process; `None` if the kernel has no such tracepoint.
    pub fn of(process: u32) -> anyhow::Result<Option<Self>> {
        let buffer = Buffer::new()?;
        if !buffer.has(Self::EVENT) {
            return Ok(None);
        }
        buffer.set("options/event-fork", "1")?;
        let threads = fs::read_dir(format!("/proc/{process}/task"))?.map(|entry| Ok(entry?.file_name()));
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        let threads = threads.iter().map(|thread| thread.to_string_lossy()).collect::<Vec<_>>().join(" ");
        buffer.set("set_event_pid", &threads)?;
        buffer.set(&format!("{}/filter", Self::EVENT), Self::COMMANDS)?;
        buffer.set(&format!("{}/enable", Self::EVENT), "1")?;
        Ok(Some(Self(buffer)))
    }

    /// Traced calls, as the kernel printed them.
    pub fn end(self) -> anyhow::Result<Vec<String>> {
        self.0.set(&format!("{}/enable", Self::EVENT), "0")?;
        self.0.lines()
    }
}

/// Whether the trace lost no events: in `# entries-in-buffer/entries-written: 12/12   #P:2`, both numbers are equal.
fn is_whole(text: &str) -> bool {
    let numbers = text.lines().find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written: "));
    numbers.and_then(|rest| rest.split_whitespace().next()?.split_once('/')).is_some_and(|(kept, all)| kept == all)
}

/// Opcode and result of `... io_uring_register: ring P, opcode N, nr_user_files N, nr_user_bufs N, ret N`. 5.10 has one
/// more field.
fn call(line: &str) -> Option<(u32, i64)> {
    let fields = line.split_once("io_uring_register: ")?.1;
    let field = |name: &str| fields.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix(' '));
    Some((field("opcode")?.parse().ok()?, field("ret")?.trim().parse().ok()?))
}
