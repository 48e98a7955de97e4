//! The records that go through the ring buffer, and the state from which they grow.
//!
//! A task's [`Frame`] holds the two records it is filling, so that emitting one is a single copy.

use crate::{
    audit::AuditCall,
    backing::{BackingSlice, Kind},
    policy::Traits,
};

/// Backings told apart in one buffer.
pub const BACKING_SLICES: usize = 8;

/// Distinct `vm_file`s told apart in one buffer, and in one registration.
pub const FILES: usize = 16;

/// How the walk over a buffer's VMAs ended.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "json", derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema))]
#[cfg_attr(feature = "json", serde(rename_all = "snake_case"))]
pub enum Walk {
    /// Not walked: `vmas`, `files` and backings are unknown.
    None = 0,
    /// To the end of the range: exact.
    Complete = 1,
    /// Up to a hole in the range, where the kernel stops as well: exact up to there.
    Hole = 2,
    /// Cut short since a writer held `mmap_lock`: a lower bound.
    Busy = 3,
    /// Cut short at more VMAs than any process can have: a lower bound.
    Cut = 4,
}

impl Walk {
    /// The walk with this number, if there is one.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Complete),
            2 => Some(Self::Hole),
            3 => Some(Self::Busy),
            4 => Some(Self::Cut),
            _ => None,
        }
    }

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Complete => "complete",
            Self::Hole => "hole",
            Self::Busy => "busy",
            Self::Cut => "cut",
        }
    }
}

/// [`Header::kind`] of a [`RegistrationRecord`].
pub const KIND_REGISTRATION: u32 = 1;
/// [`Header::kind`] of a [`BufferRecord`].
pub const KIND_BUFFER: u32 = 2;

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`KIND_REGISTRATION`] or [`KIND_BUFFER`].
    pub kind: u32,
    /// The thread. With `start_ns` it names the registration.
    pub tid: u32,
    /// When the registration's function was entered, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
}

/// Flags of a [`RegistrationRecord`].
pub mod flag {
    /// The return was not seen (a kretprobe ran out of instances): the end is the tracepoint's.
    pub const RETURN_MISSED: u32 = 1 << 0;
    /// More distinct files (inodes) than [`super::FILES`].
    pub const FILES_CAPPED: u32 = 1 << 1;
    /// Some buffer's walk was not whole: `vmas` is a lower bound.
    pub const VMAS_PARTIAL: u32 = 1 << 2;
    /// More distinct backings than [`super::BACKING_SLICES`]: the others are in no slice.
    pub const BACKINGS_CAPPED: u32 = 1 << 3;
    /// No entry was seen: refused before the function was reached. Only operation, result and process are known.
    pub const REFUSED_EARLY: u32 = 1 << 4;
    /// `ring_created_ns` and `ring_fd` are known.
    pub const RING_KNOWN: u32 = 1 << 5;
    /// No entry was seen though it succeeded: only operation, result and process are known.
    pub const ENTRY_MISSED: u32 = 1 << 6;
    /// The pin was entered and returned (in some buffer).
    pub const PINNED: u32 = 1 << 7;
    /// The duration is known: entry and end were seen.
    pub const TIMED: u32 = 1 << 8;
    /// A pin's or a buffer's return was not seen: times of parts are unknown.
    pub const PARTS_MISSED: u32 = 1 << 9;
    /// The ring had been given requests when the registration began.
    pub const RING_USED: u32 = 1 << 10;
    /// An update that installed some of its buffers and not all: it stopped at the one after those.
    pub const PARTIAL: u32 = 1 << 11;
    /// More distinct `vm_file`s than [`super::FILES`].
    pub const VM_FILES_CAPPED: u32 = 1 << 12;
    /// Buffers came back to VMAs that may have been counted: `vmas` is an upper bound.
    pub const VMAS_REPEATED: u32 = 1 << 13;
    /// Some pinned memory was of huge pages of hugetlb (or it is not known whether), on a kernel whose pin brings those in
    /// without a page fault: `minor_faults` and `major_faults` lack them.
    pub const FAULTS_UNTOLD: u32 = 1 << 14;
    /// `call_ns` and `wait_ns` are known.
    pub const CALL_TIMED: u32 = 1 << 15;
}

/// In a process's or thread's number: its task is in no PID namespace that pinscope sees, and the rest is its number in the
/// initial one.
pub const ELSEWHERE: u32 = 1 << 31;

/// One registration, as it ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrationRecord {
    /// Kind, thread, start.
    pub header: Header,
    /// Nanoseconds from entry to return, pinscope's own walks left out.
    pub duration_ns: u64,
    /// Nanoseconds of all pins.
    pub pin_ns: u64,
    /// Nanoseconds of pinscope's own walks.
    pub walk_ns: u64,
    /// Address of the ring's `io_ring_ctx`: an identity, not shown to users.
    pub ring: u64,
    /// When the ring was made, `CLOCK_MONOTONIC` nanoseconds.
    pub ring_created_ns: u64,
    /// Sum of the buffers' lengths: bytes asked for.
    pub bytes: u64,
    /// Bytes of the buffers that are registered when the call returns.
    pub registered: u64,
    /// Bytes asked for and not registered, at most what any kernel takes in one buffer.
    pub refused: u64,
    /// VMAs that the walks saw.
    pub vmas: u64,
    /// Look-ups of a VMA inside the pins.
    pub lookups: u64,
    /// `task_struct.min_flt` over the pins.
    pub minor_faults: u64,
    /// `task_struct.maj_flt` over the pins.
    pub major_faults: u64,
    /// Kernel's id of the task's cgroup (v2).
    pub cgroup: u64,
    /// Return value: an errno when negative; the number done for an update.
    pub ret: i64,
    /// Thread group.
    pub pid: u32,
    /// Real user.
    pub uid: u32,
    /// Flags of [`flag`].
    pub flags: u32,
    /// Buffers that reached the per-buffer function.
    pub buffers: u32,
    /// Buffers asked for: `nr_args` of `io_sqe_buffers_register`, `nr` of an update's argument; `u32::MAX` where that
    /// cannot be told.
    pub requested: u32,
    /// Buffers that failed.
    pub failed_buffers: u32,
    /// Distinct `vm_file`s: a file that is opened twice is two.
    pub vm_files: u32,
    /// fd that `io_uring_setup` gave the ring.
    pub ring_fd: i32,
    /// `IORING_SETUP_*` flags of the ring.
    pub ring_flags: u32,
    /// Number of the [`crate::operation::Operation`].
    pub operation: u8,
    /// Distinct files (inodes).
    pub files: u8,
    /// Always 0.
    pub reserved: [u8; 2],
    /// `task_struct.comm`.
    pub comm: [u8; 16],
    /// Nanoseconds of waits for `mmap_lock`, where the session watches it.
    pub lock_wait_ns: u64,
    /// Nanoseconds in the page fault handler inside the pins, where the session asks for phases.
    pub fault_ns: u64,
    /// Nanoseconds in look-ups of a VMA inside the pins, likewise.
    pub lookup_ns: u64,
    /// Nanoseconds in the accounting function, likewise.
    pub accounting_ns: u64,
    /// Nanoseconds from the system call's entry to the tracepoint at its end, without those of pinscope's own hooks around the
    /// function, and walks.
    pub call_ns: u64,
    /// Nanoseconds of it before the function was entered: the look-up of the ring, and the wait for its lock.
    pub wait_ns: u64,
    /// Acquisitions of `mmap_lock` for reading.
    pub lock_reads: u32,
    /// Acquisitions of `mmap_lock` for writing.
    pub lock_writes: u32,
}

/// One buffer of a registration, as it ended; it comes before its registration's record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BufferRecord {
    /// Kind, thread, start of the registration.
    pub header: Header,
    /// User address (`iovec.iov_base`).
    pub address: u64,
    /// Bytes (`iovec.iov_len`).
    pub length: u64,
    /// Nanoseconds in the per-buffer function, pinscope's own walk left out.
    pub duration_ns: u64,
    /// Nanoseconds in the pin.
    pub pin_ns: u64,
    /// Nanoseconds of pinscope's own walk.
    pub walk_ns: u64,
    /// `task_struct.min_flt` over the pin.
    pub minor_faults: u64,
    /// `task_struct.maj_flt` over the pin.
    pub major_faults: u64,
    /// Position among the buffers of its registration that reached the per-buffer function, from 0.
    pub index: u32,
    /// VMAs that the walk saw.
    pub vmas: u32,
    /// Look-ups of a VMA inside the pin.
    pub lookups: u32,
    /// Distinct `vm_file`s: a file that is opened twice is two.
    pub vm_files: u32,
    /// 0 or a negative errno.
    pub ret: i32,
    /// `io_mapped_ubuf.nr_bvecs`; 0 where unknown.
    pub bvecs: u32,
    /// `io_mapped_ubuf.folio_shift`; 0 where unknown (before 6.12) or not read.
    pub folio_shift: u32,
    /// [`flag::PINNED`], [`flag::FILES_CAPPED`], [`flag::VM_FILES_CAPPED`], [`flag::BACKINGS_CAPPED`],
    /// [`flag::PARTS_MISSED`], [`flag::FAULTS_UNTOLD`].
    pub flags: u32,
    /// What the policies look at.
    pub traits: Traits,
    /// Number of the [`Walk`].
    pub walk: u8,
    /// Distinct files (inodes).
    pub files: u8,
    /// Always 0.
    pub reserved: [u8; 2],
    /// The backings; a slice with no VMAs is unused.
    pub backings: [BackingSlice; BACKING_SLICES],
}

/// What is told apart in the accepted buffers of one call, by backing and by what the rules look at.
pub const DEFERRED: usize = 8;

/// Accepted buffers of a call that are counted under one key once it is known whether they stay: the kernel lets go of all
/// buffers of a register that it refuses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Deferred {
    /// As in [`crate::backing::BackingKey::filesystem`].
    pub filesystem: u64,
    /// Bytes.
    pub bytes: u64,
    /// VMAs (of a backing).
    pub vmas: u64,
    /// Buffers; 0 marks an unused one.
    pub buffers: u32,
    /// Class, sharing, writability.
    pub kind: Kind,
    /// What the rules look at (of a judgement).
    pub traits: Traits,
    /// Always 0.
    pub reserved: u32,
}

/// How far a task is in its registration.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing under way.
    Idle = 0,
    /// In the registration's function.
    Registration = 1,
    /// In the per-buffer function.
    Buffer = 2,
    /// In the pin.
    Pin = 3,
    /// The registration's function returned; the tracepoint has yet to fire.
    Returned = 4,
}

/// Where a walk over VMAs stands. In a map and not on the stack: the verifier follows every value of the stack, and
/// the ways through a walk are too many for that.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Walker {
    /// Where the next VMA is looked for.
    pub address: u64,
    /// First byte behind the range.
    pub end: u64,
    /// End of the first VMA, which no other VMA of the process has.
    pub first_end: u64,
    /// VMAs seen before the present backing.
    pub slice_first: u64,
    /// Where the present backing began.
    pub slice_start: u64,
    /// Filesystem of the present backing.
    pub filesystem: u64,
    /// Kind of the present backing.
    pub kind: u64,
    /// Kind of the VMA that was found last.
    pub found: u64,
    /// The last file seen.
    pub file: u64,
    /// Look-ups that found `mmap_lock` taken.
    pub retries: u64,
    /// Those of them after which nothing more was known.
    pub vain: u64,
}

/// Slots of a ring's table that a call is about. In a map, as the [`Walker`] is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Address of the table.
    pub slots: u64,
    /// How many it has.
    pub held: u64,
    /// The first that is asked for.
    pub first: u64,
    /// How many are; 0 for all from the first on.
    pub count: u64,
    /// 1 when nothing more is to be looked at.
    pub done: u64,
}

/// Words of a node of the tree of VMAs.
pub const NODE_WORDS: usize = 32;

/// A VMA as it was read without a lock. Words only, so that two of them are compared one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sighted {
    /// Its address; 0 for a hole.
    pub vma: u64,
    /// Its range, or the hole's, as the tree has it: from the first byte to the last.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// `vm_start`.
    pub start: u64,
    /// `vm_end`.
    pub end: u64,
    /// `vm_mm`.
    pub mm: u64,
    /// `vm_file`.
    pub file: u64,
    /// As in [`BackingSlice::filesystem`].
    pub filesystem: u64,
    /// [`Kind`].
    pub kind: u64,
}

impl Sighted {
    /// How many words it is.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();
}

/// What a look into the tree of VMAs came to.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The tree was being changed, or is not laid out as expected.
    Unsure = 0,
    /// There is a VMA.
    Found = 1,
    /// There is none.
    Hole = 2,
}

/// A look into the tree of VMAs, while a writer holds `mmap_lock`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Number of the [`Look`].
    pub look: u64,
    /// Whether the last way down came to its end.
    pub whole: u64,
    /// The node, or at last the VMA, that the way down has come to.
    pub entry: u64,
    /// Its slot in the node above it.
    pub slot: u64,
    /// What was seen last, and before it.
    pub seen: Sighted,
    /// See `seen`.
    pub before: Sighted,
    /// The node that is being looked at.
    pub node: [u64; NODE_WORDS],
}

/// What is counted over a registration's buffers. Aligned so that it can be cleared two numbers at a time.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// VMAs that the walks saw, buffer by buffer.
    pub vmas: u64,
    /// Bytes of the buffers that were accepted so far.
    pub bytes: u64,
    /// Whether `buffer` is yet to be folded (see `Features::pin_is_buffer`).
    pub deferred: u32,
    /// Returns of the per-buffer function seen.
    pub buffer_returns: u32,
    /// Pins entered.
    pub pins: u32,
    /// Returns of the pin seen.
    pub pin_returns: u32,
    /// Buffers with more than one file.
    pub multi_file: u32,
    /// Buffers with more than one `vm_file`.
    pub multi_vm_file: u32,
    /// Buffers with more files or backings than fit.
    pub short: u32,
    /// Buffers walked to their end that lie in one VMA.
    pub single_vma: u32,
    /// Buffers walked to their end that lie in several.
    pub several_vmas: u32,
    /// Buffers not walked to their end by the number of their [`Walk`]; a power of two, so that a masked index is inside.
    pub partial: [u32; 8],
    /// Accepted buffers without a trait that a rule looks at.
    pub clean: u32,
    /// Accepted buffers that found no place among [`Frame::backings`] or [`Frame::judged`]: counted as if they stayed.
    pub undeferred: u32,
}

/// What is timed inside a registration where a session asks. A time of 0 stands for nothing under way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When `mmap_lock` was asked for.
    pub lock_ns: u64,
    /// When the page fault handler was entered.
    pub fault_ns: u64,
    /// When the look-up was entered.
    pub lookup_ns: u64,
    /// When the accounting function was entered.
    pub accounting_ns: u64,
    /// Look-ups before the present pin.
    pub lookups_before: u64,
    /// Nanoseconds of the pins that took the slow path.
    pub slow_ns: u64,
    /// Pins that took the slow path.
    pub slow_pins: u32,
    /// Calls of the page fault handler.
    pub faults: u32,
    /// Look-ups that were timed.
    pub lookups: u32,
    /// Calls of the accounting function.
    pub accountings: u32,
    /// Entries or returns of these that were not seen.
    pub missed: u32,
    /// Always 0.
    pub reserved: u32,
}

/// See [`Frame::empty_slots`].
pub const NONE_HELD: u32 = u32::MAX;
/// See [`Frame::empty_slots`].
pub const HELD_UNTOLD: u32 = u32::MAX - 1;

/// A task's registration under way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Number of the [`Stage`].
    pub stage: u32,
    /// 1 while pinscope's own walk takes `mmap_lock`, where the session watches the lock.
    pub walking: u32,
    /// Second argument of the registration's function, an address in the task's memory: a register's iovecs, or an update's
    /// `struct io_uring_rsrc_update2`.
    pub request: u64,
    /// What is counted over the buffers.
    pub counts: Counts,
    /// Bucket of the duration. It is stored here and read back, so that the verifier does not track its value.
    pub bucket: u64,
    /// When the registration's function returned.
    pub end_ns: u64,
    /// When the buffer's walk ended (the buffer's time begins there).
    pub buffer_ns: u64,
    /// When the pin was entered.
    pub pin_ns: u64,
    /// `task_struct.min_flt` when the pin was entered.
    pub minor_faults: u64,
    /// `task_struct.maj_flt` when the pin was entered.
    pub major_faults: u64,
    /// `pimu` of `io_sqe_buffer_register` (to 6.12): where the buffer's `io_mapped_ubuf` will stand.
    pub imu_slot: u64,
    /// End of the buffer before this one in the same call; 0 at first.
    pub last_end: u64,
    /// End of the VMA in which the walk before this one in the same call ended; 0 at first.
    pub last_vma_end: u64,
    /// The least and the greatest end of a VMA that the call's walks saw. An end is no other VMA's.
    pub seen_from: u64,
    /// Likewise.
    pub seen_to: u64,
    /// 1 where VMAs between those two were not seen.
    pub seen_with_gaps: u64,
    /// Distinct `vm_file`s of the registration before this buffer, and in the upper half its files.
    pub files_before: u64,
    /// How many slots before the first that held a buffer when an update or a clone began: [`NONE_HELD`] where none did,
    /// [`HELD_UNTOLD`] where that is not known.
    pub empty_slots: u32,
    /// 1 while a call is under way that began before calls were counted.
    pub early: u32,
    /// The slots that an update or a clone asks for, while they are looked at.
    pub asked: Asked,
    /// When the system call was entered; 0 where that was not seen, or the function was entered since.
    pub call_ns: u64,
    /// When the hook at the return of the registration's function had done its work.
    pub left_ns: u64,
    /// What stands in the call's place among those under way: a [`crate::under_way::Call`].
    pub call: u64,
    /// One more than that place; 0 for none.
    pub place: u32,
    /// The same of the last that the task had.
    pub last_place: u32,
    /// Digest of the ranges of the call's buffers.
    pub ranges: u64,
    /// What the call's buffers add to their process.
    pub habits: Habits,
    /// Accepted buffers by backing, until the call ends; the first unused one ends them.
    pub backings: [Deferred; DEFERRED],
    /// Accepted buffers with traits, likewise.
    pub judged: [Deferred; DEFERRED],
    /// The walk over the buffer's VMAs.
    pub walker: Walker,
    /// Its looks past a lock that is taken.
    pub tree: Tree,
    /// The registration.
    pub registration: RegistrationRecord,
    /// The buffer.
    pub buffer: BufferRecord,
    /// Distinct `vm_file`s of the buffer, `buffer.vm_files` of them.
    pub buffer_vm_files: [u64; FILES],
    /// Distinct `vm_file`s of the registration, `registration.vm_files` of them.
    pub registration_vm_files: [u64; FILES],
    /// Inodes of the buffer, `buffer.files` of them.
    pub buffer_inodes: [u64; FILES],
    /// Inodes of the registration, `registration.files` of them.
    pub registration_inodes: [u64; FILES],
    /// What is timed where the session asks.
    pub times: Times,
    /// In an audit's session, which has no registrations: the call that is under way in [`Stage::Pin`].
    pub audit: AuditCall,
}

/// Key of the map `PROCESSES`: one process, and none that had its number before or has it after.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// When it began: `task_struct.start_time` of its leader, which is kept over `execve`. A number is given again only after that.
    pub began_ns: u64,
    /// Thread group.
    pub pid: u32,
    /// Always 0.
    pub reserved: u32,
}

impl ProcessKey {
    /// Where processes are not kept apart.
    pub const ANY: Self = Self { began_ns: 0, pid: 0, reserved: 0 };
}

/// Value of the map `PROCESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTotals {
    /// Registrations, updates and clones.
    pub registrations: u64,
    /// Those that failed.
    pub failed: u64,
    /// Updates that installed some of their buffers and not all.
    pub partial: u64,
    /// Calls of which no entry was seen: in none of what follows.
    pub unmeasured: u64,
    /// Those of them that succeeded: not refused early, but missed.
    pub missed: u64,
    /// Buffers.
    pub buffers: u64,
    /// Bytes registered.
    pub bytes: u64,
    /// Bytes asked for and not registered, as in [`crate::counter::Counter::RefusedBytes`].
    pub refused_bytes: u64,
    /// VMAs.
    pub vmas: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
    /// Nanoseconds in pins.
    pub pin_ns: u64,
    /// What its buffers were like.
    pub habits: Habits,
    /// Digests of the ranges of its last calls with their rings, in no order.
    pub recent: [u64; RECENT],
    /// The same without the rings.
    pub recent_elsewhere: [u64; RECENT],
    /// Kernel's id of the cgroup when it was first seen.
    pub cgroup: u64,
    /// Real user when it was first seen.
    pub uid: u32,
    /// Always 0.
    pub reserved: u32,
    /// `task_struct.comm` when it was first seen.
    pub comm: [u8; 16],
}

/// Calls of a process whose ranges are remembered, to know them again.
pub const RECENT: usize = 4;

/// Bytes from which a buffer counts as large: a huge page.
pub const LARGE: u64 = 2 << 20;
/// Buffers from which a register counts as a long list.
pub const LONG_LIST: u32 = 256;
/// VMAs from which a buffer counts as one of many.
pub const MANY_VMAS: u32 = 8;

/// What a process's accepted buffers were like. Words only, so that they can be added one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Calls that ended with a buffer that was pinned and got `ENOMEM`.
    pub enomem: u64,
    /// `task_struct.min_flt` over the pins.
    pub minor_faults: u64,
    /// `task_struct.maj_flt` over the pins.
    pub major_faults: u64,
    /// Nanoseconds in pins that took a fault.
    pub faulting_pin_ns: u64,
    /// Bytes of the buffers of those.
    pub faulting_bytes: u64,
    /// Buffers of whose pins not all faults are known ([`flag::FAULTS_UNTOLD`]).
    pub untold_faults: u64,
    /// Buffers of [`LARGE`] bytes and more.
    pub large_buffers: u64,
    /// Their bytes.
    pub large_bytes: u64,
    /// Their `io_mapped_ubuf.nr_bvecs`.
    pub large_bvecs: u64,
    /// Buffers that begin where the one before in the call ends.
    pub adjacent_buffers: u64,
    /// Their bytes.
    pub adjacent_bytes: u64,
    /// Registers with [`LONG_LIST`] buffers and more.
    pub long_lists: u64,
    /// Calls with the ranges of one of the last [`RECENT`] on the same ring.
    pub repeated: u64,
    /// Nanoseconds of those.
    pub repeated_ns: u64,
    /// Calls with the ranges of one of the last [`RECENT`] on another ring.
    pub elsewhere: u64,
    /// Nanoseconds of those.
    pub elsewhere_ns: u64,
    /// Buffers of [`MANY_VMAS`] VMAs and more whose pin looked VMAs up.
    pub many_vma_buffers: u64,
    /// Their VMAs.
    pub many_vmas: u64,
    /// The look-ups of their pins.
    pub many_vma_lookups: u64,
    /// Nanoseconds in their pins.
    pub many_vma_pin_ns: u64,
}

impl Habits {
    /// How many words it is.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();
    /// Nothing seen yet.
    // SAFETY: words only, for which all zeros is a value.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// Sums and differences of a struct of words, field by field. Saturating: a sample is read while the kernel counts.
macro_rules! arithmetic {
    ($name:ident: $($field:ident),+ $(,)?) => {
        impl $name {
            /// Both together.
            #[must_use]
            pub const fn plus(&self, other: &Self) -> Self {
                Self { $($field: self.$field.saturating_add(other.$field)),+ }
            }

            /// What is more than `other`, never less than 0.
            #[must_use]
            pub const fn minus(&self, other: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(other.$field)),+ }
            }
        }
    };
}

arithmetic!(
    Habits: enomem, minor_faults, major_faults, faulting_pin_ns, faulting_bytes, untold_faults, large_buffers, large_bytes, large_bvecs,
    adjacent_buffers, adjacent_bytes, long_lists, repeated, repeated_ns, elsewhere,
    elsewhere_ns, many_vma_buffers, many_vmas, many_vma_lookups, many_vma_pin_ns,
);
arithmetic!(Cost: buffers, vmas, bytes, pin_ns, passes, pass_vmas, pass_ns, faults, untold_faults, slow, slow_ns);

impl ProcessTotals {
    /// Nothing counted yet.
    pub const ZERO: Self = Self {
        registrations: 0,
        failed: 0,
        partial: 0,
        unmeasured: 0,
        missed: 0,
        buffers: 0,
        bytes: 0,
        refused_bytes: 0,
        vmas: 0,
        duration_ns: 0,
        pin_ns: 0,
        habits: Habits::ZERO,
        recent: [0; RECENT],
        recent_elsewhere: [0; RECENT],
        cgroup: 0,
        uid: 0,
        reserved: 0,
        comm: [0; 16],
    };
}

/// Value of the map `RINGS`, by address of the `io_ring_ctx`, and of `PAST_RINGS`. An installation is a register, an
/// update or a clone that succeeded and put a buffer into the ring's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// When it was made, `CLOCK_MONOTONIC` nanoseconds; 0 for one that was there before the programs.
    pub created_ns: u64,
    /// The fd that `io_uring_setup` returned.
    pub fd: i32,
    /// `IORING_SETUP_*`.
    pub flags: u32,
    /// Installations.
    pub installations: u64,
    /// Those that were updates.
    pub updates: u64,
    /// Those that were clones into it.
    pub clones: u64,
    /// Those after it had been given requests.
    pub after_requests: u64,
    /// Those that were updates of slots that had never held a buffer.
    pub fills: u64,
    /// Those of them after it had been given requests.
    pub fills_after_requests: u64,
    /// Those after it had been given requests that came in the place of buffers before them.
    pub switches: u64,
    /// Switches that had an installation before them.
    pub switch_gaps: u64,
    /// When the installation before the first switch began; the first switch itself where none was seen.
    pub switches_from_ns: u64,
    /// When the last switch began.
    pub last_switch_ns: u64,
    /// Unregistrations that succeeded.
    pub unregisters: u64,
    /// Registers, updates and clones that failed.
    pub failed: u64,
    /// When the first installation began.
    pub first_ns: u64,
    /// When the last one did.
    pub last_ns: u64,
    /// The shortest time between two; 0 where there are not two.
    pub shortest_gap_ns: u64,
    /// [`ProcessKey::began_ns`] of the process of the first installation.
    pub began_ns: u64,
    /// Its thread group.
    pub pid: u32,
    /// 1 once its fd had an index (`IORING_REGISTER_RING_FDS`, since 5.18), so that the fd itself may be closed.
    pub fd_registered: u32,
    /// 1 while buffers were taken out of it that no installation has replaced yet.
    pub vacated: u32,
    /// Always 0.
    pub reserved: u32,
    /// Its `task_struct.comm`.
    pub comm: [u8; 16],
}

impl Ring {
    /// Nothing known.
    // SAFETY: integers only, for which all zeros is a value.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// Key of the map `PAST_RINGS`: a ring whose `io_ring_ctx` became another's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastRing {
    /// Address of the `io_ring_ctx`.
    pub ring: u64,
    /// When the ring that is there now was made.
    pub until_ns: u64,
}

/// Key of the map `JUDGED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct JudgedKey {
    /// As in [`crate::backing::BackingKey::filesystem`], of the first backing that a rule objects to.
    pub filesystem: u64,
    /// That backing's kind.
    pub kind: Kind,
    /// The buffer's.
    pub traits: Traits,
    /// errno (positive) of the buffer, 0 where it was accepted.
    pub errno: u32,
    /// Thread group; 0 where processes are not kept apart.
    pub pid: u32,
    /// [`ProcessKey::began_ns`]; likewise.
    pub began_ns: u64,
}

impl JudgedKey {
    /// Of a buffer of which nothing but its length is known.
    pub const fn of_length(traits: Traits, errno: u32) -> Self {
        Self { filesystem: 0, kind: Kind::UNKNOWN, traits, errno, pid: 0, began_ns: 0 }
    }
}

/// Value of the map `JUDGED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JudgedTotals {
    /// Buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Octaves of VMAs told apart in [`Cost`]s: 1, 2 to 3, ..., 32,768 and more.
pub const COST_VMAS: usize = 16;
/// Octaves of pages likewise: 1, 2 to 3, ..., 32,768 (128 MiB) and more.
pub const COST_PAGES: usize = 16;

/// Value of the map `COSTS`: accepted buffers by their octave of VMAs (times [`COST_PAGES`]) plus that of pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Buffers.
    pub buffers: u64,
    /// Their VMAs.
    pub vmas: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nanoseconds in their pins.
    pub pin_ns: u64,
    /// Those whose walk did not have to wait for a writer of `mmap_lock`.
    pub passes: u64,
    /// The VMAs of those.
    pub pass_vmas: u64,
    /// Nanoseconds of pinscope's walks over those.
    pub pass_ns: u64,
    /// Minor and major faults in their pins.
    pub faults: u64,
    /// Those of which that is not all ([`flag::FAULTS_UNTOLD`]).
    pub untold_faults: u64,
    /// Buffers whose pin made a VMA look-up.
    pub slow: u64,
    /// Nanoseconds in the pins of those.
    pub slow_ns: u64,
}

/// Value of the map `LARGEST`: the registration, and the buffer, with the most VMAs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Largest {
    /// Its VMAs.
    pub vmas: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Nanoseconds of the registration, or of the buffer's pin.
    pub nanoseconds: u64,
    /// Its buffers.
    pub buffers: u32,
    /// Thread group.
    pub pid: u32,
    /// `task_struct.comm`.
    pub comm: [u8; 16],
    /// [`ProcessKey::began_ns`].
    pub began_ns: u64,
    /// Always 0.
    pub reserved: u64,
}

/// Key of the map `SHARED_FILES`: a file in buffers that span several.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SharedFileKey {
    /// Address of the `super_block`.
    pub superblock: u64,
    /// `inode.i_ino`.
    pub inode: u64,
    /// [`ProcessKey::began_ns`].
    pub began_ns: u64,
    /// Thread group.
    pub pid: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Value of the map `SHARED_FILES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedFile {
    /// Buffers that span it and another.
    pub buffers: u64,
    /// When the last of them began: a buffer may have the file by several `vm_file`s.
    pub last_ns: u64,
    /// Address of the `file_system_type`.
    pub filesystem: u64,
    /// A [`Kind`], of which only the name that the file is found by counts.
    pub kind: u64,
    /// `dentry.d_name`, cut.
    pub name: [u8; 32],
}
