//! The eBPF side's maps and programs, read into a [`Sample`].

use std::collections::HashMap;

use aya::{
    Ebpf,
    maps::{HashMap as BpfHashMap, Map, MapError, PerCpuArray, PerCpuHashMap},
};
use tracer_ebpf::{
    backing::{BackingKey, BackingTotals, Kind},
    counter::{ERRNO_SLOTS, RESULT_ROWS, Totals},
    detail,
    histogram::{Histogram, SLOTS, Sizes},
    record::{Cost, JudgedKey, JudgedTotals, Largest, PastRing, ProcessTotals, Ring, SharedFile, SharedFileKey},
};

use super::{
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
    /// The kernel refused to run a program of ours.
    #[error("cannot run the eBPF program {0}: {1}")]
    Run(&'static str, String),
}

pub(super) fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Map, ReadError> {
    ebpf.map(name).ok_or(ReadError::Missing(name))
}

/// What the maps hold now. `processes` says whether the session keeps totals by process.
pub fn read(attached: &Attached, processes: bool) -> Result<Sample, ReadError> {
    let ebpf = &attached.ebpf;
    let mut sample = Sample::default();
    totals(ebpf, &mut sample)?;
    results(ebpf, &mut sample)?;
    durations(ebpf, &mut sample)?;
    sizes(ebpf, &mut sample)?;
    details(ebpf, &mut sample)?;
    sample.backings.extend(backings(ebpf)?);
    sample.filesystems = filesystems(ebpf)?;
    sample.judged = entries(ebpf, "JUDGED", |key: JudgedUnder, totals: JudgedBuffers| (key.0, totals.0))?;
    if processes {
        detail(ebpf, &mut sample)?;
    }
    sample.skipped = skipped::read(attached.programs());
    sample.spread();
    Ok(sample)
}

/// The counters, and the backings without a filesystem's name.
fn totals(ebpf: &Ebpf, sample: &mut Sample) -> Result<(), ReadError> {
    const NAME: &str = "TOTALS";
    let array: PerCpuArray<_, AllTotals> = per_cpu(ebpf, NAME)?;
    let cpus = array.get(&0, 0).map_err(|error| ReadError::Kernel(NAME, error))?;
    for cpu in cpus.iter() {
        add(&mut sample.counters, &cpu.0.counters);
    }
    let by_kind = (0..Kind::PLAIN).map(|kind| {
        let key = BackingKey { filesystem: 0, kind: Kind(kind), reserved: 0 };
        (key, sum(cpus.iter().filter_map(|cpu| cpu.0.kinds.get(kind as usize))))
    });
    sample.backings.extend(by_kind.filter(|(_, totals)| totals.buffers > 0));
    Ok(())
}

fn results(ebpf: &Ebpf, sample: &mut Sample) -> Result<(), ReadError> {
    const NAME: &str = "RESULTS";
    let array: PerCpuArray<_, [u64; ERRNO_SLOTS]> = per_cpu(ebpf, NAME)?;
    for (row, slots) in (0..RESULT_ROWS as u32).zip(sample.results.chunks_mut(ERRNO_SLOTS)) {
        for cpu in array.get(&row, 0).map_err(|error| ReadError::Kernel(NAME, error))?.iter() {
            add(slots, cpu);
        }
    }
    Ok(())
}

fn durations(ebpf: &Ebpf, sample: &mut Sample) -> Result<(), ReadError> {
    const NAME: &str = "DURATIONS";
    let array: PerCpuArray<_, [u64; SLOTS]> = per_cpu(ebpf, NAME)?;
    for (index, slots) in (0..Histogram::DURATIONS as u32).zip(&mut sample.histograms) {
        for cpu in array.get(&index, 0).map_err(|error| ReadError::Kernel(NAME, error))?.iter() {
            add(slots, cpu);
        }
    }
    Ok(())
}

/// The other histograms.
fn sizes(ebpf: &Ebpf, sample: &mut Sample) -> Result<(), ReadError> {
    const NAME: &str = "SIZES";
    let array: PerCpuArray<_, Sizes> = per_cpu(ebpf, NAME)?;
    for cpu in array.get(&0, 0).map_err(|error| ReadError::Kernel(NAME, error))?.iter() {
        for (slots, values) in sample.histograms.iter_mut().skip(Histogram::DURATIONS).zip(cpu.chunks_exact(SLOTS)) {
            add(slots, values);
        }
    }
    Ok(())
}

/// What is counted on request.
fn details(ebpf: &Ebpf, sample: &mut Sample) -> Result<(), ReadError> {
    const NAME: &str = "DETAILS";
    let array: PerCpuArray<_, [u64; detail::SLOTS]> = per_cpu(ebpf, NAME)?;
    for cpu in array.get(&0, 0).map_err(|error| ReadError::Kernel(NAME, error))?.iter() {
        add(&mut sample.details, cpu);
    }
    Ok(())
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
    let costs: PerCpuArray<_, CostOf> = per_cpu(ebpf, "COSTS")?;
    for (cell, sum) in (0..).zip(&mut sample.costs) {
        for cpu in costs.get(&cell, 0).map_err(|error| ReadError::Kernel("COSTS", error))?.iter() {
            *sum = sum.plus(&cpu.0);
        }
    }
    let largest: PerCpuArray<_, LargestOf> = per_cpu(ebpf, "LARGEST")?;
    for (which, most) in (0..).zip(&mut sample.largest) {
        let cpus = largest.get(&which, 0).map_err(|error| ReadError::Kernel("LARGEST", error))?;
        if let Some(cpu) = cpus.iter().max_by_key(|cpu| cpu.0.vmas) {
            *most = cpu.0;
        }
    }
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

fn per_cpu<'a, T: aya::Pod>(
    ebpf: &'a Ebpf,
    name: &'static str,
) -> Result<PerCpuArray<&'a aya::maps::MapData, T>, ReadError> {
    PerCpuArray::try_from(map(ebpf, name)?).map_err(|error| ReadError::Kernel(name, error))
}

fn add(sum: &mut [u64], values: &[u64]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}
