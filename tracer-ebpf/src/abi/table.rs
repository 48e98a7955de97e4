//! What is registered now: the rings with a table of buffers, and what is in a table.

/// Rings with a table that are followed at a time.
pub const TABLES: usize = 16384;

/// Value of the map `TABLES`, by address of the `io_ring_ctx`: a ring that has a table of buffers. What is in it is read
/// from the kernel's own when somebody asks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// When it was made or found: `bpf_ktime_get_ns`.
    pub made_ns: u64,
    /// Address of the kernel's array of slots. Another one there means that this table's end was missed.
    pub slots: u64,
    /// Its `mm_struct`: the addresses of the buffers are in it.
    pub mm: u64,
    /// The kernel's id of the cgroup of whoever made it; 0 where that is not told.
    pub cgroup: u64,
    /// Changes of its slots since.
    pub changes: u32,
    /// Not 0 while one is under way.
    pub changing: u32,
    /// Not 0 for one that the kernel let go during the search: a late finder is not to put it here again.
    pub gone: u32,
    /// Not 0 where a task put something into it whose memory is not that of the ring's maker.
    pub others: u32,
}

/// The one value of the map `FOLLOWED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Tables that found no room in the map, since the start.
    pub lost: u64,
    /// Removals of entries from the map that began.
    pub removing: u64,
    /// Those that ended.
    pub removed: u64,
}

/// Slots that are listed at a time; a power of two, so that a masked index is inside.
pub const SLOTS_AT_ONCE: usize = 1024;

/// One buffer of a table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// User address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// The kernel's `struct page` of the first of its pages: which memory was at that address.
    pub page: u64,
}

/// The one value of the map `LISTED`: buffers of a part of a table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Slots of the whole table.
    pub slots: u64,
    /// Buffers in this part.
    pub buffers: u64,
    /// They.
    pub ranges: [Range; SLOTS_AT_ONCE],
}

/// What the program that lists a table says.
pub mod listed {
    /// `LISTED` holds the part that was asked for.
    pub const WHOLE: u32 = 0;
    /// The table is not there, or no longer.
    pub const GONE: u32 = 1;
    /// It changed meanwhile.
    pub const CHANGED: u32 = 2;
    /// Kernel memory could not be read.
    pub const UNREADABLE: u32 = 3;
}
