//! Pure folds of samples into an immutable snapshot.

pub mod audit;
mod books;
mod delta;
mod distribution;
mod fold;
mod snapshot;

pub use books::{Books, OperationBooks, PartBooks};
pub use distribution::Distribution;
pub use fold::{fold, fold_between};
pub use snapshot::{
    Backing, Faults, Losses, Operation, Outcome, Process, ResultCount, Skipped, Snapshot, Split, Unregisters, Walks,
};

#[cfg(test)]
pub(crate) mod tests;
