//! What the attached probes can tell. All that they cannot is unknown further on, never zero.

use tracer_ebpf::{operation::Operation, policy::Policy};

use crate::figure::{Figure, Figures};

/// What is measured, made by the caller from the probes that are attached.
///
/// A figure whose hook is missing is `None` in records and snapshots: `null` in JSON, absent in metrics.
#[expect(clippy::struct_excessive_bools, reason = "each stands for one hook that may be missing by itself")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The hooks at the functions' entries, by [`Operation`].
    pub entries: [bool; Operation::COUNT],
    /// The hooks at the functions' returns, by [`Operation`].
    pub returns: [bool; Operation::COUNT],
    /// The raw tracepoint `io_uring_register`: an independent count, and the end of every registration.
    pub ledger: bool,
    /// The hook at the entry of the per-buffer function: buffers and bytes.
    pub buffers: bool,
    /// The hook at its return: a buffer's result and time.
    pub buffer_returns: bool,
    /// Both hooks of the pin: its time and faults.
    pub pins: bool,
    /// The pin's hooks stand for the buffer's.
    pub lean: bool,
    /// The walk: VMAs, files, backings.
    pub walk: bool,
    /// Whether the session knows which pins were of hugetlb pages, where the kernel counts no page faults for those.
    pub huge_pages: bool,
    /// The look-up hook.
    pub lookups: bool,
    /// Totals by process are kept.
    pub processes: bool,
    /// The descendants of one process are followed, so that there are some to lose.
    pub descent: bool,
    /// Records are sent through the ring buffer, so that there are records to lose.
    pub records: bool,
    /// Registrations are counted by ring.
    pub rings: bool,
    /// What is registered now is kept.
    pub tables: bool,
    /// Whether a ring had been given requests can be told.
    pub ring_requests: bool,
    /// Files can be named.
    pub file_names: bool,
    /// The kernel's own cleanup of a table is seen.
    pub cleanups: bool,
    /// The end of a ring with a table is seen, and no filter asks whose it was.
    pub ring_exits: bool,
    /// The policy that this kernel is under, where it can be told, and how that is known.
    pub policy: (Option<Policy>, String),
    /// Entry and return of the system call.
    pub calls: bool,
    /// Both tracepoints of `mmap_lock`.
    pub locks: bool,
    /// The parts of a registration are asked for, and its pins are timed.
    pub phases: bool,
    /// Both hooks of the page fault handler.
    pub fault_times: bool,
    /// Both hooks of the look-up.
    pub lookup_times: bool,
    /// Both hooks of the accounting.
    pub accounting_times: bool,
    /// Pins of the slow path are told from those of the fast one.
    pub slow_pins: bool,
    /// What plan, probes and session say of each figure; see [`Capabilities::told`].
    pub figures: Figures,
}

impl Capabilities {
    /// Whether these counts of faults are known. Where huge pages cannot be told from others none may mean that they came in without
    /// one; more than none is a lower bound.
    pub(super) fn tells_faults(&self, minor: u64, major: u64) -> bool {
        self.huge_pages || minor > 0 || major > 0
    }

    /// Every hook attached.
    pub fn all() -> Self {
        Self {
            entries: [true; Operation::COUNT],
            returns: [true; Operation::COUNT],
            ledger: true,
            buffers: true,
            buffer_returns: true,
            pins: true,
            lean: false,
            walk: true,
            huge_pages: true,
            lookups: true,
            processes: true,
            descent: true,
            records: true,
            rings: true,
            tables: true,
            ring_requests: true,
            file_names: true,
            cleanups: true,
            ring_exits: true,
            policy: (Some(Policy::Since65), String::new()),
            calls: true,
            locks: true,
            phases: true,
            fault_times: true,
            lookup_times: true,
            accounting_times: true,
            slow_pins: true,
            figures: Figures::default(),
        }
    }

    /// No hook attached.
    pub fn nothing() -> Self {
        Self {
            entries: [false; Operation::COUNT],
            returns: [false; Operation::COUNT],
            ledger: false,
            buffers: false,
            buffer_returns: false,
            pins: false,
            lean: false,
            walk: false,
            huge_pages: false,
            lookups: false,
            processes: false,
            descent: false,
            records: false,
            rings: false,
            tables: false,
            ring_requests: false,
            file_names: false,
            cleanups: false,
            ring_exits: false,
            policy: (None, String::new()),
            calls: false,
            locks: false,
            phases: false,
            fault_times: false,
            lookup_times: false,
            accounting_times: false,
            slow_pins: false,
            figures: Figures::default(),
        }
    }

    /// Whether each figure is to be had: what plan and probes say of it, held against the hooks that are there.
    pub fn told(&self) -> Figures {
        let mut figures = self.figures.clone();
        figures.settle(|figure| self.gives(figure));
        figures
    }

    /// Whether the hooks give the figure. All that is summed up is summed up at the end of a registration, which is the
    /// ledger's; buffers, pins and walks are seen inside a register or an update whose entry was.
    pub fn gives(&self, figure: Figure) -> bool {
        let entered = |operation: Operation| self.ledger && self.entries[operation as usize];
        let pins = entered(Operation::Register) || entered(Operation::Update);
        let buffers = pins && self.buffers;
        let (walked, pinned) = (buffers && self.walk, buffers && self.pins);
        match figure {
            Figure::Results | Figure::UnregisterCount | Figure::Ledger | Figure::EveryCall => self.ledger,
            Figure::RegisterDuration => entered(Operation::Register),
            Figure::UpdateDuration => entered(Operation::Update),
            Figure::CloneDuration => entered(Operation::Clone),
            Figure::UnregisterDuration => entered(Operation::Unregister),
            Figure::PerRegistration | Figure::Buffers | Figure::Bytes | Figure::EveryPart => buffers,
            Figure::UpdateBuffers => buffers && entered(Operation::Update),
            Figure::Vmas | Figure::Backings | Figure::Files | Figure::Refusals => walked,
            Figure::FileNames => walked && self.processes && self.file_names,
            Figure::Overlays => walked && self.figures.missing(figure).is_none(),
            Figure::PinTime | Figure::PinFaults => pinned,
            Figure::HugePageFaults => pinned && self.huge_pages,
            Figure::Lookups => pinned && self.lookups,
            Figure::KernelRule => self.policy.0.is_some(),
            Figure::Phases => pinned && self.phases,
            Figure::FaultTime => pinned && self.phases && self.fault_times,
            Figure::LookupTime => pinned && self.phases && self.lookup_times,
            Figure::AccountingTime => pinned && self.phases && self.accounting_times,
            Figure::SlowPins => pinned && self.phases && self.slow_pins,
            Figure::LockWaits => pins && self.locks,
            Figure::CallTime => self.ledger && self.calls,
            Figure::UnderWay => {
                let entered = self.calls || self.entries.contains(&true);
                self.ledger && entered && self.figures.missing(figure).is_none()
            }
            Figure::Rings => self.ledger && self.rings,
            Figure::Requests => self.ledger && self.ring_requests,
            Figure::UpdateKinds => self.ledger && self.figures.missing(figure).is_none(),
            Figure::Registered | Figure::RegisteredBefore => self.ledger && self.tables,
            Figure::Cleanups => self.cleanups,
            Figure::RingExits => self.ring_exits,
            Figure::Processes => self.ledger && self.processes,
            Figure::Everything
            | Figure::ProcessNumbers
            | Figure::WorkloadsV1
            | Figure::ProgramRuns
            | Figure::CallerStacks
            | Figure::FollLongterm
            | Figure::FollForce
            | Figure::CallsOfPin
            | Figure::CallsOfPinFast
            | Figure::CallsOfPinRemote
            | Figure::CallsOfPinUnlocked
            | Figure::CallsOfPinLocked
            | Figure::CallsOfPinFastOnly
            | Figure::CallsOfGet
            | Figure::CallsOfGetFast
            | Figure::CallsOfGetRemote
            | Figure::CallsOfGetUnlocked
            | Figure::CallsOfGetLocked
            | Figure::CallsOfGetFastOnly => self.figures.missing(figure).is_none(),
        }
    }

    /// Whether the operation hands buffers to the per-buffer function, and that is seen.
    pub fn has_buffers(&self, operation: Operation) -> bool {
        self.buffers && pins_buffers(operation)
    }
}

/// Whether the operation goes through the per-buffer function: a clone takes over what is pinned, an
/// unregistration only lets go.
pub(crate) const fn pins_buffers(operation: Operation) -> bool {
    matches!(operation, Operation::Register | Operation::Update)
}
