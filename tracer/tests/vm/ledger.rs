//! The kernel's own account of the calls: the tracepoint `io_uring_register`, read through tracefs.

use std::{ffi::CString, fs, io, path::PathBuf};

use anyhow::{Context as _, ensure};

use crate::{errno::result_name, ring::Request, tally::Tally};

/// Calls of all processes from its start on, in a trace buffer of its own.
pub struct Ledger {
    mount: PathBuf,
    instance: PathBuf,
}

impl Ledger {
    /// Mounts tracefs where nobody looks for it, and has the tracepoint write.
    pub fn start() -> anyhow::Result<Self> {
        let mount = PathBuf::from(format!("/tmp/tracefs-{}", std::process::id()));
        fs::create_dir_all(&mount)?;
        let at = CString::new(mount.to_string_lossy().as_bytes())?;
        let kind = c"tracefs".as_ptr();
        // SAFETY: all strings are NUL-terminated and live beyond the call, which takes no data.
        let ret = unsafe { libc::mount(kind, at.as_ptr(), kind, 0, std::ptr::null()) };
        ensure!(ret == 0, "mounting tracefs: {}", io::Error::last_os_error());
        let ledger = Self { instance: mount.join("instances/guest"), mount };
        fs::create_dir(&ledger.instance)?;
        ledger.set("buffer_size_kb", "4096")?;
        ledger.set("events/io_uring/io_uring_register/enable", "1")?;
        Ok(ledger)
    }

    /// Counts what was written, of the operations on buffers.
    pub fn end(self) -> anyhow::Result<Tally> {
        self.set("events/io_uring/io_uring_register/enable", "0")?;
        let text = fs::read_to_string(self.instance.join("trace"))?;
        ensure!(is_whole(&text), "the kernel overwrote some of the trace");
        let mut tally = Tally::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (opcode, ret) = call(line).with_context(|| format!("a line of the trace: {line}"))?;
            let operation = Request::Bare(opcode, 0).operation();
            tally.add(operation, &result_name(ret), u64::from(operation != "none"));
        }
        Ok(tally)
    }

    fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        fs::write(self.instance.join(name), value).with_context(|| format!("writing {value} to tracefs' {name}"))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
        if let Ok(at) = CString::new(self.mount.to_string_lossy().as_bytes()) {
            // SAFETY: the string is NUL-terminated and lives beyond the call.
            unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = fs::remove_dir(&self.mount);
    }
}

/// `# entries-in-buffer/entries-written: 12/12   #P:2`: whether both are the same.
fn is_whole(text: &str) -> bool {
    let numbers = text.lines().find_map(|line| line.strip_prefix("# entries-in-buffer/entries-written: "));
    numbers.and_then(|rest| rest.split_whitespace().next()?.split_once('/')).is_some_and(|(kept, all)| kept == all)
}

/// Opcode and result of `... io_uring_register: ring P, opcode N, nr_user_files N, nr_user_bufs N, ret N`; 5.10 has
/// one more field.
fn call(line: &str) -> Option<(u32, i64)> {
    let fields = line.split_once("io_uring_register: ")?.1;
    let field = |name: &str| fields.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix(' '));
    Some((field("opcode")?.parse().ok()?, field("ret")?.trim().parse().ok()?))
}
