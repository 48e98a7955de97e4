//! The eBPF side's maps and programs, read into a [`Sample`].

use std::{collections::HashMap, io};

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, Map, MapError, PerCpuHashMap},
};
use tracer_ebpf::{
    backing::{BackingKey, BackingTotals, Kind},
    counter::{ERRNO_SLOTS, RESULT_ROWS, Totals},
    histogram::Histogram,
    record::{
        COST_PAGES, COST_VMAS, Cost, JudgedKey, JudgedTotals, Largest, PastRing, ProcessTotals, Ring, SharedFile,
        SharedFileKey,
    },
};

use super::{
    mapped::Mapped,
    sample::{Sample, SampledRing},
    skipped,
};
use crate::{human, probe::attach::Attached};

/// Gives the shared types, which know nothing of aya, what aya wants of a map's keys and values.
macro_rules! pod {
    ($($name:ident($inner:ty)),+ $(,)?) => {
        $(
            #[repr(transparent)]
            #[derive(Clone, Copy)]
            struct $name($inner);

            // SAFETY: `repr(C)` over integers, with no padding, for which every bit pattern is a value.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pod!(
    Key(BackingKey),
    Backing(BackingTotals),
    Process(ProcessTotals),
    AllTotals(Totals),
    RingTotals(Ring),
    RingBefore(PastRing),
    JudgedUnder(JudgedKey),
    JudgedBuffers(JudgedTotals),
    CostOf(Cost),
    LargestOf(Largest),
    FileKey(SharedFileKey),
    FileOf(SharedFile),
);

/// Why the maps could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The object and this program do not belong together.
    #[error("the eBPF object has no map {0}")]
    Missing(&'static str),
    /// The kernel refused.
    #[error("cannot read the eBPF map {0}: {1}")]
    Kernel(&'static str, MapError),
    /// The kernel refused to map it.
    #[error("cannot map the eBPF map {0}: {1}")]
    Mapped(&'static str, io::Error),
    /// The kernel refused to run a program of ours.
    #[error("cannot run the eBPF program {0}: {1}")]
    Run(&'static str, String),
}

pub(super) fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Map, ReadError> {
    ebpf.map(name).ok_or(ReadError::Missing(name))
}

/// What the maps hold now. `processes` says whether the session keeps totals by process.
pub fn read(attached: &Attached, processes: bool) -> Result<Sample, ReadError> {
    let (ebpf, arrays) = (&attached.ebpf, &attached.arrays);
    let mut sample = Sample::default();
    arrays.totals(&mut sample);
    arrays.counts(&mut sample);
    sample.backings.extend(backings(ebpf)?);
    sample.filesystems = filesystems(ebpf)?;
    sample.judged = entries(ebpf, "JUDGED", |key: JudgedUnder, totals: JudgedBuffers| (key.0, totals.0))?;
    if processes {
        detail(ebpf, &mut sample)?;
        arrays.detail(&mut sample);
    }
    sample.skipped = skipped::read(attached.programs());
    sample.spread();
    Ok(sample)
}

/// Arrays with entries for each CPU: their names, and how many.
pub const OF_CPUS: [(&str, usize); 7] = [
    (TOTALS, 1),
    (RESULTS, RESULT_ROWS),
    (DURATIONS, Histogram::DURATIONS),
    (SIZES, 1),
    (DETAILS, 1),
    (COSTS, COST_VMAS * COST_PAGES),
    (LARGEST, 2),
];
const TOTALS: &str = "TOTALS";
const RESULTS: &str = "RESULTS";
const DURATIONS: &str = "DURATIONS";
const SIZES: &str = "SIZES";
const DETAILS: &str = "DETAILS";
const COSTS: &str = "COSTS";
const LARGEST: &str = "LARGEST";

/// The arrays that are counted in, by CPU.
pub struct Arrays {
    totals: Mapped,
    results: Mapped,
    durations: Mapped,
    sizes: Mapped,
    details: Mapped,
    costs: Mapped,
    largest: Mapped,
}

impl Arrays {
    /// Those of the loaded object.
    ///
    /// # Errors
    /// One is missing, or the kernel does not map it.
    pub fn of(ebpf: &Ebpf) -> Result<Self, ReadError> {
        let array = |name| Mapped::readable(ebpf, name);
        Ok(Self {
            totals: array(TOTALS)?,
            results: array(RESULTS)?,
            durations: array(DURATIONS)?,
            sizes: array(SIZES)?,
            details: array(DETAILS)?,
            costs: array(COSTS)?,
            largest: array(LARGEST)?,
        })
    }

    /// The counters, and the backings without a filesystem's name.
    fn totals(&self, sample: &mut Sample) {
        let cpus: Vec<AllTotals> = all(&self.totals).collect();
        for cpu in &cpus {
            add(&mut sample.counters, cpu.0.counters);
        }
        let by_kind = (0..Kind::PLAIN).map(|kind| {
            let key = BackingKey { filesystem: 0, kind: Kind(kind), reserved: 0 };
            (key, sum(cpus.iter().filter_map(|cpu| cpu.0.kinds.get(kind as usize))))
        });
        sample.backings.extend(by_kind.filter(|(_, totals)| totals.buffers > 0));
    }

    /// Results, histograms, and what is counted on request.
    fn counts(&self, sample: &mut Sample) {
        let (durations, sizes) = sample.histograms.split_at_mut(Histogram::DURATIONS);
        for entry in 0..self.results.entries() {
            let row = entry % RESULT_ROWS * ERRNO_SLOTS;
            add(&mut sample.results[row..row + ERRNO_SLOTS], self.results.words(entry));
        }
        for entry in 0..self.durations.entries() {
            add(&mut durations[entry % Histogram::DURATIONS], self.durations.words(entry));
        }
        for entry in 0..self.sizes.entries() {
            add(sizes.as_flattened_mut(), self.sizes.words(entry));
        }
        for entry in 0..self.details.entries() {
            add(&mut sample.details, self.details.words(entry));
        }
    }

    /// What a session that keeps processes apart counts besides.
    fn detail(&self, sample: &mut Sample) {
        for (entry, cost) in all::<CostOf>(&self.costs).enumerate() {
            let sum = &mut sample.costs[entry % (COST_VMAS * COST_PAGES)];
            *sum = sum.plus(&cost.0);
        }
        for (entry, of_cpu) in all::<LargestOf>(&self.largest).enumerate() {
            let most = &mut sample.largest[entry % 2];
            if of_cpu.0.vmas > most.vmas {
                *most = of_cpu.0;
            }
        }
    }
}

/// Copies of the entries.
pub(super) fn all<T: aya::Pod>(array: &Mapped) -> impl Iterator<Item = T> {
    (0..array.entries()).filter_map(|entry| array.get(entry))
}

fn sum<'a>(cpus: impl Iterator<Item = &'a BackingTotals>) -> BackingTotals {
    cpus.fold(BackingTotals::default(), |sum, cpu| BackingTotals {
        buffers: sum.buffers + cpu.buffers,
        vmas: sum.vmas + cpu.vmas,
        bytes: sum.bytes + cpu.bytes,
    })
}

fn backings(ebpf: &Ebpf) -> Result<Vec<(BackingKey, BackingTotals)>, ReadError> {
    const NAME: &str = "BACKINGS";
    let map: PerCpuHashMap<_, Key, Backing> =
        PerCpuHashMap::try_from(map(ebpf, NAME)?).map_err(|error| ReadError::Kernel(NAME, error))?;
    map.iter()
        .map(|entry| {
            let (key, cpus) = entry.map_err(|error| ReadError::Kernel(NAME, error))?;
            let totals = sum(cpus.iter().map(|cpu| &cpu.0));
            Ok((key.0, totals))
        })
        .collect()
}

/// Names of filesystems by the address of their `file_system_type`.
pub fn filesystems(ebpf: &Ebpf) -> Result<HashMap<u64, String>, ReadError> {
    let named = entries(ebpf, "FILESYSTEMS", |address: u64, name: [u8; 16]| (address, text(&name)))?;
    Ok(named.into_iter().collect())
}

/// What a session that keeps processes apart counts besides.
fn detail(ebpf: &Ebpf, sample: &mut Sample) -> Result<(), ReadError> {
    sample.processes = entries(ebpf, "PROCESSES", |pid: u32, totals: Process| (pid, totals.0))?;
    let ring = |address, ended, totals: RingTotals| SampledRing { address, ended, totals: totals.0, before_ns: 0 };
    sample.rings = entries(ebpf, "RINGS", |address: u64, totals| ring(address, false, totals))?;
    sample.rings.extend(entries(ebpf, "PAST_RINGS", |past: RingBefore, totals| ring(past.0.ring, true, totals))?);
    sample.rings.retain(|ring| ring.totals.installations | ring.totals.failed != 0);
    sample.shared_files = entries(ebpf, "SHARED_FILES", |key: FileKey, file: FileOf| (key.0, file.0))?;
    Ok(())
}

/// The entries of a hash map.
fn entries<K: aya::Pod, V: aya::Pod, T>(
    ebpf: &Ebpf,
    name: &'static str,
    make: impl Fn(K, V) -> T,
) -> Result<Vec<T>, ReadError> {
    let map: BpfHashMap<_, K, V> =
        BpfHashMap::try_from(map(ebpf, name)?).map_err(|error| ReadError::Kernel(name, error))?;
    map.iter()
        .map(|entry| entry.map(|(key, value)| make(key, value)).map_err(|error| ReadError::Kernel(name, error)))
        .collect()
}

/// A name that ends at its first zero.
fn text(name: &[u8]) -> String {
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    human::seen(&String::from_utf8_lossy(&name[..length]))
}

pub(super) fn add(sum: &mut [u64], values: impl IntoIterator<Item = u64>) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}
