//! What is registered at one moment.

use std::{
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
    /// Its buffers; `None` where they are not known.
    pub buffers: Option<&'a [Range]>,
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
    /// Whether there may be more than the sums say.
    pub const fn is_lower_bound(&self) -> bool {
        !self.from_before || self.lost > 0 || self.unknown_rings > 0
    }
}
