//! Pure folds of samples into an immutable snapshot.

pub mod audit;
mod books;
mod calls;
mod coverage;
mod delta;
mod detail;
mod distribution;
mod evidence;
pub mod fields;
mod fold;
mod gather;
pub mod registered;
mod snapshot;
pub mod workloads;

pub use books::{Books, OperationBooks, PartBooks};
pub use calls::{CallTimes, LONG_NS, LongCall, SeenFrom, UnderWay};
pub use coverage::{Coverage, Measured};
pub use detail::{LockSide, Locks, Part, Phases, SlowPins};
pub use distribution::Distribution;
pub use evidence::{
    ByRequests, CostCell, Installations, Judged, Judgements, Kinds, Largest, Ring, Rings, SharedBufferFile,
};
pub use fold::{fold, fold_between};
pub use snapshot::{
    Backing, Faults, Habits, Losses, Operation, Outcome, Process, ResultCount, Skipped, Snapshot, Split, Unregisters,
    Walks,
};

#[cfg(test)]
pub(crate) use snapshot::tests::everything as snapshot_of_everything;
#[cfg(test)]
pub(crate) mod tests;
