//! What happened between two samples.

use std::{collections::HashMap, hash::Hash};

use tracer_ebpf::{
    backing::BackingTotals,
    record::{JudgedTotals, Largest, ProcessTotals, Ring, SharedFile},
};

use crate::sample::{Sample, SampledRing};

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
        for (now, then) in delta.largest.iter_mut().zip(&earlier.largest) {
            *now = largest_since(now, then);
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
        partial: now.partial.saturating_sub(then.partial),
        unmeasured: now.unmeasured.saturating_sub(then.unmeasured),
        missed: now.missed.saturating_sub(then.missed),
        buffers: now.buffers.saturating_sub(then.buffers),
        bytes: now.bytes.saturating_sub(then.bytes),
        refused_bytes: now.refused_bytes.saturating_sub(then.refused_bytes),
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

/// The rings that did something since, with the counts of the interval. Its first installation has one before it as a rule:
/// the time between the two is of the interval.
fn rings_since(now: &[SampledRing], then: &[SampledRing]) -> Vec<SampledRing> {
    let identity = |ring: &SampledRing| (ring.address, ring.totals.created_ns);
    let before: HashMap<_, _> = then.iter().map(|ring| (identity(ring), ring.totals)).collect();
    let since = now.iter().map(|ring| match before.get(&identity(ring)) {
        Some(then) => SampledRing {
            before_ns: if then.installations > 0 { then.last_ns } else { 0 },
            totals: ring_since(&ring.totals, then),
            ..*ring
        },
        None => *ring,
    });
    since.filter(|ring| ring.totals.installations | ring.totals.failed | ring.totals.unregisters != 0).collect()
}

fn ring_since(now: &Ring, then: &Ring) -> Ring {
    Ring {
        installations: now.installations.saturating_sub(then.installations),
        updates: now.updates.saturating_sub(then.updates),
        clones: now.clones.saturating_sub(then.clones),
        after_requests: now.after_requests.saturating_sub(then.after_requests),
        fills: now.fills.saturating_sub(then.fills),
        fills_after_requests: now.fills_after_requests.saturating_sub(then.fills_after_requests),
        switches: now.switches.saturating_sub(then.switches),
        switch_gaps: now.switch_gaps.saturating_sub(then.switch_gaps),
        switches_from_ns: if then.switches > 0 { then.last_switch_ns } else { now.switches_from_ns },
        unregisters: now.unregisters.saturating_sub(then.unregisters),
        failed: now.failed.saturating_sub(then.failed),
        // That of the interval is known where it is the shortest of all.
        shortest_gap_ns: if now.shortest_gap_ns == then.shortest_gap_ns { 0 } else { now.shortest_gap_ns },
        ..*now
    }
}

/// The most of the interval is known where it is the most of all.
fn largest_since(now: &Largest, then: &Largest) -> Largest {
    if now.vmas > then.vmas { *now } else { Largest::default() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{aggregate::gather::ring as ring_of, figure::Figures};

    fn ring(address: u64, created_ns: u64, installations: u64, last_ns: u64) -> SampledRing {
        let totals = Ring { created_ns, installations, first_ns: 100, last_ns, shortest_gap_ns: 10, ..Ring::ZERO };
        SampledRing { address, totals, ..SampledRing::default() }
    }

    #[test]
    fn a_ring_is_known_again_by_its_address_and_its_making() {
        let then = [ring(1, 5, 3, 300), ring(2, 0, 1, 100), ring(3, 7, 4, 400)];
        // The first went on, the second's address became another's, the third did nothing.
        let past = SampledRing { ended: true, ..ring(2, 0, 2, 150) };
        let since = rings_since(&[ring(1, 5, 5, 500), ring(2, 9, 1, 200), past, ring(3, 7, 4, 400)], &then);
        let told: Vec<_> = since.iter().map(|r| (r.address, r.ended, r.totals.installations, r.before_ns)).collect();
        assert_eq!(told, [(1, false, 2, 300), (2, false, 1, 0), (2, true, 1, 100)]);
        assert_eq!(since.iter().map(|r| r.totals.shortest_gap_ns).collect::<Vec<_>>(), [0, 10, 0]);
    }

    #[test]
    fn the_most_vmas_of_an_interval_are_known_where_they_are_the_most_of_all() {
        let of = |vmas, pid| Largest { vmas, pid, ..Largest::default() };
        assert_eq!(largest_since(&of(9, 2), &of(8, 1)), of(9, 2));
        assert_eq!(largest_since(&of(8, 1), &of(8, 1)), Largest::default());
    }

    proptest! {
        /// However the time is cut, the installations and the times between them are those of the whole.
        #[test]
        fn intervals_make_up_the_whole(times in prop::collection::vec(1_u64..1000, 1..20), cut in 0_usize..20) {
            let ends: Vec<u64> = times.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let at = |count: usize| {
                let last_ns = ends[..count].last().copied().unwrap_or(0);
                let totals = Ring { installations: count as u64, first_ns: ends[0], last_ns, ..Ring::ZERO };
                // All but the first are switches.
                let switches = (count as u64).saturating_sub(1);
                let from = if switches > 0 { ends[0] } else { 0 };
                let last_switch_ns = if switches > 0 { last_ns } else { 0 };
                let totals = Ring { switches, switch_gaps: switches, switches_from_ns: from, last_switch_ns, ..totals };
                SampledRing { address: 1, totals, ..SampledRing::default() }
            };
            let cut = cut.min(ends.len());
            let (first, whole) = (at(cut), at(ends.len()));
            let then = if cut == 0 { vec![] } else { vec![first] };
            let parts = then.iter().copied().chain(rings_since(&[whole], &then));
            let figures = Figures::default();
            let parts: Vec<_> = parts.map(|part| ring_of(&part, &figures)).collect();
            let whole = ring_of(&whole, &figures);
            prop_assert_eq!(parts.iter().map(|part| part.span_ns).sum::<u64>(), whole.span_ns);
            prop_assert_eq!(parts.iter().map(|part| part.gaps).sum::<u64>(), whole.gaps);
            prop_assert_eq!(parts.iter().map(|part| part.switch_span_ns).sum::<Option<u64>>(), whole.switch_span_ns);
            prop_assert_eq!(parts.iter().map(|part| part.switch_gaps).sum::<Option<u64>>(), whole.switch_gaps);
            prop_assert_eq!(parts.iter().map(crate::aggregate::Ring::installations).sum::<u64>(), whole.installations());
            prop_assert_eq!(whole.span_ns, ends[ends.len() - 1] - ends[0]);
        }
    }
}
