//! What the maps held at one moment.

use std::collections::{BTreeMap, HashMap};

use tracer_ebpf::{
    backing::{BackingKey, BackingTotals},
    counter::{Counter, RESULT_SLOTS},
    histogram::{Histogram, SLOTS},
    record::ProcessTotals,
};

/// The eBPF side's maps, added up over the CPUs. All of it counts from the moment the programs were attached.
#[derive(Clone, Debug)]
pub struct Sample {
    /// By [`Counter`].
    pub counters: [u64; Counter::SLOTS],
    /// By [`tracer_ebpf::counter::result_slot`]; [`RESULT_SLOTS`] of them.
    pub results: Vec<u64>,
    /// By [`Histogram`]; [`Histogram::COUNT`] of them.
    pub histograms: Vec<[u64; SLOTS]>,
    /// Backings of the buffers.
    pub backings: Vec<(BackingKey, BackingTotals)>,
    /// Names of the filesystems in `backings` and in records, by the address of their `file_system_type`.
    pub filesystems: HashMap<u64, String>,
    /// Totals by thread group; empty unless the session asked for them.
    pub processes: Vec<(u32, ProcessTotals)>,
    /// Runs that the kernel skipped, by program; without those of which it does not tell.
    pub skipped: BTreeMap<String, u64>,
    /// Nanoseconds since the programs were attached.
    pub elapsed_ns: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            counters: [0; Counter::SLOTS],
            results: vec![0; RESULT_SLOTS],
            histograms: vec![[0; SLOTS]; Histogram::COUNT],
            backings: Vec::new(),
            filesystems: HashMap::new(),
            processes: Vec::new(),
            skipped: BTreeMap::new(),
            elapsed_ns: 0,
        }
    }
}
