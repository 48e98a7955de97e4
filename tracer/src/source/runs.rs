//! Runs of our programs and the time they took, where the kernel keeps statistics of programs.
//!
//! It does where `kernel.bpf_stats_enabled` is 1 or while anybody holds a descriptor of BPF_ENABLE_STATS. Only the first
//! can be asked for; of the second a count that moves is the sign. Where there is none the counts are not shown: they
//! stand still, and would say that no program runs.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::sys::{Stats, enable_stats};

use crate::{bpf::fdinfo, sample::Runs};

/// Makes the kernel keep statistics of all programs while the descriptor is open.
///
/// # Errors
/// Why it does not: it takes CAP_SYS_ADMIN (5.8).
pub fn enable() -> Result<OwnedFd, String> {
    enable_stats(Stats::RunTime).map_err(|error| error.io_error.to_string())
}

/// The counts, by program, of all that are loaded.
pub fn counts<'a>(programs: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>) -> BTreeMap<String, Runs> {
    let told = programs.filter_map(|(name, fd)| {
        let info = fdinfo::read(fd)?;
        let number = |what| fdinfo::number(&info, what);
        Some((name.to_owned(), Runs { count: number("run_cnt")?, nanoseconds: number("run_time_ns")? }))
    });
    told.collect()
}

/// Whether the kernel keeps statistics, as far as it can be told.
#[derive(Debug, Default)]
pub struct Statistics {
    ours: Option<OwnedFd>,
    seen: AtomicU64,
}

impl Statistics {
    /// With the descriptor that keeps them on, or without.
    pub fn new(ours: Option<OwnedFd>) -> Self {
        Self { ours, seen: AtomicU64::new(0) }
    }

    /// The counts, where they count.
    pub fn read<'a>(
        &self,
        programs: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>,
    ) -> Option<BTreeMap<String, Runs>> {
        let counts = counts(programs);
        let are_kept = self.ours.is_some() || always();
        self.have_moved(&counts).then_some(()).or_else(|| are_kept.then_some(()))?;
        Some(counts)
    }

    fn have_moved(&self, counts: &BTreeMap<String, Runs>) -> bool {
        let sum = counts.values().map(|runs| runs.count).fold(0, u64::saturating_add);
        self.seen.swap(sum, Ordering::Relaxed) != sum
    }
}

fn always() -> bool {
    fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_stand_still_are_no_statistics() {
        let counts = |count| BTreeMap::from([("ledger".to_owned(), Runs { count, nanoseconds: 100 * count })]);
        let statistics = Statistics::default();
        assert!(!statistics.have_moved(&counts(0)));
        assert!(statistics.have_moved(&counts(7)));
        assert!(!statistics.have_moved(&counts(7)));
    }
}
