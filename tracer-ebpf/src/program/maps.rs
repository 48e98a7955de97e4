//! Every map.
//!
//! What is counted goes to entries of the CPU's own, and there by an atomic add: a program on a trampoline runs with migration
//! off but may be preempted, and the task that comes next on the same CPU may run the same program. A plain
//! load-add-store would lose its count; `lock add` on the CPU's own line does not, and costs one instruction.
//!
//! User space reads these entries, and writes its switches, in memory that it has mapped ([`Mapped`]). In a bpf(2) call on a map it
//! would keep kprobes and perf events on its CPU from running their programs, until it runs again if it is preempted there.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_type},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuHashMap, RingBuf, StackTrace},
    helpers::bpf_get_smp_processor_id,
    macros::btf_map,
};
use tracer_ebpf::{
    audit::{self, AuditCounter, AuditKey, AuditTotals},
    backing::{BackingKey, BackingTotals, Kind},
    counter::{self, Counter, ERRNO_SLOTS, PARTIAL_RESULTS, RESULT_ROWS, Totals},
    detail::{self, Detail},
    histogram::{self, Histogram, SLOTS, SUM, Sizes},
    installation::Installation,
    opaque::opaque,
    operation::Operation,
    record::{
        COST_PAGES, COST_VMAS, Cost, Frame, JudgedKey, JudgedTotals, Largest, PastRing, ProcessKey, ProcessTotals,
        Ring, SharedFile, SharedFileKey,
    },
    table::{self, Followed, Listed, Table},
    under_way,
    workload::{self, CgroupPath, WorkloadTotals},
};

/// A task storage map; the library has those of sockets, inodes and cgroups, not of tasks.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: the fields only describe the map to the loader; nothing dereferences them.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The pointer that stands for the map in a helper's arguments.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// Each task's registration under way. Kernels before 5.12 get a hash map under the thread's id instead: the loader
/// then gives this map the definition of [`FRAMES_BY_TID`].
#[btf_map]
pub static FRAMES: TaskStorage<Frame> = TaskStorage::new();

/// The definition that [`FRAMES`] takes on kernels without task storage. Holds nothing.
#[btf_map]
pub static FRAMES_BY_TID: HashMap<i32, Frame, 1> = HashMap::new();

/// An array that user space maps (5.5).
pub type Mapped<T, const ENTRIES: usize> = Array<T, ENTRIES, { BPF_F_MMAPABLE as usize }>;

/// An array that has so many entries for each CPU that is possible; user space multiplies them before the load.
pub type OfCpus<T, const ENTRIES: usize> = Mapped<T, ENTRIES>;

/// This CPU's entry of an array. `None` never happens; the verifier wants it asked.
#[inline(always)]
pub fn own<T, const ENTRIES: usize>(array: &'static OfCpus<T, ENTRIES>, entry: u32) -> Option<*mut T> {
    const { assert!((size_of::<T>() * ENTRIES).is_multiple_of(CACHE_LINE), "CPUs would share a cache line") };
    // SAFETY: takes nothing, cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    array.get_ptr_mut(cpu.wrapping_mul(ENTRIES as u32).wrapping_add(entry))
}

/// Bytes; an array begins at a page.
const CACHE_LINE: usize = 64;

/// Not 0 while calls are counted: from when every hook is in its place and the maps are read, to the session's last reading.
#[btf_map]
pub static COUNTING: Mapped<u64, 1> = Array::new();

/// A frame of zeros, from which one is made in the hash map: it is too large for a program's stack.
#[btf_map]
pub static BLANK: Array<Frame, 1> = Array::new();

#[btf_map]
pub static TOTALS: OfCpus<Totals, 1> = Array::new();

/// Failures by errno; successes are [`Counter::Succeeded`]. Behind the operations' rows [`PARTIAL_RESULTS`].
#[btf_map]
pub static RESULTS: OfCpus<[u64; ERRNO_SLOTS], RESULT_ROWS> = Array::new();

#[btf_map]
pub static DURATIONS: OfCpus<[u64; SLOTS], { Histogram::DURATIONS }> = Array::new();

#[btf_map]
pub static SIZES: OfCpus<Sizes, 1> = Array::new();

/// Backings with a filesystem's name, or that GUP has a rule for; the others are in [`TOTALS`].
#[btf_map]
pub static BACKINGS: PerCpuHashMap<BackingKey, BackingTotals, 512> = PerCpuHashMap::new();

/// Names of filesystems, by the address of their `file_system_type`.
#[btf_map]
pub static FILESYSTEMS: HashMap<u64, [u8; 16], 128> = HashMap::new();

#[btf_map]
pub static PROCESSES: HashMap<ProcessKey, ProcessTotals, 16384> = HashMap::new();

#[btf_map]
pub static RINGS: LruHashMap<u64, Ring, 16384> = LruHashMap::new();

/// What is registered now, by address of the `io_ring_ctx`. Not one that evicts: what goes is let go by the kernel.
#[btf_map]
pub static TABLES: HashMap<u64, Table, { table::TABLES }> = HashMap::new();

/// Not 0 while rings that were there before are looked for.
#[btf_map]
pub static SEARCHING: Mapped<u64, 1> = Array::new();

/// How the following of tables goes.
#[btf_map]
pub static FOLLOWED: Mapped<Followed, 1> = Array::new();

/// Buffers of the part of a table that was asked for last.
#[btf_map]
pub static LISTED: Mapped<Listed, 1> = Array::new();

/// Rings on which buffers were installed and whose `io_ring_ctx` has become another's since.
#[btf_map]
pub static PAST_RINGS: HashMap<PastRing, Ring, 16384> = HashMap::new();

/// Buffers with a trait that a policy looks at, and refused ones.
#[btf_map]
pub static JUDGED: HashMap<JudgedKey, JudgedTotals, 4096> = HashMap::new();

/// Calls by the kernel's id of the cgroup, for a session that asks for it. Made large as a whole when it is loaded: kernels
/// warn of tracing programs whose maps allocate as they grow.
#[btf_map]
pub static WORKLOADS: HashMap<u64, WorkloadTotals, 1024> = HashMap::new();

/// Calls of cgroups that found no room in [`WORKLOADS`], by the id of the cgroup two levels below the root in which they lie: a
/// unit of the system, a user's slice. Whoever makes cgroups by the thousand makes them deeper, and leaves others their place.
#[btf_map]
pub static OWNERS: HashMap<u64, WorkloadTotals, { workload::OWNERS }> = HashMap::new();

/// The paths of the cgroups in [`WORKLOADS`] and [`OWNERS`]: apart from it, since they are read once, and the counts at every scrape.
#[btf_map]
pub static CGROUPS: HashMap<u64, CgroupPath, 1024> = HashMap::new();

/// Calls under way.
#[btf_map]
pub static CALLS: Mapped<[u64; under_way::SLOTS], 1> = Array::new();

/// A path of which nothing is noted, from which one is made: it is too large for a program's stack.
#[btf_map]
pub static BLANK_CGROUP: Array<CgroupPath, 1> = Array::new();

/// What accepted buffers cost, by octave of VMAs and of pages.
#[btf_map]
pub static COSTS: OfCpus<Cost, { COST_VMAS * COST_PAGES }> = Array::new();

/// The registration, and the buffer, with the most VMAs.
#[btf_map]
pub static LARGEST: OfCpus<Largest, 2> = Array::new();

/// The files of buffers that span several.
#[btf_map]
pub static SHARED_FILES: HashMap<SharedFileKey, SharedFile, 1024> = HashMap::new();

/// Calls of an audit.
#[btf_map]
pub static AUDIT: PerCpuHashMap<AuditKey, AuditTotals, { audit::ROWS as usize }> = PerCpuHashMap::new();

/// By [`audit::AuditCounter`].
#[btf_map]
pub static AUDIT_COUNTERS: OfCpus<[u64; AuditCounter::SLOTS], 1> = Array::new();

/// Stacks of an audit's calls.
#[btf_map]
pub static STACKS: StackTrace<{ audit::STACKS as usize }, 0, { audit::STACK_DEPTH }> = StackTrace::new();

/// Registrations and buffers, for sessions that ask for records.
#[btf_map]
pub static RECORDS: RingBuf<u8, { 1 << 22 }> = RingBuf::new();

/// Adds to a number in a map; see the module's text for why it is atomic.
#[inline(always)]
pub fn add(slot: *mut u64, value: u64) {
    // SAFETY: the slot lies in a map value: aligned, valid, and shared only through atomic adds. Relaxed, and its
    // result unused, so that it becomes the instruction that every kernel has (fetching adds came with 5.12).
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(slot, value) };
}

/// This CPU's counters, and its backings without a filesystem's name.
pub struct Counters(*mut Totals);

impl Counters {
    /// `None` never happens; see [`own`].
    #[inline(always)]
    pub fn get() -> Option<Self> {
        own(&TOTALS, 0).map(Self)
    }

    /// The totals of a kind of backing.
    #[inline(always)]
    pub fn kind(&self, kind: Kind) -> *mut BackingTotals {
        // SAFETY: a value of the map; only the address of its field is taken.
        let kinds = unsafe { (&raw mut (*self.0).kinds).cast::<BackingTotals>() };
        // Where the compiler knows the bound it leaves out the mask that the verifier needs to see.
        kinds.wrapping_add(opaque(kind.0.into()) as usize & (Kind::PLAIN as usize - 1))
    }

    #[inline(always)]
    pub fn add(&self, counter: Counter, value: u64) {
        self.add_slot(counter as usize, value);
    }

    #[inline(always)]
    pub fn add_of(&self, counter: Counter, operation: Operation, value: u64) {
        self.add_slot(counter.of(operation), value);
    }

    /// Counts one end of an operation, as the tracepoint tells it.
    #[inline(always)]
    pub fn succeeded(&self, operation: Operation) {
        self.add_of(Counter::Ledger, operation, 1);
        self.add_of(Counter::Succeeded, operation, 1);
    }

    /// The same of one that was refused; `ret` is its negative errno.
    #[inline(always)]
    pub fn failed(&self, operation: Operation, ret: i64) {
        self.add_of(Counter::Ledger, operation, 1);
        add_result(operation as u32, ret);
    }

    /// The same of an update that installed some of its buffers and not all; `ret` is that of the buffer that stopped it, 0
    /// where it is not known.
    #[inline(always)]
    pub fn partial(&self, operation: Operation, ret: i32) {
        self.add_of(Counter::Ledger, operation, 1);
        add_result(PARTIAL_RESULTS as u32, ret.into());
    }

    /// Counts a plain registration; `used` where its ring had been given requests.
    #[inline(always)]
    pub fn plain(&self, installation: Installation, used: bool) {
        self.add_slot(Counter::Plain.of_installation(installation, used), 1);
    }

    /// Counts an installation; likewise.
    #[inline(always)]
    pub fn installation(&self, installation: Installation, used: bool) {
        self.add_slot(Counter::Installations.of_installation(installation, used), 1);
    }

    /// Counts an update that emptied slots; likewise.
    #[inline(always)]
    pub fn emptied(&self, used: bool) {
        self.add_slot(Counter::EmptyingUpdates as usize + usize::from(used), 1);
    }

    #[inline(always)]
    fn add_slot(&self, slot: usize, value: u64) {
        add(self.0.cast::<u64>().wrapping_add(slot & (Counter::SLOTS - 1)), value);
    }
}

#[inline(always)]
fn add_result(row: u32, ret: i64) {
    if let Some(slots) = own(&RESULTS, row) {
        // Where the compiler knows the sign it leaves out the mask that the verifier needs to see.
        let ret = opaque(ret.cast_unsigned()).cast_signed();
        add(slots.cast::<u64>().wrapping_add(counter::errno_slot(ret)), 1);
    }
}

/// Adds to one field of a value in a map.
macro_rules! add_field {
    ($totals:ident . $field:ident, $value:expr) => {
        // SAFETY: a value of the map; only the address of its field is taken.
        $crate::program::maps::add(unsafe { &raw mut (*$totals).$field }, $value)
    };
}
pub(crate) use add_field;

/// Counts one event.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(counters) = Counters::get() {
        counters.add(counter, 1);
    }
}

/// Puts a duration into its histogram; gives its bucket.
#[inline(always)]
pub fn observe_duration(histogram: u32, nanoseconds: u64) -> usize {
    let bucket = histogram::index(nanoseconds);
    if let Some(slots) = own(&DURATIONS, histogram) {
        put_into(slots.cast(), bucket, nanoseconds);
    }
    bucket
}

/// This CPU's histograms but those of operations' durations.
pub struct Distributions(*mut Sizes);

impl Distributions {
    /// `None` never happens, as in [`Counters::get`].
    #[inline(always)]
    pub fn get() -> Option<Self> {
        own(&SIZES, 0).map(Self)
    }

    /// Puts a value into a histogram.
    #[inline(always)]
    pub fn observe(&self, histogram: Histogram, value: u64) {
        let place = histogram as usize - Histogram::DURATIONS;
        put(self.0.cast::<u64>().wrapping_add(place * SLOTS), value);
    }
}

/// Puts a value into a histogram.
#[inline(always)]
pub fn observe(histogram: Histogram, value: u64) {
    if let Some(distributions) = Distributions::get() {
        distributions.observe(histogram, value);
    }
}

#[inline(always)]
fn put(slots: *mut u64, value: u64) {
    put_into(slots, histogram::index(value), value);
}

#[inline(always)]
fn put_into(slots: *mut u64, bucket: usize, value: u64) {
    add(slots.wrapping_add(bucket & (SLOTS - 1)), 1);
    add(slots.wrapping_add(SUM), value);
}

/// What is counted where a session asks, by [`Detail`], and the histograms of waits.
#[btf_map]
pub static DETAILS: OfCpus<[u64; detail::SLOTS], 1> = Array::new();

/// This CPU's [`DETAILS`].
pub struct Details(*mut u64);

impl Details {
    /// `None` never happens, as in [`Counters::get`].
    #[inline(always)]
    pub fn get() -> Option<Self> {
        own(&DETAILS, 0).map(|slots| Self(slots.cast()))
    }

    #[inline(always)]
    pub fn add(&self, detail: Detail, value: u64) {
        add(self.0.wrapping_add(detail as usize & (Detail::COUNTERS - 1)), value);
    }

    /// Puts a wait into the histogram of its side.
    #[inline(always)]
    pub fn wait(&self, write: bool, nanoseconds: u64) {
        if write {
            put(self.0.wrapping_add(detail::WRITE_WAITS), nanoseconds);
        } else {
            put(self.0.wrapping_add(detail::READ_WAITS), nanoseconds);
        }
    }
}
