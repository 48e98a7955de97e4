//! What the maps held at one moment: plain values, which `source` reads and `aggregate` folds.

pub mod audit;
pub mod registered;
pub mod skipped;
pub mod workloads;

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::{
    backing::{BackingKey, BackingTotals},
    counter::{Counter, RESULT_SLOTS, result_slot},
    detail,
    histogram::{Histogram, SLOTS, SUM, index},
    installation::Installation,
    operation::Operation,
    record::{
        COST_PAGES, COST_VMAS, Cost, JudgedKey, JudgedTotals, Largest, ProcessKey, ProcessTotals, Ring, SharedFile,
        SharedFileKey,
    },
};

use self::registered::Registered;

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// Number of the [`Operation`].
    pub operation: u8,
    /// Thread group.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// `task_struct.comm`.
    pub comm: [u8; 16],
    /// It has not ended: a kernel whose registers are not found does not tell.
    pub sure: bool,
}

/// A ring on which something was installed or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampledRing {
    /// Address of the `io_ring_ctx`; with [`Ring::created_ns`] it names the ring.
    pub address: u64,
    /// Another ring is at that address by now.
    pub ended: bool,
    /// What was counted.
    pub totals: Ring,
    /// In what is between two samples: when the last installation before began; 0 where there was none.
    pub before_ns: u64,
}

/// This process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelfUsage {
    /// CPU time of all threads, in user and kernel mode, seconds.
    pub cpu_seconds: f64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// File descriptors.
    pub open_fds: Option<u64>,
    /// The most file descriptors (soft limit); `None` too where there is no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// When it began, seconds since 1970.
    pub started_seconds: f64,
}

/// One program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    /// How often it ran.
    pub count: u64,
    /// How long, in all.
    pub nanoseconds: u64,
}

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
    /// Totals by process; empty unless the session asked for them.
    pub processes: Vec<(ProcessKey, ProcessTotals)>,
    /// Empty unless the session keeps processes apart.
    pub rings: Vec<SampledRing>,
    /// Buffers with a trait, and refused ones.
    pub judged: Vec<(JudgedKey, JudgedTotals)>,
    /// By octave of VMAs times [`COST_PAGES`] plus that of pages; empty unless the session keeps processes apart.
    pub costs: Vec<Cost>,
    /// The registration and the buffer with the most VMAs; empty likewise.
    pub largest: [Largest; 2],
    /// The files of buffers that span several; empty likewise.
    pub shared_files: Vec<(SharedFileKey, SharedFile)>,
    /// Runs that the kernel skipped, by program; without those of which it does not tell.
    pub skipped: BTreeMap<String, u64>,
    /// Calls under way by [`Operation`], seen in their tasks, where the ends of some were skipped and it can be seen.
    pub open: Option<[u64; Operation::COUNT]>,
    /// By [`tracer_ebpf::detail::Detail`], then the histograms of waits; [`detail::SLOTS`] of them.
    pub details: Vec<u64>,
    /// What is registered now, where the session follows it; only a service reads it.
    pub registered: Option<Registered>,
    /// Runs by program, where the kernel keeps statistics; only a service reads them.
    pub runs: Option<BTreeMap<String, Runs>>,
    /// This process; only a service reads it.
    pub own: Option<SelfUsage>,
    /// Calls under way; `None` where they cannot be told.
    pub calls: Option<Vec<Call>>,
    /// The kernel's `CLOCK_MONOTONIC` in nanoseconds when `calls` was read; `None` where it cannot be told.
    pub now_ns: Option<u64>,
    /// Nanoseconds since the programs were attached.
    pub elapsed_ns: u64,
}

impl Sample {
    /// Puts what the kernel side counted together into the counts and histograms that it stands for.
    pub fn spread(&mut self) {
        for operation in Operation::ALL {
            self.results[result_slot(operation, 0)] += self.counters[Counter::Succeeded.of(operation)];
        }
        let mut plain = 0;
        for installation in &Installation::ALL[..Installation::PINNING] {
            for used in [false, true] {
                let count = self.counters[Counter::Plain.of_installation(*installation, used)];
                self.counters[Counter::Installations.of_installation(*installation, used)] += count;
                plain += count;
            }
        }
        for counter in Counter::ONES {
            self.counters[counter as usize] += plain;
        }
        for histogram in Histogram::ONES {
            self.ones(histogram, plain);
        }
        self.ones(Histogram::VmasPerBuffer, self.counters[Counter::SingleVmaBuffers as usize]);
    }

    fn ones(&mut self, histogram: Histogram, count: u64) {
        let slots = &mut self.histograms[histogram as usize];
        slots[index(1)] += count;
        slots[SUM] += count;
    }
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
            rings: Vec::new(),
            judged: Vec::new(),
            costs: vec![Cost::default(); COST_VMAS * COST_PAGES],
            largest: [Largest::default(); 2],
            shared_files: Vec::new(),
            skipped: BTreeMap::new(),
            open: None,
            details: vec![0; detail::SLOTS],
            registered: None,
            runs: None,
            own: None,
            calls: None,
            now_ns: None,
            elapsed_ns: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_together_is_spread() {
        let mut sample = Sample::default();
        sample.counters[Counter::Plain.of_installation(Installation::Table, false)] = 3;
        sample.counters[Counter::Plain.of_installation(Installation::Fill, true)] = 2;
        sample.counters[Counter::SingleVmaBuffers as usize] = 3;
        sample.counters[Counter::BufferEntries as usize] = 4;
        sample.counters[Counter::Succeeded.of(Operation::Update)] = 7;
        sample.spread();
        assert_eq!(sample.counters[Counter::BufferEntries as usize], 9);
        assert_eq!(sample.counters[Counter::WalkVmas as usize], 5);
        assert_eq!(sample.counters[Counter::Installations.of_installation(Installation::Table, false)], 3);
        assert_eq!(sample.counters[Counter::Installations.of_installation(Installation::Fill, true)], 2);
        assert_eq!(sample.results[result_slot(Operation::Update, 0)], 7);
        let ones = |histogram: Histogram| {
            let slots = &sample.histograms[histogram as usize];
            (slots[index(1)], slots[SUM])
        };
        assert_eq!(ones(Histogram::VmasPerBuffer), (8, 8));
        assert_eq!(ones(Histogram::VmasPerRegistration), (5, 5));
        assert_eq!(ones(Histogram::BuffersPerRegistration), (5, 5));
        assert_eq!(ones(Histogram::BytesPerRegistration), (0, 0));
    }
}
