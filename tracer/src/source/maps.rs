//! The eBPF side's maps and programs, read into a [`Sample`].

use std::collections::HashMap;

use aya::Ebpf;
use tracer_ebpf::{
    backing::{BackingKey, BackingTotals, Kind},
    counter::{ERRNO_SLOTS, RESULT_ROWS, Totals},
    histogram::Histogram,
    record::{
        COST_PAGES, COST_VMAS, Cost, JudgedKey, JudgedTotals, Largest, PastRing, ProcessKey, ProcessTotals, Ring,
        SharedFile, SharedFileKey,
    },
};

use super::{frames::Frames, probes::Probes, skipped, under_way::Calls};
use crate::{
    bpf::{entries::Entries, mapped::Mapped, read::ReadError},
    human,
    probe::{
        attach::Iterators,
        sizes::{COSTS, DETAILS, DURATIONS, LARGEST, RESULTS, SIZES, TOTALS},
    },
    sample::{Sample, SampledRing, skipped::uncounted},
};

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
    ProcessOf(ProcessKey),
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

/// What the maps hold now.
///
/// # Errors
/// The kernel refuses.
pub fn read(attached: &Probes) -> Result<Sample, ReadError> {
    let maps = &attached.maps;
    let mut sample = Sample::default();
    maps.totals(&mut sample);
    maps.counts(&mut sample);
    maps.backings.each(|key, values| sample.backings.push((key.0, sum(values.map(|cpu| cpu.0)))))?;
    sample.calls = maps.calls.read(&attached.ebpf)?;
    sample.filesystems = maps.filesystems()?;
    sample.judged = maps.judged.read(|key, totals| (key.0, totals.0))?;
    if let Some(detail) = &maps.detail {
        detail.read(&mut sample)?;
    }
    sample.skipped = skipped::read(attached.programs());
    if uncounted(&sample.skipped) > 0 {
        // Without it, calls under way are the difference of the counts.
        let open = |frames: &Frames| frames.open().inspect_err(|error| tracing::debug!("{error}")).ok();
        sample.open = maps.frames.as_ref().and_then(open);
    }
    sample.spread();
    Ok(sample)
}

/// The maps that are counted in.
pub struct Maps {
    totals: Mapped,
    results: Mapped,
    durations: Mapped,
    sizes: Mapped,
    details: Mapped,
    calls: Calls,
    backings: Entries<Key, Backing>,
    filesystems: Entries<u64, [u8; 16]>,
    judged: Entries<JudgedUnder, JudgedBuffers>,
    detail: Option<Detail>,
    frames: Option<Frames>,
}

impl Maps {
    /// Those of the loaded object; `processes` says whether the session keeps totals by process.
    ///
    /// # Errors
    /// One is missing, or the kernel does not let it be read.
    pub fn of(ebpf: &Ebpf, iterators: Iterators, processes: bool) -> Result<Self, ReadError> {
        let iterator = iterators.entries;
        let frames = iterators.tasks.and_then(|tasks| {
            Frames::of(ebpf, tasks).map_err(|error| tracing::debug!("calls under way are only counted: {error}")).ok()
        });
        let array = |name| Mapped::readable(ebpf, name);
        Ok(Self {
            totals: array(TOTALS)?,
            results: array(RESULTS)?,
            durations: array(DURATIONS)?,
            sizes: array(SIZES)?,
            details: array(DETAILS)?,
            calls: Calls::of(ebpf)?,
            backings: Entries::of(ebpf, iterator, "BACKINGS")?,
            filesystems: Entries::of(ebpf, iterator, "FILESYSTEMS")?,
            judged: Entries::of(ebpf, iterator, "JUDGED")?,
            detail: if processes { Some(Detail::of(ebpf, iterator)?) } else { None },
            frames,
        })
    }

    /// Names of filesystems by the address of their `file_system_type`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn filesystems(&self) -> Result<HashMap<u64, String>, ReadError> {
        Ok(self.filesystems.read(|address, name| (address, text(&name)))?.into_iter().collect())
    }

    /// The counters, and the backings without a filesystem's name.
    fn totals(&self, sample: &mut Sample) {
        let cpus: Vec<AllTotals> = all(&self.totals).collect();
        for cpu in &cpus {
            add(&mut sample.counters, cpu.0.counters);
        }
        let by_kind = (0..Kind::PLAIN).map(|kind| {
            let key = BackingKey { filesystem: 0, kind: Kind(kind), reserved: 0 };
            (key, sum(cpus.iter().filter_map(|cpu| cpu.0.kinds.get(kind as usize).copied())))
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
}

/// What a session that keeps processes apart counts besides.
struct Detail {
    processes: Entries<ProcessOf, Process>,
    rings: Entries<u64, RingTotals>,
    past_rings: Entries<RingBefore, RingTotals>,
    shared_files: Entries<FileKey, FileOf>,
    costs: Mapped,
    largest: Mapped,
}

impl Detail {
    fn of(ebpf: &Ebpf, iterator: u32) -> Result<Self, ReadError> {
        Ok(Self {
            processes: Entries::of(ebpf, iterator, "PROCESSES")?,
            rings: Entries::of(ebpf, iterator, "RINGS")?,
            past_rings: Entries::of(ebpf, iterator, "PAST_RINGS")?,
            shared_files: Entries::of(ebpf, iterator, "SHARED_FILES")?,
            costs: Mapped::readable(ebpf, COSTS)?,
            largest: Mapped::readable(ebpf, LARGEST)?,
        })
    }

    fn read(&self, sample: &mut Sample) -> Result<(), ReadError> {
        sample.processes = self.processes.read(|process, totals| (process.0, totals.0))?;
        let ring = |address, ended, totals: RingTotals| SampledRing { address, ended, totals: totals.0, before_ns: 0 };
        sample.rings = self.rings.read(|address, totals| ring(address, false, totals))?;
        sample.rings.extend(self.past_rings.read(|past, totals| ring(past.0.ring, true, totals))?);
        sample.rings.retain(|ring| ring.totals.installations | ring.totals.failed != 0);
        sample.shared_files = self.shared_files.read(|key, file| (key.0, file.0))?;
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
        Ok(())
    }
}

/// Copies of the entries.
pub(super) fn all<T: aya::Pod>(array: &Mapped) -> impl Iterator<Item = T> {
    (0..array.entries()).filter_map(|entry| array.get(entry))
}

fn sum(cpus: impl Iterator<Item = BackingTotals>) -> BackingTotals {
    cpus.fold(BackingTotals::default(), |sum, cpu| BackingTotals {
        buffers: sum.buffers + cpu.buffers,
        vmas: sum.vmas + cpu.vmas,
        bytes: sum.bytes + cpu.bytes,
    })
}

/// A name that ends at its first zero.
fn text(name: &[u8]) -> String {
    human::seen(&human::field(name))
}

pub(super) fn add(sum: &mut [u64], values: impl IntoIterator<Item = u64>) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}
