//! What every test is given.

use std::{
    cell::{Cell, OnceCell, Ref, RefCell},
    os::unix::fs::MetadataExt,
};

use anyhow::{Context as _, bail};

use crate::{filesystem::Filesystems, kernel::Kernel, trace::Trace};

/// The run's settings, and what stays the same during it.
pub struct Context {
    /// `kprobe`, `fentry` or `auto`; `none` asks only the kernel.
    pub attach: String,
    /// Seed of all that is random.
    pub seed: u64,
    /// Fewer cases.
    pub quick: bool,
    /// The kernel under test.
    pub kernel: Kernel,
    /// For the truth about backings.
    pub filesystems: Filesystems,
    /// The kernel's number for our cgroup.
    pub cgroup_id: Option<u64>,
    /// Walks that found `mmap_lock` taken, of those that were held against the truth: our own other threads grow their
    /// heaps at times, and may be preempted in it.
    pub busy: Cell<u64>,
    /// One session for all tests that need no session of their own.
    session: RefCell<OnceCell<Result<Trace, String>>>,
}

impl Context {
    /// Asks the kernel for what is needed.
    pub fn new(attach: String, seed: u64, quick: bool) -> anyhow::Result<Self> {
        send_khugepaged_to_sleep();
        Ok(Self {
            attach,
            seed,
            quick,
            kernel: Kernel::read().context("/proc/sys/kernel/osrelease")?,
            filesystems: Filesystems::read().context("/proc/self/mountinfo")?,
            cgroup_id: cgroup_id(),
            busy: Cell::new(0),
            session: RefCell::default(),
        })
    }

    /// Whether pinscope is under test, or the kernel alone.
    pub fn traces(&self) -> bool {
        self.attach != "none"
    }

    /// The common session, started by the first who asks. One that could not start fails all who ask.
    pub fn session(&self) -> anyhow::Result<Ref<'_, Trace>> {
        let pid = std::process::id().to_string();
        let started = Ref::map(self.session.borrow(), |cell| {
            let _ = cell.get_or_init(|| Trace::start(self, &["--pid", &pid]).map_err(|error| format!("{error:#}")));
            cell
        });
        if let Some(Err(error)) = started.get() {
            bail!("{error}");
        }
        Ref::filter_map(started, |cell| cell.get().and_then(|trace| trace.as_ref().ok()))
            .map_err(|_| anyhow::anyhow!("the common session did not start"))
    }

    /// Takes the common session away, to end it; the next who asks starts another.
    pub fn take_session(&self) -> Option<Result<Trace, String>> {
        self.session.take().into_inner()
    }
}

/// Inode number of our cgroup's folder, which is the kernel's id of it. `None` without cgroup v2.
fn cgroup_id() -> Option<u64> {
    let all = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = all.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(std::fs::metadata(format!("/sys/fs/cgroup{path}")).ok()?.ino())
}

/// It collapses pages under `mmap_lock`, at moments of its own choosing, in which a walk finds the lock busy. Where the
/// kernel has it, it collapses nothing with a page that is not there, and sleeps from here on, but for a look whenever
/// there is a first process to look at: what a walk does then is tested with a lock that a test holds.
fn send_khugepaged_to_sleep() {
    for (file, value) in [("max_ptes_none", "0"), ("pages_to_scan", "1"), ("scan_sleep_millisecs", "4000000000")] {
        let _ = std::fs::write(format!("/sys/kernel/mm/transparent_hugepage/khugepaged/{file}"), value);
    }
}
