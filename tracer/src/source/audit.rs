//! What an audit's maps and programs held at one moment.

use std::collections::BTreeMap;

use aya::{
    Ebpf,
    maps::{MapError, StackTraceMap},
};
use tracer_ebpf::audit::{AuditCounter, AuditKey, AuditTotals};

use super::{maps::add as add_words, probes::Probes, runs, skipped};
use crate::{
    bpf::{
        entries::Entries,
        mapped::Mapped,
        read::{ReadError, map},
    },
    probe::sizes::AUDIT_COUNTERS,
    sample::audit::{AuditSample, add},
};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(AuditKey);

// SAFETY: `repr(C)` over integers and bytes, with no padding, for which every bit pattern is a value.
unsafe impl aya::Pod for Key {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(AuditTotals);

// SAFETY: as above.
unsafe impl aya::Pod for Value {}

/// Reads the maps, and what the kernel says of the programs.
pub fn read(attached: &Probes) -> Result<AuditSample, ReadError> {
    let ebpf = &attached.ebpf;
    let mut sample = AuditSample {
        calls: calls(ebpf, attached.iterators.entries)?,
        counters: counters(ebpf)?,
        filesystems: attached.maps.filesystems()?,
        skipped: skipped::read(attached.programs()),
        ..AuditSample::default()
    };
    sample.stacks = stacks(ebpf, sample.calls.keys().map(|key| key.stack))?;
    for runs in runs::counts(attached.programs()).values() {
        sample.runs += runs.count;
        sample.run_ns += runs.nanoseconds;
    }
    Ok(sample)
}

fn calls(ebpf: &Ebpf, iterator: u32) -> Result<BTreeMap<AuditKey, AuditTotals>, ReadError> {
    let mut calls = BTreeMap::new();
    Entries::<Key, Value>::of(ebpf, iterator, "AUDIT")?.each(|key, values| {
        calls.insert(key.0, values.fold(AuditTotals::default(), |sum, cpu| add(sum, cpu.0)));
    })?;
    Ok(calls)
}

fn counters(ebpf: &Ebpf) -> Result<[u64; AuditCounter::SLOTS], ReadError> {
    let array = Mapped::readable(ebpf, AUDIT_COUNTERS)?;
    let mut sums = [0; AuditCounter::SLOTS];
    for cpu in 0..array.entries() {
        add_words(&mut sums, array.words(cpu));
    }
    Ok(sums)
}

fn stacks(ebpf: &Ebpf, wanted: impl Iterator<Item = i32>) -> Result<BTreeMap<i32, Vec<u64>>, ReadError> {
    const NAME: &str = "STACKS";
    let failed = |error| ReadError::Kernel(NAME, error);
    let map = StackTraceMap::try_from(map(ebpf, NAME)?).map_err(failed)?;
    let mut stacks = BTreeMap::new();
    for id in wanted {
        let Ok(place) = u32::try_from(id) else { continue };
        if stacks.contains_key(&id) {
            continue;
        }
        match map.get(&place, 0) {
            Ok(stack) => {
                stacks.insert(id, stack.frames().iter().map(|frame| frame.ip).collect());
            }
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(stacks)
}
