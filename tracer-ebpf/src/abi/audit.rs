//! The audit of who pins user pages: what its programs count, and the rules that the calls are held against.

use crate::policy::Traits;

/// The functions by which kernel code takes hold of user pages (`mm/gup.c`), as far as some kernel since 5.10 has them.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gup {
    /// `pin_user_pages`.
    Pin = 0,
    /// `pin_user_pages_fast`.
    PinFast = 1,
    /// `pin_user_pages_remote`.
    PinRemote = 2,
    /// `pin_user_pages_unlocked`.
    PinUnlocked = 3,
    /// `pin_user_pages_locked` (5.x).
    PinLocked = 4,
    /// `pin_user_pages_fast_only` (to 6.1).
    PinFastOnly = 5,
    /// `get_user_pages`.
    Get = 6,
    /// `get_user_pages_fast`.
    GetFast = 7,
    /// `get_user_pages_remote`.
    GetRemote = 8,
    /// `get_user_pages_unlocked`; before 6.2 also what others of these functions call.
    GetUnlocked = 9,
    /// `get_user_pages_locked` (5.x).
    GetLocked = 10,
    /// `get_user_pages_fast_only`.
    GetFastOnly = 11,
}

impl Gup {
    /// How many there are.
    pub const COUNT: usize = 12;

    /// Every function, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Pin,
        Self::PinFast,
        Self::PinRemote,
        Self::PinUnlocked,
        Self::PinLocked,
        Self::PinFastOnly,
        Self::Get,
        Self::GetFast,
        Self::GetRemote,
        Self::GetUnlocked,
        Self::GetLocked,
        Self::GetFastOnly,
    ];

    /// The kernel's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin_user_pages",
            Self::PinFast => "pin_user_pages_fast",
            Self::PinRemote => "pin_user_pages_remote",
            Self::PinUnlocked => "pin_user_pages_unlocked",
            Self::PinLocked => "pin_user_pages_locked",
            Self::PinFastOnly => "pin_user_pages_fast_only",
            Self::Get => "get_user_pages",
            Self::GetFast => "get_user_pages_fast",
            Self::GetRemote => "get_user_pages_remote",
            Self::GetUnlocked => "get_user_pages_unlocked",
            Self::GetLocked => "get_user_pages_locked",
            Self::GetFastOnly => "get_user_pages_fast_only",
        }
    }

    /// Whether it pins (`FOLL_PIN`), or takes a plain reference.
    pub const fn pins(self) -> bool {
        (self as u8) < Self::Get as u8
    }

    /// Whether its pages may be another process's.
    pub const fn is_remote(self) -> bool {
        matches!(self, Self::PinRemote | Self::GetRemote)
    }

    /// The function with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// The flags that calls are told apart by, at places of their own: the kernel moved its own in 6.3.
pub mod flag {
    /// `FOLL_WRITE`.
    pub const WRITE: u8 = 1 << 0;
    /// `FOLL_LONGTERM`.
    pub const LONGTERM: u8 = 1 << 1;
    /// `FOLL_FORCE`.
    pub const FORCE: u8 = 1 << 2;
    /// More than one backing lies in the range; [`super::AuditKey::kind`] is the first.
    pub const MIXED: u8 = 1 << 7;
}

/// What is known of the memory behind a call.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RangeCoverage {
    /// Nothing: this kernel's VMAs cannot be walked, or the range is none.
    None = 0,
    /// Nothing: the memory is another process's, and `bpf_find_vma` looks into the current task only.
    Remote = 1,
    /// The first VMA is missing: nothing is mapped where the range begins.
    Hole = 2,
    /// A writer held `mmap_lock` for longer than the walk waited.
    Busy = 3,
    /// A part of the range, up to a hole or to where the walk was cut.
    Part = 4,
    /// The whole range.
    Whole = 5,
}

impl RangeCoverage {
    /// The sight with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Remote, Self::Hole, Self::Busy, Self::Part, Self::Whole].get(usize::from(number)).copied()
    }

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "unknown",
            Self::Remote => "remote",
            Self::Hole => "unmapped",
            Self::Busy => "busy",
            Self::Part => "part",
            Self::Whole => "whole",
        }
    }
}

/// What the rules ask of a mapping.
pub mod rule {
    /// A file that is neither shmem nor hugetlb, and not anonymous to GUP: what `can_write_file_mapping`, as it was
    /// proposed in April 2023, refuses to write to.
    pub const FILE: u8 = 1 << 0;
    /// It needs dirty tracking: what `writable_file_mapping_allowed` (since 6.5) refuses to pin for long and write to.
    pub const TRACKED: u8 = 1 << 1;
}

/// The rules that the memory behind a call falls under.
#[inline(always)]
pub const fn rules(traits: Traits) -> u8 {
    let file = if traits.has(Traits::FILE) { rule::FILE } else { 0 };
    let tracked = if traits.has(Traits::TRACKED) { rule::TRACKED } else { 0 };
    file | tracked
}

/// Key of the map `AUDIT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuditKey {
    /// As in [`crate::backing::BackingKey::filesystem`], of the first backing.
    pub filesystem: u64,
    /// `task_struct.comm` of the caller.
    pub comm: [u8; 16],
    /// Place in the map `STACKS`; negative where there was none for it.
    pub stack: i32,
    /// [`crate::backing::Kind`] of the first backing; 0 where `sight` knows none.
    pub kind: u32,
    /// What it returned as a positive errno, 0 for success.
    pub error: u32,
    /// Number of the [`Gup`].
    pub function: u8,
    /// Flags of [`flag`].
    pub flags: u8,
    /// Number of the [`RangeCoverage`].
    pub sight: u8,
    /// Every [`rule`] that some backing of the range falls under.
    pub rules: u8,
}

/// Value of the map `AUDIT`, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditTotals {
    /// Calls that returned.
    pub calls: u64,
    /// Pages asked for.
    pub asked: u64,
    /// Pages got.
    pub got: u64,
    /// Nanoseconds from entry to return, without pinscope's work at the entry.
    pub time_ns: u64,
    /// VMAs that the walks saw.
    pub vmas: u64,
    /// Nanoseconds of pinscope's work at the entry: the walk and the stack.
    pub own_ns: u64,
}

/// A call under way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AuditCall {
    /// When pinscope's work at the entry was done.
    pub start_ns: u64,
    /// Nanoseconds of that work.
    pub own_ns: u64,
    /// Address of the first page.
    pub first: u64,
    /// Pages asked for.
    pub asked: u64,
    /// What it is counted under.
    pub key: AuditKey,
}

/// What is counted apart from the calls themselves.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditCounter {
    /// Calls to be listed whose entry was seen.
    Entries = 0,
    /// Those whose return was seen.
    Returns = 1,
    /// Those whose return was not seen: the task came by with another call.
    MissedReturns = 2,
    /// Returns of pins whose entry was not seen.
    MissedEntries = 3,
    /// `get_user_pages` and its kin with neither `FOLL_WRITE` nor `FOLL_LONGTERM`: counted, not listed.
    ReadOnly = 4,
    /// Calls lost since there was no memory for the task's frame.
    LostFrames = 5,
    /// Stacks lost: the map is full, or the place is another stack's.
    LostStacks = 6,
    /// Calls lost since the map `AUDIT` is full.
    LostRows = 7,
}

impl AuditCounter {
    /// Size of the counters; a power of two.
    pub const SLOTS: usize = 8;
}

/// Calls told apart by their key.
pub const ROWS: u32 = 4096;

/// Places for stacks, each of [`STACK_DEPTH`] words; many more than there are, so that few share one.
pub const STACKS: u32 = 16_384;

/// Functions of a stack: twice what lies between a system call and GUP on a plain filesystem.
pub const STACK_DEPTH: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back() {
        for gup in Gup::ALL {
            assert_eq!(Gup::from_number(gup as u8), Some(gup));
            assert_eq!(gup.pins(), gup.name().starts_with("pin_"));
            assert_eq!(gup.is_remote(), gup.name().ends_with("_remote"));
        }
        assert_eq!(Gup::from_number(12), None);
        assert_eq!((RangeCoverage::from_number(5), RangeCoverage::from_number(6)), (Some(RangeCoverage::Whole), None));
        assert_eq!(size_of::<AuditKey>(), 40);
    }

    #[test]
    fn files_and_what_is_tracked_fall_under_a_rule() {
        assert_eq!(rules(Traits::default()), 0);
        assert_eq!(rules(Traits::UNPINNABLE.with(Traits::FOREIGN).with(Traits::SEVERAL_SOURCES)), 0);
        assert_eq!(rules(Traits::FILE), rule::FILE);
        assert_eq!(rules(Traits::FILE.with(Traits::TRACKED)), rule::FILE | rule::TRACKED);
    }
}
