//! What happened between two samples.

use std::{collections::HashMap, hash::Hash};

use tracer_ebpf::{
    backing::BackingTotals,
    record::{JudgedTotals, ProcessTotals, Ring, SharedFile},
};

use crate::source::sample::Sample;

impl Sample {
    /// What was counted since `earlier`, a sample of the same session. A count that is lower than before (it
    /// cannot be, but a map entry can have been evicted and begun anew) gives 0, never less.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = self.clone();
        subtract(&mut delta.counters, &earlier.counters);
        subtract(&mut delta.results, &earlier.results);
        subtract(&mut delta.details, &earlier.details);
        for (now, then) in delta.histograms.iter_mut().zip(&earlier.histograms) {
            subtract(now, then);
        }
        delta.backings = entries_since(&self.backings, &earlier.backings, backing_since);
        delta.judged = entries_since(&self.judged, &earlier.judged, judged_since);
        delta.shared_files = entries_since(&self.shared_files, &earlier.shared_files, shared_since);
        for (now, then) in delta.costs.iter_mut().zip(&earlier.costs) {
            *now = now.minus(then);
        }
        delta.rings = rings_since(&self.rings, &earlier.rings);
        delta.processes = entries_since(&self.processes, &earlier.processes, process_since);
        for (program, runs) in &mut delta.skipped {
            *runs = runs.saturating_sub(earlier.skipped.get(program).copied().unwrap_or(0));
        }
        delta.elapsed_ns = self.elapsed_ns.saturating_sub(earlier.elapsed_ns);
        delta
    }
}

fn subtract(now: &mut [u64], then: &[u64]) {
    for (now, then) in now.iter_mut().zip(then) {
        *now = now.saturating_sub(*then);
    }
}

/// The entries of a map that grew.
fn entries_since<K: Copy + Eq + Hash, V: Copy + Default>(
    now: &[(K, V)],
    then: &[(K, V)],
    since: impl Fn(&V, &V) -> Option<V>,
) -> Vec<(K, V)> {
    let then: HashMap<_, _> = then.iter().copied().collect();
    let changed = now.iter().map(|(key, value)| (*key, since(value, &then.get(key).copied().unwrap_or_default())));
    changed.filter_map(|(key, value)| Some((key, value?))).collect()
}

fn backing_since(now: &BackingTotals, then: &BackingTotals) -> Option<BackingTotals> {
    let delta = BackingTotals {
        buffers: now.buffers.saturating_sub(then.buffers),
        vmas: now.vmas.saturating_sub(then.vmas),
        bytes: now.bytes.saturating_sub(then.bytes),
    };
    (delta != BackingTotals::default()).then_some(delta)
}

fn process_since(now: &ProcessTotals, then: &ProcessTotals) -> Option<ProcessTotals> {
    let registrations = now.registrations.saturating_sub(then.registrations);
    (registrations > 0).then(|| ProcessTotals {
        registrations,
        failed: now.failed.saturating_sub(then.failed),
        buffers: now.buffers.saturating_sub(then.buffers),
        bytes: now.bytes.saturating_sub(then.bytes),
        vmas: now.vmas.saturating_sub(then.vmas),
        duration_ns: now.duration_ns.saturating_sub(then.duration_ns),
        pin_ns: now.pin_ns.saturating_sub(then.pin_ns),
        habits: now.habits.minus(&then.habits),
        ..*now
    })
}

fn judged_since(now: &JudgedTotals, then: &JudgedTotals) -> Option<JudgedTotals> {
    let delta =
        JudgedTotals { buffers: now.buffers.saturating_sub(then.buffers), bytes: now.bytes.saturating_sub(then.bytes) };
    (delta.buffers > 0).then_some(delta)
}

fn shared_since(now: &SharedFile, then: &SharedFile) -> Option<SharedFile> {
    let buffers = now.buffers.saturating_sub(then.buffers);
    (buffers > 0).then_some(SharedFile { buffers, ..*now })
}

/// The rings that did something since; their counts are those of the interval, their times those of the session.
fn rings_since(now: &[Ring], then: &[Ring]) -> Vec<Ring> {
    let identity = |ring: &Ring| (ring.created_ns, ring.first_ns, ring.pid);
    let before: HashMap<_, _> = then.iter().map(|ring| (identity(ring), ring)).collect();
    let since = now.iter().map(|ring| match before.get(&identity(ring)) {
        Some(then) => Ring {
            installations: ring.installations.saturating_sub(then.installations),
            updates: ring.updates.saturating_sub(then.updates),
            clones: ring.clones.saturating_sub(then.clones),
            after_requests: ring.after_requests.saturating_sub(then.after_requests),
            unregisters: ring.unregisters.saturating_sub(then.unregisters),
            failed: ring.failed.saturating_sub(then.failed),
            ..*ring
        },
        None => *ring,
    });
    since.filter(|ring| ring.installations | ring.failed | ring.unregisters != 0).collect()
}
