//! What became of the exports, counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// What became of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver took all of it.
    Accepted,
    /// The receiver took it, less some points.
    Partial,
    /// The receiver refused it for good.
    Refused,
    /// Not taken until the next one was due, or until the end.
    Abandoned,
    /// The figures could not be read.
    Unread,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Partial, Self::Refused, Self::Abandoned, Self::Unread];

    /// As the metric's label has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
            Self::Unread => "unread",
        }
    }
}

/// Counts since the daemon started, shared between what sends and what serves metrics.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    retries: AtomicU64,
    rejected_points: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, outcome: Outcome) {
        self.0.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn retry(&self) {
        self.0.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn reject(&self, points: u64) {
        self.0.rejected_points.fetch_add(points, Relaxed);
    }

    /// Exports that ended so.
    pub fn exports(&self, outcome: Outcome) -> u64 {
        self.0.outcomes[outcome as usize].load(Relaxed)
    }

    /// Requests that were sent again.
    pub fn retries(&self) -> u64 {
        self.0.retries.load(Relaxed)
    }

    /// Points that a receiver left out of an export that it took.
    pub fn rejected_points(&self) -> u64 {
        self.0.rejected_points.load(Relaxed)
    }

    fn values(&self) -> ([u64; Outcome::ALL.len()], u64, u64) {
        (Outcome::ALL.map(|outcome| self.exports(outcome)), self.retries(), self.rejected_points())
    }
}

impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

impl Eq for Counts {}
