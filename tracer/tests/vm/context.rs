//! The context that every test receives.

use std::{
    cell::{Cell, OnceCell, Ref, RefCell},
    os::unix::fs::MetadataExt,
};

use anyhow::{Context as _, bail};

use crate::{filesystem::Filesystems, kernel::Kernel, trace::Trace};

/// Settings of the run, and facts that do not change during it.
pub struct Context {
    /// `kprobe`, `fentry` or `auto`. With `none`, only the kernel is tested.
    pub attach: String,
    /// Seed of all random choices.
    pub seed: u64,
    /// Whether to run fewer cases.
    pub quick: bool,
    /// The kernel under test.
    pub kernel: Kernel,
    /// To determine the true backing of a VMA.
    pub filesystems: Filesystems,
    /// The kernel's id of our cgroup.
    pub cgroup_id: Option<u64>,
    /// Number of compared walks that found `mmap_lock` taken. The test program's own other threads sometimes grow their
    /// heaps and may be preempted while doing so.
    pub busy: Cell<u64>,
    /// Session shared by all tests that need no session of their own.
    session: RefCell<OnceCell<Result<Trace, String>>>,
}

impl Context {
    /// Queries the facts from the kernel.
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

    /// Whether pinscope is tested, or only the kernel.
    pub fn traces(&self) -> bool {
        self.attach != "none"
    }

    /// The shared session, started on first use. If it cannot start, all tests that use it fail.
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

    /// Takes the shared session, to end it. The next use starts another one.
    pub fn take_session(&self) -> Option<Result<Trace, String>> {
        self.session.take().into_inner()
    }
}

/// Inode number of our cgroup's folder, which is the kernel's id of the cgroup. `None` without cgroup v2.
fn cgroup_id() -> Option<u64> {
    let all = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = all.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(std::fs::metadata(format!("/sys/fs/cgroup{path}")).ok()?.ino())
}

/// Puts khugepaged to sleep. It collapses pages under `mmap_lock` at unpredictable times, and a walk at such a time
/// finds the lock taken. If the kernel has khugepaged, these settings make it skip pages that are not present, and
/// sleep except for one scan whenever a first process registers. Walks that find the lock taken are tested with a
/// lock that a test holds.
fn send_khugepaged_to_sleep() {
    for (file, value) in [("max_ptes_none", "0"), ("pages_to_scan", "1"), ("scan_sleep_millisecs", "4000000000")] {
        let _ = std::fs::write(format!("/sys/kernel/mm/transparent_hugepage/khugepaged/{file}"), value);
    }
}
