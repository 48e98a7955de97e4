//! From a sample to what the answers rest on.

use std::cmp::Reverse;

use tracer_ebpf::{
    backing::Kind,
    counter::Counter,
    histogram::Histogram,
    installation::Installation,
    record::{self, COST_PAGES, COST_VMAS, ProcessKey},
};

use super::{
    ByRequests, CostCell, Habits, Installations, Judged, Judgements, Kinds, Largest, Ring, Rings, SharedBufferFile,
    fold::Fold,
};
use crate::{
    decode::{comm, filesystem},
    figure::{Figure, Figures},
    human,
    sample::SampledRing,
};

/// `IORING_SETUP_REGISTERED_FD_ONLY`, since 6.5: the ring has no fd, but an index.
const REGISTERED_FD_ONLY: u32 = 1 << 15;

impl Fold<'_> {
    /// Of the installations whose entry was seen.
    pub(super) fn installations(&self) -> Option<Installations> {
        if !self.figures.has(Figure::Requests) {
            return None;
        }
        let of = |place: usize| ByRequests {
            before_requests: self.sample.counters[place],
            after_requests: self.sample.counters[place + 1],
        };
        let told = self.figures.has(Figure::UpdateKinds);
        let kinds = Installation::ALL.map(|kind| {
            let is_told = told || !matches!(kind, Installation::Fill | Installation::Replacement);
            is_told.then(|| of(Counter::Installations.of_installation(kind, false)))
        });
        let sum = |pick: fn(&ByRequests) -> u64| kinds.iter().flatten().map(pick).fold(0, u64::saturating_add);
        Some(Installations {
            all: ByRequests { before_requests: sum(|k| k.before_requests), after_requests: sum(|k| k.after_requests) },
            kinds: Kinds(kinds),
            emptying_updates: of(Counter::EmptyingUpdates as usize),
        })
    }

    /// Registrations by ring.
    pub(super) fn rings(&self) -> Option<Rings> {
        if !self.figures.has(Figure::Rings) {
            return None;
        }
        let ordinal = self.distribution(Histogram::RingOrdinal as usize);
        let list = self.figures.has(Figure::Processes).then(|| self.ring_list());
        let listed = list.iter().flatten().map(Ring::installations).fold(0, u64::saturating_add);
        Some(Rings {
            age: self.distribution(Histogram::RingAge as usize),
            gap: self.distribution(Histogram::RingGap as usize),
            unlisted: list.as_ref().map(|_| ordinal.count().saturating_sub(listed)),
            list,
            ordinal,
        })
    }

    fn ring_list(&self) -> Vec<Ring> {
        let mut rings: Vec<_> = self.sample.rings.iter().map(|totals| ring(totals, &self.figures)).collect();
        rings.sort_by_key(|ring| (Reverse(ring.installations()), ring.pid, ring.fd));
        rings
    }

    /// The cells in use.
    pub(super) fn costs(&self) -> Vec<CostCell> {
        let cells = self.sample.costs.iter().enumerate().filter(|(_, cost)| cost.buffers > 0);
        cells.map(|(cell, cost)| self.cost(cell, cost)).collect()
    }

    fn cost(&self, cell: usize, cost: &record::Cost) -> CostCell {
        let (vmas_from, vmas_to) = octave(cell / COST_PAGES, COST_VMAS);
        let (pages_from, pages_to) = octave(cell % COST_PAGES, COST_PAGES);
        let lookups = self.figures.has(Figure::Lookups);
        CostCell {
            vmas_from,
            vmas_to,
            pages_from,
            pages_to,
            buffers: cost.buffers,
            vmas: cost.vmas,
            bytes: cost.bytes,
            pin_ns: cost.pin_ns,
            passes: cost.passes,
            pass_vmas: cost.pass_vmas,
            pass_ns: cost.pass_ns,
            faults: (cost.untold_faults == 0).then_some(cost.faults),
            slow: lookups.then_some(cost.slow),
            slow_ns: lookups.then_some(cost.slow_ns),
        }
    }

    /// 0 is the registration, 1 the buffer.
    pub(super) fn largest(&self, which: usize) -> Option<Largest> {
        let largest =
            self.sample.largest.get(which).filter(|largest| largest.vmas > 0 && self.figures.has(Figure::Vmas))?;
        let time = if which == 0 { Figure::RegisterDuration } else { Figure::PinTime };
        Some(Largest {
            vmas: largest.vmas,
            bytes: largest.bytes,
            buffers: largest.buffers.into(),
            nanoseconds: self.figures.has(time).then_some(largest.nanoseconds),
            pid: process(largest.pid, largest.began_ns).into(),
            comm: comm(&largest.comm),
        })
    }

    /// Every buffer under each policy.
    pub(super) fn judgements(&self) -> Judgements {
        let others: Vec<_> = self.sample.judged.iter().filter_map(|entry| self.judged(entry)).collect();
        let lost = self.count(Counter::LostJudgements);
        let unwalked = [Counter::WalksBusy, Counter::WalksCut, Counter::WalksNone];
        let (policy, why) = &self.capabilities.policy;
        Judgements {
            clean: self.count(Counter::CleanBuffers),
            rolled_back: self.count(Counter::RolledBackBuffers),
            unjudged: unwalked.into_iter().map(|end| self.count(end)).fold(lost, u64::saturating_add),
            others,
            kernel_policy: *policy,
            kernel_policy_why: why.clone(),
        }
    }

    fn judged(&self, (key, totals): &(record::JudgedKey, record::JudgedTotals)) -> Option<Judged> {
        let process = process(key.pid, key.began_ns);
        Some(Judged {
            traits: key.traits,
            errno: i32::try_from(key.errno).ok()?,
            pid: (key.pid != 0).then(|| process.into()),
            comm: self.comm_of(process),
            filesystem: filesystem(key.kind, self.sample.filesystems.get(&key.filesystem).cloned()),
            class: key.kind.class(),
            buffers: totals.buffers,
            bytes: totals.bytes,
        })
    }

    /// Most buffers first.
    pub(super) fn shared_files(&self) -> Vec<SharedBufferFile> {
        let told = self.sample.shared_files.iter().map(|(key, file)| SharedBufferFile {
            pid: process(key.pid, key.began_ns).into(),
            comm: self.comm_of(process(key.pid, key.began_ns)),
            name: human::field(&file.name).into_owned(),
            filesystem: filesystem(Kind(file.kind as u32), self.sample.filesystems.get(&file.filesystem).cloned()),
            inode: key.inode,
            buffers: file.buffers,
        });
        let mut files: Vec<_> = told.collect();
        files.sort_by(|a, b| (Reverse(a.buffers), a.pid, &a.name).cmp(&(Reverse(b.buffers), b.pid, &b.name)));
        files
    }

    fn comm_of(&self, process: ProcessKey) -> String {
        let found = self.sample.processes.iter().find(|(key, _)| *key == process);
        found.map(|(_, totals)| comm(&totals.comm)).unwrap_or_default()
    }
}

fn process(pid: u32, began_ns: u64) -> ProcessKey {
    ProcessKey { began_ns, pid, reserved: 0 }
}

pub(super) fn ring(sampled: &SampledRing, figures: &Figures) -> Ring {
    let totals = &sampled.totals;
    let (requests, kinds) = (figures.has(Figure::Requests), figures.has(Figure::UpdateKinds));
    let seen = totals.created_ns != 0;
    let age = |at: u64| (seen && totals.installations > 0).then(|| at.saturating_sub(totals.created_ns));
    let (from_ns, gaps) = match sampled.before_ns {
        0 => (totals.first_ns, totals.installations.saturating_sub(1)),
        before_ns => (before_ns, totals.installations),
    };
    Ring {
        pid: process(totals.pid, totals.began_ns).into(),
        comm: comm(&totals.comm),
        fd: seen.then_some(totals.fd),
        flags: seen.then_some(totals.flags),
        registers: totals.installations.saturating_sub(totals.updates).saturating_sub(totals.clones),
        updates: totals.updates,
        clones: totals.clones,
        unregisters: totals.unregisters,
        failed: totals.failed,
        after_requests: requests.then_some(totals.after_requests),
        fills: kinds.then_some(totals.fills),
        fills_after_requests: (requests && kinds).then_some(totals.fills_after_requests),
        switches: requests.then_some(totals.switches),
        switch_gaps: requests.then_some(totals.switch_gaps),
        switch_span_ns: requests.then(|| match totals.switch_gaps {
            0 => 0,
            _ => totals.last_switch_ns.saturating_sub(totals.switches_from_ns),
        }),
        first_age_ns: age(totals.first_ns),
        last_age_ns: age(totals.last_ns),
        gaps,
        span_ns: if gaps > 0 { totals.last_ns.saturating_sub(from_ns) } else { 0 },
        shortest_gap_ns: (totals.shortest_gap_ns > 0).then_some(totals.shortest_gap_ns),
        from_ns: totals.switches_from_ns,
        last_ns: totals.last_switch_ns,
        ended: sampled.ended,
        indexed: totals.fd_registered != 0 || totals.flags & REGISTERED_FD_ONLY != 0,
    }
}

/// The values of an octave, both ends inclusive; the last one of `octaves` has no end.
fn octave(number: usize, octaves: usize) -> (u64, u64) {
    let from = 1 << number;
    (from, if number + 1 == octaves { u64::MAX } else { 2 * from - 1 })
}

pub(super) fn habits(habits: &record::Habits, figures: &Figures) -> Habits {
    let record::Habits {
        enomem,
        minor_faults,
        major_faults,
        faulting_pin_ns,
        faulting_bytes,
        untold_faults,
        large_buffers,
        large_bytes,
        large_bvecs,
        adjacent_buffers,
        adjacent_bytes,
        long_lists,
        repeated,
        repeated_ns,
        elsewhere,
        elsewhere_ns,
        many_vma_buffers,
        many_vmas,
        many_vma_lookups,
        many_vma_pin_ns,
    } = *habits;
    let of_pins = |count: u64| figures.has(Figure::PinTime).then_some(count);
    let of_lookups = |count: u64| (figures.has(Figure::Vmas) && figures.has(Figure::Lookups)).then_some(count);
    Habits {
        enomem: of_pins(enomem),
        minor_faults: of_pins(minor_faults),
        major_faults: of_pins(major_faults),
        faulting_pin_ns: of_pins(faulting_pin_ns),
        faulting_bytes: of_pins(faulting_bytes),
        untold_faults: of_pins(untold_faults).filter(|_| figures.has(Figure::HugePageFaults)),
        large_buffers,
        large_bytes,
        large_bvecs,
        adjacent_buffers,
        adjacent_bytes,
        long_lists,
        repeated,
        repeated_ns,
        elsewhere,
        elsewhere_ns,
        many_vma_buffers: of_lookups(many_vma_buffers),
        many_vmas: of_lookups(many_vmas),
        many_vma_lookups: of_lookups(many_vma_lookups),
        many_vma_pin_ns: of_lookups(many_vma_pin_ns),
    }
}
