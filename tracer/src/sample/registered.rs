//! What is registered at one moment, and what is kept of a table for it: sums, and the pages under its buffers.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ops::{Add, AddAssign},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::table::Range;

/// The table of one ring.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// What its addresses belong to: the kernel's `mm_struct`.
    pub mm: u64,
    /// The kernel's id of the cgroup of whoever made it.
    pub cgroup: u64,
    /// Whether tasks of other memory than the ring's maker put something into it.
    pub others: bool,
    /// Whether a later reading is to look into it, for want of time.
    pub waits: bool,
    /// What is in it; `None` where that is not known.
    pub content: Option<&'a Content>,
}

/// What is in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their whole pages, by address and each once; `None` where they were let go again, for there were too many.
    pub pages: Option<Box<[Range]>>,
    /// How many ranges of pages that are, or were.
    pub ranges: usize,
}

impl Content {
    /// Of these buffers.
    pub fn of(buffers: &[Range]) -> Self {
        let bytes = buffers.iter().fold(0_u64, |sum, buffer| sum.saturating_add(buffer.length));
        let mut pages: Vec<_> = buffers.iter().map(pages).filter(|range| range.length > 0).collect();
        in_order(&mut pages, |range| *range);
        let pages = joined(&pages);
        Self { buffers: buffers.len() as u64, bytes, ranges: pages.len(), pages: Some(pages.into()) }
    }
}

/// Buffers, and the memory under them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// Buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the pages under them, each page once.
    pub pinned: u64,
}

impl Add for Share {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            buffers: self.buffers.saturating_add(other.buffers),
            bytes: self.bytes.saturating_add(other.bytes),
            pinned: self.pinned.saturating_add(other.pinned),
        }
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// By the kernel's id of the cgroup.
pub type Shares = BTreeMap<u64, Share>;

/// What is registered at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    /// Rings with a table.
    pub rings: u64,
    /// Of these, those of which it is not known what is in it: in none of the sums.
    pub unknown_rings: u64,
    /// Of those, the ones that this reading had no time for: a later one reads them.
    pub unread_rings: u64,
    /// Those whose pages were too many to keep: in the sums but for what is pinned.
    pub unpaged_rings: u64,
    /// Memories at whose addresses there is that of several processes, or was mapped anew, where ranges overlap of which it is
    /// not known whether they are the same: they count once.
    pub mixed_memories: u64,
    /// What the tables hold together.
    pub all: Share,
    /// The same by cgroup.
    pub cgroups: Shares,
    /// Tables that were there when the session began are among them.
    pub from_before: bool,
    /// Tables that found no room.
    pub lost: u64,
}

impl Registered {
    /// Why there may be more than the sums say, and whether it is so.
    pub const fn causes(&self) -> [(&'static str, bool); 6] {
        [
            ("before_start", !self.from_before),
            ("no_room", self.lost > 0),
            ("not_readable", self.unknown_rings > self.unread_rings),
            ("not_read_yet", self.unread_rings > 0),
            ("too_many_pages", self.unpaged_rings > 0),
            ("mixed_memory", self.mixed_memories > 0),
        ]
    }

    /// Whether there may be more than the sums say.
    pub fn is_lower_bound(&self) -> bool {
        self.causes().iter().any(|(_, is_so)| *is_so)
    }
}

/// The whole pages of a buffer.
fn pages(buffer: &Range) -> Range {
    let page = crate::memory::page_size();
    let start = buffer.start / page * page;
    let end = buffer.start.saturating_add(buffer.length).checked_next_multiple_of(page).unwrap_or(u64::MAX);
    Range { start, length: if buffer.length == 0 { 0 } else { end - start }, page: buffer.page }
}

/// Puts pages in order: by address; of those at one address, the same memory together and its longest first.
pub fn in_order<T>(all: &mut [T], of: impl Fn(&T) -> Range) {
    all.sort_unstable_by_key(|one| {
        let Range { start, length, page } = of(one);
        (start, page, Reverse(length))
    });
}

/// The same with those in one that follow each other or overlap, unless there is more than one memory at the address of one.
fn joined(pages: &[Range]) -> Vec<Range> {
    let mut all: Vec<Range> = Vec::new();
    let mut last_is_one = false;
    for same_start in pages.chunk_by(|one, next| one.start == next.start) {
        let is_one = same_start.iter().all(|range| range.page == same_start[0].page);
        match all.last_mut() {
            Some(last) if is_one && last_is_one && same_start[0].start <= end(last) => {
                last.length = end(last).max(end(&same_start[0])) - last.start;
            }
            _ => {
                let memories = same_start.chunk_by(|one, next| one.page == next.page);
                all.extend(memories.map(|memory| memory[0]));
                last_is_one = is_one;
            }
        }
    }
    all
}

/// Where it ends.
pub const fn end(range: &Range) -> u64 {
    range.start.saturating_add(range.length)
}
