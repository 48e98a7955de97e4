//! Runs of programs that the kernel skipped.
//!
//! A tracing program does not run while it is running already on the same CPU: a task that preempts another inside the
//! program gets none, and nothing in the program can tell. The kernel counts such runs for each program since 5.12
//! (`recursion_misses`; of kprobes and classic tracepoints since 6.7), and shows the count in the fdinfo of the
//! program's descriptor.

use std::{collections::BTreeMap, os::fd::BorrowedFd};

use super::fdinfo;

/// Those of the program that counts every call.
pub fn uncounted(skipped: &BTreeMap<String, u64>) -> u64 {
    of(skipped, &["ledger"])
}

/// Those of the programs whose names begin so.
pub fn of(skipped: &BTreeMap<String, u64>, programs: &[&str]) -> u64 {
    let of = skipped.iter().filter(|(name, _)| programs.iter().any(|program| name.starts_with(program)));
    of.fold(0, |sum, (_, runs)| sum.saturating_add(*runs))
}

/// Skipped runs by program, for those of which the kernel tells.
pub fn read<'a>(programs: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>) -> BTreeMap<String, u64> {
    let told = programs.filter_map(|(name, fd)| Some((name.to_owned(), fdinfo::count(fd, "recursion_misses")?)));
    told.collect()
}
