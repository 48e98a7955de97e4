//! The one vocabulary for what pinscope measures: every figure by its name, and whether it is to be had.
//!
//! The plan says what this kernel does not give, the health of the probes adds what did not attach, and
//! [`Capabilities`](crate::decode::Capabilities) holds both against the hooks that are there. Every snapshot carries the result; outputs,
//! questions and metrics ask it, and parse no reason again.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{audit::Gup, operation::Operation};

macro_rules! figures {
    ($($(#[doc = $doc:literal])+ $figure:ident = $name:expr,)+) => {
        /// Something that pinscope tells, or does not. The order is that in which several are named together.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Figure {
            $($(#[doc = $doc])+ $figure,)+
        }

        impl Figure {
            /// Every figure.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$figure),+];

            /// The name used in every line for people.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$figure => $name,)+
                }
            }
        }
    };
}

figures! {
    /// Whatever is measured: nothing is attached without it.
    Everything = "all figures",
    /// Calls by operation and result; tracepoint `io_uring_register`, which ends every registration: all that is summed up at
    /// the end of one is missing without it.
    Results = "counts by operation and result",
    /// Calls of unregister; the same tracepoint.
    UnregisterCount = "count of unregister",
    /// The kernel's own count, against which all others are held; the same tracepoint.
    Ledger = "books against the kernel's count",
    /// Calls that a raw tracepoint skips (since 7.0).
    EveryCall = "count of every call",
    /// Nanoseconds from entry to return; hooks at `io_sqe_buffers_register`.
    RegisterDuration = "duration of register",
    /// Nanoseconds from entry to return; hooks at `io_register_rsrc_update`.
    UpdateDuration = "duration of update",
    /// Nanoseconds from entry to return; hooks at `io_register_clone_buffers`.
    CloneDuration = "duration of clone",
    /// Nanoseconds from entry to return; hooks at `io_sqe_buffers_unregister`.
    UnregisterDuration = "duration of unregister",
    /// Buffers, bytes and VMAs of a registration; entry of `io_sqe_buffers_register`.
    PerRegistration = "buffers and VMAs per registration",
    /// Buffers of updates; entry of `io_register_rsrc_update`.
    UpdateBuffers = "buffers of updates",
    /// Buffers that reached the kernel's per-buffer function, or its pin; their hooks.
    Buffers = "buffers",
    /// Bytes of those buffers that are registered, or refused; the same hooks.
    Bytes = "bytes",
    /// VMAs that buffers touch; the walk at the entry of a buffer.
    Vmas = "VMAs touched",
    /// Classes and filesystems of those VMAs; the walk.
    Backings = "backings",
    /// `vm_file`s and files of a buffer; the walk.
    Files = "distinct files",
    /// Files that several of a buffer's VMAs map, by name; the walk, `dentry.d_name`.
    FileNames = "names of files",
    /// Filesystems under whose name a file is found, where that is not its own (overlayfs, FUSE); the walk, `file.f_path`.
    Overlays = "filesystems over others",
    /// Nanoseconds in GUP; hooks at the pin's function.
    PinTime = "time in the pin",
    /// Page faults in the pins; `task_struct.min_flt` and `maj_flt` over the pin.
    PinFaults = "page faults in the pin",
    /// Those among the page faults that hugetlb's pages took (before 6.5); the walk.
    HugePageFaults = "page faults of hugetlb pages",
    /// Look-ups of a VMA that the kernel makes in pins; the look-up's function.
    Lookups = "VMA look-ups",
    /// What the kernel refuses by its rule for buffers; the walk, and the buffer's result.
    Refusals = "refusals by policy",
    /// The rule for buffers that this kernel is under; prototypes and members in BTF.
    KernelRule = "the rule that this kernel is under",
    /// Nanoseconds of registers and updates by part; `--phases`.
    Phases = "parts of the time",
    /// Nanoseconds in `handle_mm_fault` inside pins; `--phases`.
    FaultTime = "time of page faults in the pin",
    /// Nanoseconds in the look-up's function inside pins; `--phases`.
    LookupTime = "time of VMA look-ups",
    /// Nanoseconds in the function that charges pinned pages; `--phases`.
    AccountingTime = "time of accounting",
    /// Pins that looked a VMA up, and those that did not; `--phases`, the look-up's function.
    SlowPins = "pins by path",
    /// Waits for `mmap_lock`, nanoseconds; its tracepoints, `--locks`.
    LockWaits = "waits for mmap_lock",
    /// Nanoseconds of the system call, with the wait for the ring's lock; its entry, and its end.
    CallTime = "time of the system call",
    /// Calls that have not ended, how many and for how long; entries, the ledger, and the registers of the calls' tasks.
    UnderWay = "calls under way",
    /// Rings by age, fd and flags, and registrations by ring; tracepoint `io_uring_create`.
    Rings = "age, fd and flags of the ring",
    /// Installations before and after their ring's first request; `io_ring_ctx.cached_sq_head`.
    Requests = "installations by the ring's first request",
    /// Whether an update fills slots or replaces buffers; the slots of the ring's table.
    UpdateKinds = "what updates replace",
    /// Buffers and bytes in the tables of rings; the end of a table, and the kernel's own tables.
    Registered = "what is registered now",
    /// Those of them that were there when the session began; iterators over files and tasks.
    RegisteredBefore = "what was registered before the start",
    /// Tables that the kernel lets go when a registration fails; the end of a table.
    Cleanups = "tables that the kernel cleans up",
    /// Tables that end with their ring; the end of a table.
    RingExits = "tables that end with their ring",
    /// Sums by process, and what is kept by process only.
    Processes = "sums by process",
    /// Processes by the numbers of pinscope's own PID namespace; `struct pid`.
    ProcessNumbers = "numbers of processes",
    /// Sums by cgroup of version 1; `css_set.subsys`.
    WorkloadsV1 = "workloads by cgroup v1",
    /// What programs of fentry and fexit skip where the kernel preempts itself.
    EveryPart = "every buffer, pin and walk",
    /// Runs of pinscope's own programs; the kernel's statistics of programs.
    ProgramRuns = "runs and run time of the programs",
    /// The stack of who takes hold of pages, in an audit; the kernel's unwinder.
    CallerStacks = "the way to a caller",
    /// The value of that flag, in an audit; BTF.
    FollLongterm = "FOLL_LONGTERM",
    /// The value of that flag, in an audit; BTF.
    FollForce = "FOLL_FORCE",
    /// Calls of that function, in an audit; its hooks.
    CallsOfPin = "calls of pin_user_pages",
    /// Calls of that function, in an audit; its hooks.
    CallsOfPinFast = "calls of pin_user_pages_fast",
    /// Calls of that function, in an audit; its hooks.
    CallsOfPinRemote = "calls of pin_user_pages_remote",
    /// Calls of that function, in an audit; its hooks.
    CallsOfPinUnlocked = "calls of pin_user_pages_unlocked",
    /// Calls of that function, in an audit; its hooks.
    CallsOfPinLocked = "calls of pin_user_pages_locked",
    /// Calls of that function, in an audit; its hooks.
    CallsOfPinFastOnly = "calls of pin_user_pages_fast_only",
    /// Calls of that function, in an audit; its hooks.
    CallsOfGet = "calls of get_user_pages",
    /// Calls of that function, in an audit; its hooks.
    CallsOfGetFast = "calls of get_user_pages_fast",
    /// Calls of that function, in an audit; its hooks.
    CallsOfGetRemote = "calls of get_user_pages_remote",
    /// Calls of that function, in an audit; its hooks.
    CallsOfGetUnlocked = "calls of get_user_pages_unlocked",
    /// Calls of that function, in an audit; its hooks.
    CallsOfGetLocked = "calls of get_user_pages_locked",
    /// Calls of that function, in an audit; its hooks.
    CallsOfGetFastOnly = "calls of get_user_pages_fast_only",
}

const _: () = assert!(Figure::ALL.len() <= u64::BITS as usize, "a set of figures is one word");

impl Figure {
    /// How long that operation takes.
    pub const fn duration_of(operation: Operation) -> Self {
        match operation {
            Operation::Register => Self::RegisterDuration,
            Operation::Update => Self::UpdateDuration,
            Operation::Clone => Self::CloneDuration,
            Operation::Unregister => Self::UnregisterDuration,
        }
    }

    /// An audit's count of that function.
    pub const fn calls_of(function: Gup) -> Self {
        match function {
            Gup::Pin => Self::CallsOfPin,
            Gup::PinFast => Self::CallsOfPinFast,
            Gup::PinRemote => Self::CallsOfPinRemote,
            Gup::PinUnlocked => Self::CallsOfPinUnlocked,
            Gup::PinLocked => Self::CallsOfPinLocked,
            Gup::PinFastOnly => Self::CallsOfPinFastOnly,
            Gup::Get => Self::CallsOfGet,
            Gup::GetFast => Self::CallsOfGetFast,
            Gup::GetRemote => Self::CallsOfGetRemote,
            Gup::GetUnlocked => Self::CallsOfGetUnlocked,
            Gup::GetLocked => Self::CallsOfGetLocked,
            Gup::GetFastOnly => Self::CallsOfGetFastOnly,
        }
    }

    /// The figures that it is counted within, the nearest first: where one of them is missing, so is this, for that one's
    /// reason.
    pub const fn rests_on(self) -> &'static [Self] {
        use Figure::{
            Buffers, Everything, Lookups, PerRegistration, PinTime, RegisterDuration, Registered, Results,
            UpdateBuffers, Vmas,
        };
        const CALL: &[Figure] = &[Results, Everything];
        const INSTALLATION: &[Figure] = &[Buffers, Results, Everything];
        const PART: &[Figure] = &[Buffers, PerRegistration, UpdateBuffers, Results, Everything];
        const WALK: &[Figure] = &[Vmas, Buffers, PerRegistration, UpdateBuffers, Results, Everything];
        const PIN: &[Figure] = &[PinTime, Buffers, PerRegistration, UpdateBuffers, Results, Everything];
        const LOOKUP: &[Figure] = &[Lookups, PinTime, Buffers, PerRegistration, UpdateBuffers, Results, Everything];
        match self {
            Self::Everything => &[],
            Self::Buffers | Self::Bytes | Self::PerRegistration | Self::UpdateBuffers | Self::EveryPart => PART,
            Self::Vmas | Self::Backings | Self::Files | Self::FileNames | Self::Overlays | Self::Refusals => WALK,
            Self::PinTime
            | Self::PinFaults
            | Self::HugePageFaults
            | Self::Lookups
            | Self::Phases
            | Self::FaultTime
            | Self::AccountingTime => PIN,
            Self::LookupTime | Self::SlowPins => LOOKUP,
            Self::RegisteredBefore => &[Registered, RegisterDuration, Results, Everything],
            Self::Registered | Self::LockWaits | Self::UnderWay => &[RegisterDuration, Results, Everything],
            // A call that installs nothing is told from one that does by its buffers.
            Self::Rings | Self::Requests | Self::UpdateKinds => INSTALLATION,
            _ => CALL,
        }
    }
}

/// Several figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Vec<Figure>", into = "Vec<Figure>")]
pub struct FigureSet(u64);

impl From<FigureSet> for Vec<Figure> {
    fn from(set: FigureSet) -> Self {
        set.iter().collect()
    }
}

impl From<Vec<Figure>> for FigureSet {
    fn from(figures: Vec<Figure>) -> Self {
        Self::of(&figures)
    }
}

impl FigureSet {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These.
    pub const fn of(figures: &[Figure]) -> Self {
        let (mut set, mut i) = (Self::NONE, 0);
        while i < figures.len() {
            set = set.with(figures[i]);
            i += 1;
        }
        set
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, figure: Figure) -> Self {
        Self(self.0 | 1 << figure as u64)
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, figure: Figure) -> Self {
        Self(self.0 & !(1 << figure as u64))
    }

    /// Whether it is among them.
    pub const fn has(self, figure: Figure) -> bool {
        self.0 & 1 << figure as u64 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each, in the order of [`Figure`].
    pub fn iter(self) -> impl Iterator<Item = Figure> {
        Figure::ALL.into_iter().filter(move |figure| self.has(*figure))
    }

    /// Their names in one line; durations of all operations in one word.
    pub fn names(self) -> String {
        let durations = Operation::ALL.map(Figure::duration_of);
        let all = durations.iter().all(|duration| self.has(*duration));
        let names = self.iter().filter_map(|figure| match figure {
            _ if !all || !durations.contains(&figure) => Some(figure.name()),
            Figure::RegisterDuration => Some("durations"),
            _ => None,
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Whether a figure is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability<'a> {
    /// It is.
    Available,
    /// Not wholly, or less exactly, and why.
    Partial(&'a str),
    /// Not at all, and why: no output shows a number for it.
    Missing(&'a str),
    /// Not at all, since nobody asked for it.
    Unasked,
}

/// How a figure lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Degree {
    /// The figure is unavailable.
    Missing,
    /// The figure is incomplete, or less exact, by what the plan and the probes tell.
    Partial,
    /// Its sums lack what was not seen, which the session counted.
    LowerBound,
}

/// What some figures lack, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lack {
    /// The figures.
    pub figures: FigureSet,
    /// How they lack it.
    pub degree: Degree,
    /// Why, in one line.
    pub reason: Arc<str>,
}

impl Lack {
    /// Figures and reason in one line.
    pub fn shown(&self) -> String {
        format!("{}: {}", self.figures.names(), self.reason)
    }
}

/// From each figure to whether it is to be had. What is not said to lack anything is available.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written", into = "Written")]
pub struct Figures {
    lacks: Vec<Lack>,
    unasked: FigureSet,
}

impl Figures {
    /// Whether the figure is to be had.
    pub fn of(&self, figure: Figure) -> Availability<'_> {
        let lack = |of: Figure, degree: Degree| {
            let mut lacks = self.lacks.iter();
            lacks.find(|lack| lack.degree == degree && lack.figures.has(of)).map(|lack| &*lack.reason)
        };
        let missing = |of: Figure| lack(of, Degree::Missing);
        if let Some(reason) = missing(figure).or_else(|| missing(Figure::Everything)) {
            return Availability::Missing(reason);
        }
        if self.unasked.has(figure) {
            return Availability::Unasked;
        }
        let partial = lack(figure, Degree::Partial).or_else(|| lack(figure, Degree::LowerBound));
        partial.map_or(Availability::Available, Availability::Partial)
    }

    /// Whether there is a number for it, if only in part.
    pub fn has(&self, figure: Figure) -> bool {
        matches!(self.of(figure), Availability::Available | Availability::Partial(_))
    }

    /// Why it is missing; `None` where it is not, or nobody asked.
    pub fn missing(&self, figure: Figure) -> Option<&str> {
        match self.of(figure) {
            Availability::Missing(reason) => Some(reason),
            _ => None,
        }
    }

    /// All that lack something, in the order in which that came out.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// Whether none lacks anything.
    pub const fn is_whole(&self) -> bool {
        self.lacks.is_empty()
    }

    /// Marks these as unavailable. The first reason stays.
    pub fn lose(&mut self, figures: &[Figure], reason: &str) {
        self.lack(figures, Degree::Missing, reason);
    }

    /// These are to be had in part, or less exactly.
    pub fn narrow(&mut self, figures: &[Figure], reason: &str) {
        self.lack(figures, Degree::Partial, reason);
    }

    fn lack(&mut self, figures: &[Figure], degree: Degree, reason: &str) {
        for &figure in figures {
            if !self.lacks.iter().any(|lack| lack.figures.has(figure)) {
                self.lacks.push(Lack { figures: FigureSet::of(&[figure]), degree, reason: reason.into() });
            }
        }
    }

    /// This is why all else is missing: it comes first.
    pub fn lose_everything(&mut self, reason: &str) {
        let everything = FigureSet::of(&[Figure::Everything]);
        self.lacks.insert(0, Lack { figures: everything, degree: Degree::Missing, reason: reason.into() });
    }

    /// The sums of those of these figures that are to be had lack what was not seen.
    pub fn bound(&mut self, figures: FigureSet, reason: String) {
        let figures = figures.iter().filter(|figure| self.has(*figure)).fold(FigureSet::NONE, FigureSet::with);
        if !figures.is_empty() {
            self.lacks.push(Lack { figures, degree: Degree::LowerBound, reason: reason.into() });
        }
    }

    /// Nobody asked for these.
    pub const fn leave_out(&mut self, figures: FigureSet) {
        self.unasked = FigureSet(self.unasked.0 | figures.0);
    }

    /// Holds them against what the hooks give. What is lost and given all the same, by another hook, is partial; what is not
    /// given is missing, for the reason of what it rests on, or was not asked for.
    pub fn settle(&mut self, gives: impl Fn(Figure) -> bool) {
        for lack in &mut self.lacks {
            let covered = lack.figures.iter().all(&gives);
            if lack.degree == Degree::Missing && covered {
                lack.degree = Degree::Partial;
            } else if lack.degree == Degree::Partial && !covered {
                lack.degree = Degree::Missing;
            }
        }
        let own = self.lacks.len();
        for figure in Figure::ALL.into_iter().filter(|figure| !gives(*figure)) {
            if !self.has(figure) {
                continue;
            }
            let under = figure.rests_on().iter().find_map(|under| {
                let mut lacks = self.lacks[..own].iter();
                lacks.find(|lack| lack.degree == Degree::Missing && lack.figures.has(*under))
            });
            match under.map(|lack| Arc::clone(&lack.reason)) {
                Some(reason) => self.inherit(own, figure, reason),
                None => self.leave_out(FigureSet::of(&[figure])),
            }
        }
    }

    /// The figure is missing for another one's reason: what is so for the same stands in one line, behind the `own` reasons.
    fn inherit(&mut self, own: usize, figure: Figure, reason: Arc<str>) {
        let inherited = &mut self.lacks[own..];
        match inherited.iter_mut().find(|lack| lack.reason == reason) {
            Some(lack) => lack.figures = lack.figures.with(figure),
            None => self.lacks.push(Lack { figures: FigureSet::of(&[figure]), degree: Degree::Missing, reason }),
        }
    }

    /// A line for each lack.
    pub fn shown(&self) -> impl Iterator<Item = String> {
        self.lacks.iter().map(Lack::shown)
    }

    /// The lacks of any of these figures.
    pub fn lacks_of(&self, figures: FigureSet) -> impl Iterator<Item = &Lack> {
        self.lacks.iter().filter(move |lack| lack.figures.0 & figures.0 != 0)
    }
}

/// Which figures lack something, as lines and in the vocabulary of figures.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Written {
    /// What lacks something and why, a line each.
    degraded: Vec<String>,
    /// Those of these lines that say which sums lack what was not seen.
    lower_bounds: Vec<String>,
    /// The same in the vocabulary of figures. What is in neither list is available.
    availability: Availabilities,
}

/// The figures that are unavailable or incomplete.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Availabilities {
    /// What lacks something.
    lacks: Vec<Lack>,
    /// What nobody asked for.
    unasked: FigureSet,
}

impl From<Figures> for Written {
    fn from(figures: Figures) -> Self {
        let bounds = figures.lacks.iter().filter(|lack| lack.degree == Degree::LowerBound).map(Lack::shown).collect();
        Self {
            degraded: figures.shown().collect(),
            lower_bounds: bounds,
            availability: Availabilities { lacks: figures.lacks, unasked: figures.unasked },
        }
    }
}

impl From<Written> for Figures {
    fn from(Written { availability: Availabilities { lacks, unasked }, .. }: Written) -> Self {
        Self { lacks, unasked }
    }
}
