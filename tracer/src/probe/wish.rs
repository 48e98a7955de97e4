//! The one description of what a session asks for. The plan's hooks, the eBPF side's settings and the sizes of its maps follow
//! from it.

use tracer_ebpf::settings::Session;

use super::mode::AttachMode;
use crate::kernel::Hierarchy;

/// What a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, set by name")]
pub struct Wish {
    /// How to attach.
    pub attach: AttachMode,
    /// Kernel functions and tracepoints to leave alone.
    pub avoid: Vec<String>,
    /// Whose calls.
    pub filters: Filters,
    /// Send a record of each registration and buffer through the ring buffer.
    pub records: bool,
    /// Keep totals by process.
    pub processes: bool,
    /// Count the kernel's VMA look-ups: bystanders that fault through GUP pay for it.
    pub lookups: bool,
    /// Follow rings from their making.
    pub ring: bool,
    /// Follow what is registered now, by ring.
    pub tables: bool,
    /// Hook the return of the registration functions; without it a duration ends at the ledger's tracepoint.
    pub registration_returns: bool,
    /// Leave out the hook of each buffer where the pin's entry tells its range: half the cost, and no figure of a
    /// buffer but those of its pin.
    pub lean: bool,
    /// Time the system call: every `io_uring_register(2)` pays for it.
    pub calls: bool,
    /// Watch `mmap_lock`: every acquisition on the machine pays for it.
    pub locks: bool,
    /// Time the parts of a registration: every page fault on the machine pays for it.
    pub phases: bool,
    /// How many workloads to keep apart, and by which cgroups.
    pub workloads: Option<(u32, Hierarchy)>,
    /// An audit: its maps are large, and those of registrations small.
    pub audit: bool,
    /// Bytes of the ring buffer, a power of two; 0 for the default.
    pub ring_bytes: u32,
    /// Level of the probes' own log, as `aya_log::Level`; 0 for off.
    pub log_level: u8,
}

/// Whose calls a session counts; all that are set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// One thread group, and when it was there, `CLOCK_MONOTONIC` nanoseconds.
    pub pid: Option<(u32, u64)>,
    /// Tasks of one user.
    pub uid: Option<u32>,
    /// Tasks of one `comm`; the rest is zero.
    pub comm: Option<[u8; 16]>,
    /// The command that pinscope started, and its descendants.
    pub descent: bool,
    /// With `descent`, the command's supervisor: its thread group, once it runs.
    pub tracer: u32,
}

impl Default for Wish {
    /// All that a doctor would ask about: whatever can be hooked, of all processes.
    fn default() -> Self {
        Self {
            attach: AttachMode::Auto,
            avoid: Vec::new(),
            filters: Filters::default(),
            records: false,
            processes: false,
            lookups: true,
            ring: true,
            tables: true,
            registration_returns: true,
            lean: false,
            calls: true,
            locks: true,
            phases: true,
            workloads: None,
            audit: false,
            ring_bytes: 0,
            log_level: 0,
        }
    }
}

impl Wish {
    /// The controller by whose hierarchy of version 1 tasks' cgroups are told; `None` for the default hierarchy.
    pub fn controller(&self) -> Option<&'static str> {
        self.workloads.as_ref().and_then(|(_, hierarchy)| hierarchy.controller)
    }

    /// What the eBPF side is to do.
    pub fn session(&self) -> Session {
        let Filters { pid, uid, comm, descent, tracer } = self.filters;
        let mut session = Session {
            records: self.records.into(),
            processes: self.processes.into(),
            by_uid: uid.is_some().into(),
            by_comm: comm.is_some().into(),
            by_descent: descent.into(),
            rings: self.ring.into(),
            tables: self.tables.into(),
            locks: self.locks.into(),
            phases: self.phases.into(),
            workloads: self.workloads.is_some().into(),
            tracer,
            uid: uid.unwrap_or_default(),
            comm: comm.unwrap_or_default(),
            ..Session::default()
        };
        if let Some((pid, seen_ns)) = pid {
            session.only_process(pid, seen_ns);
        }
        session.complete()
    }
}
