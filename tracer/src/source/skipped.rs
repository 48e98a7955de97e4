//! Runs of programs that the kernel skipped.
//!
//! A tracing program does not run while it is running already on the same CPU: a task that preempts another inside the
//! program gets none, and nothing in the program can tell. The kernel counts such runs for each program since 5.12
//! (`recursion_misses`; of kprobes and classic tracepoints since 6.7), and shows the count in the fdinfo of the
//! program's descriptor.

use std::{collections::BTreeMap, os::fd::BorrowedFd};

use crate::bpf::fdinfo;

/// Skipped runs by program, for those of which the kernel tells.
pub fn read<'a>(programs: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>) -> BTreeMap<String, u64> {
    let told = programs.filter_map(|(name, fd)| Some((name.to_owned(), fdinfo::count(fd, "recursion_misses")?)));
    told.collect()
}
