//! Every map, and the one read-only global.
//!
//! What is counted goes to per-CPU maps, and there by an atomic add: a program on a trampoline runs with migration
//! off but may be preempted, and the task that comes next on the same CPU may run the same program. A plain
//! load-add-store would lose its count; `lock add` on the CPU's own line does not, and costs one instruction.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_xadd},
};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    macros::btf_map,
};
use tracer_ebpf::{
    backing::{BackingKey, BackingTotals, Kind},
    counter::{self, Counter, ERRNO_SLOTS},
    histogram::{self, Histogram, SLOTS, SUM},
    operation::Operation,
    record::{Frame, ProcessKey, ProcessTotals, Ring},
    settings::Settings,
};

/// Offsets, features and session, set by user space before the load.
#[unsafe(no_mangle)]
pub static SETTINGS: Global<Settings> = Global::new(Settings::ZERO);

/// Reads one field of [`SETTINGS`]; the verifier sees a constant.
macro_rules! setting {
    ($($field:ident).+) => {
        // SAFETY: the global is transparent over its value, which is plain data that is always initialised.
        // Volatile, since user space sets it after the compiler has seen the zeros.
        unsafe {
            ::core::ptr::read_volatile(
                &raw const (*(&raw const $crate::maps::SETTINGS).cast::<::tracer_ebpf::settings::Settings>()).$($field).+,
            )
        }
    };
}
pub(crate) use setting;

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

/// A frame of zeros, from which one is made in the hash map: it is too large for a program's stack.
#[btf_map]
pub static BLANK: Array<Frame, 1> = Array::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<[u64; Counter::SLOTS], 1> = PerCpuArray::new();

#[btf_map]
pub static RESULTS: PerCpuArray<[u64; ERRNO_SLOTS], { Operation::COUNT }> = PerCpuArray::new();

#[btf_map]
pub static HISTOGRAMS: PerCpuArray<[u64; SLOTS], { Histogram::COUNT }> = PerCpuArray::new();

/// Backings without a filesystem's name, by their kind.
#[btf_map]
pub static KINDS: PerCpuArray<[BackingTotals; Kind::COUNT as usize], 1> = PerCpuArray::new();

/// Those with one.
#[btf_map]
pub static BACKINGS: PerCpuHashMap<BackingKey, BackingTotals, 512> = PerCpuHashMap::new();

/// Names of filesystems, by the address of their `file_system_type`.
#[btf_map]
pub static FILESYSTEMS: HashMap<u64, [u8; 16], 128> = HashMap::new();

#[btf_map]
pub static PROCESSES: HashMap<ProcessKey, ProcessTotals, 16384> = HashMap::new();

#[btf_map]
pub static RINGS: LruHashMap<u64, Ring, 16384> = LruHashMap::new();

/// Thread groups that descend from the traced command.
#[btf_map]
pub static DESCENDANTS: HashMap<u32, u8, 65536> = HashMap::new();

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

/// This CPU's counters.
pub struct Counters(*mut [u64; Counter::SLOTS]);

impl Counters {
    /// `None` never happens for an array's first entry; the verifier wants it asked.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        COUNTERS.get_ptr_mut(0).map(Self)
    }

    #[inline(always)]
    pub fn add(&self, counter: Counter, value: u64) {
        self.add_slot(counter as usize, value);
    }

    #[inline(always)]
    pub fn add_of(&self, counter: Counter, operation: Operation, value: u64) {
        self.add_slot(counter.of(operation), value);
    }

    #[inline(always)]
    fn add_slot(&self, slot: usize, value: u64) {
        add(self.0.cast::<u64>().wrapping_add(slot & (Counter::SLOTS - 1)), value);
    }
}

/// Counts one event.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(counters) = Counters::get() {
        counters.add(counter, 1);
    }
}

/// Puts a value into the histogram with this number.
///
/// `scratch` is a word of the task's frame. The bucket goes through it, so that the verifier forgets by which of the
/// 64 ways it was found: else it follows each of them to the program's end.
#[inline(always)]
pub fn observe(scratch: &mut u64, histogram: u32, value: u64) {
    if let Some(slots) = HISTOGRAMS.get_ptr_mut(histogram) {
        let slots = slots.cast::<u64>();
        let scratch = core::ptr::from_mut(scratch);
        // SAFETY: a word of the frame, borrowed mutably; volatile so that it is not kept in a register.
        let bucket = unsafe {
            scratch.write_volatile(histogram::index(value) as u64);
            scratch.read_volatile() as usize
        };
        add(slots.wrapping_add(bucket & (SLOTS - 1)), 1);
        add(slots.wrapping_add(SUM), value);
    }
}

/// Counts one result of an operation.
#[inline(always)]
pub fn count_result(operation: Operation, ret: i64) {
    if let Some(slots) = RESULTS.get_ptr_mut(operation as u32) {
        add(slots.cast::<u64>().wrapping_add(counter::errno_slot(ret)), 1);
    }
}
