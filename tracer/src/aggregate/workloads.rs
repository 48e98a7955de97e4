//! Counts by cgroup to counts by workload: how many have series of their own, and what becomes of those that are gone. Pure:
//! readings and times come in, and the ids of entries that have told all come out.
//!
//! A cgroup takes a *seat* at a workload's series, or belongs to `other`. What it counted before it took its seat stays with
//! `other`, so no counter ever goes back. Where seats are short they are shared by owner (a top-level unit, a user, a pod): one
//! that has more than another, and one more to spare, gives up the seat that was quiet for longest. Between owners with as many,
//! a workload that calls takes the seat of one that has not called for [`KEPT_NS`]. What a series had counted when it ended goes to `ended`, never to `other`: all of it
//! comes in one step and was counted under its name before, and a rate over `other` must show neither. The sum over the series,
//! `other` and `ended` is what all cgroups counted together.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_ebpf::workload::{Slot, WorkloadTotals};

use super::registered::{Share, Shares};
use crate::{
    decode::workload::Workload,
    figure::{Figure, Figures},
    sample::workloads::Reading,
};

/// The series of a workload of which no cgroup is left ends after this, and after [`SHOWN`] readings: its last increments
/// have been seen by then.
const KEPT_NS: u64 = 300_000_000_000;
/// See [`KEPT_NS`].
const SHOWN: u32 = 2;

/// A cgroup that is gone is read once more after this: a call of its last task that was at its end is counted by then.
const SETTLED_NS: u64 = 1_000_000_000;

/// The figures by workload; [`WorkloadFigures`] says which of a row's counts are known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Workloads {
    /// Those with series of their own, by name, then `other`, then `ended`.
    pub rows: Vec<Row>,
    /// What has no series of its own.
    pub folded: Folded,
    /// Calls under `other` since their cgroup had no room in the map, or could not be told.
    pub unattributed: u64,
    /// There are more cgroups than were looked through for those without a whole path.
    pub folders_cut: bool,
    /// Which of the counts are known.
    pub told: WorkloadFigures,
}

/// Which counts this session tells.
#[expect(clippy::struct_excessive_bools, reason = "each stands for hooks that may be missing by themselves")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkloadFigures {
    /// Durations.
    pub durations: bool,
    /// Buffers and bytes.
    pub buffers: bool,
    /// Time of the pins, page faults.
    pub pins: bool,
    /// VMAs, policies.
    pub walk: bool,
    /// Whether a ring had been given requests.
    pub requests: bool,
}

impl WorkloadFigures {
    /// What the attached probes tell.
    pub fn of(figures: &Figures) -> Self {
        Self {
            durations: figures.has(Figure::RegisterDuration),
            buffers: figures.has(Figure::Buffers),
            pins: figures.has(Figure::PinTime),
            walk: figures.has(Figure::Vmas),
            requests: figures.has(Figure::Requests),
        }
    }
}

/// One workload's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Which.
    pub workload: Workload,
    /// Its counts, spread.
    #[serde(with = "totals")]
    #[schemars(with = "Vec<u64>")]
    pub totals: WorkloadTotals,
    /// What it has registered now; `None` where that is not followed.
    pub registered: Option<Share>,
}

/// The counts by the number of their [`Slot`], up to the last that is not 0.
mod totals {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tracer_ebpf::workload::WorkloadTotals;

    pub(super) fn serialize<S: Serializer>(totals: &WorkloadTotals, serializer: S) -> Result<S::Ok, S::Error> {
        let used = totals.0.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        totals.0[..used].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkloadTotals, D::Error> {
        let mut totals = WorkloadTotals::ZERO;
        for (slot, count) in totals.0.iter_mut().zip(Vec::<u64>::deserialize(deserializer)?) {
            *slot = count;
        }
        Ok(totals)
    }
}

impl Row {
    /// Registers, updates and clones.
    pub const fn calls(&self) -> u64 {
        calls(&self.totals)
    }
}

const fn calls(totals: &WorkloadTotals) -> u64 {
    let short = totals.get(Slot::Partial).saturating_add(totals.get(Slot::Failed));
    totals.get(Slot::Succeeded).saturating_add(short)
}

/// What has no series of its own, counted once each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Folded {
    /// Cgroups whose workload found all seats taken, or gave its seat to another: they are in `other`.
    pub cap: u64,
    /// Series that ended: they are in `ended`.
    pub gone: u64,
    /// Cgroups of which no path was to be had: they are in `other`.
    pub unnamed: u64,
}

/// Keeps the series from one reading to the next.
#[derive(Debug)]
pub struct SeriesKeeper {
    /// Most series besides `other` and `ended`.
    cap: usize,
    cgroups: BTreeMap<u64, Cgroup>,
    series: BTreeMap<String, Series>,
    /// Counts that no cgroup holds any more, or that were made before their cgroup took its seat.
    other: WorkloadTotals,
    /// Of series that ended.
    ended: WorkloadTotals,
    /// What is in `other` and of no cgroup.
    rest: WorkloadTotals,
    folded: Folded,
    /// Cgroups seen so far: the order in which they came.
    seen: u64,
}

#[derive(Debug)]
struct Cgroup {
    order: u64,
    workload: Option<Workload>,
    seated: bool,
    /// It was in a reading without a seat, and is counted as such.
    refused: bool,
    last: WorkloadTotals,
    /// Of `last`, what is in `other` or `ended` for good.
    settled: WorkloadTotals,
    /// When it was last seen to have called.
    active_ns: u64,
    gone_ns: Option<u64>,
}

impl Cgroup {
    /// What it counted that is not settled: its series' while it has a seat, else that of `other`.
    fn own(&self) -> WorkloadTotals {
        self.last.minus(&self.settled)
    }
}

#[derive(Debug)]
struct Series {
    workload: Workload,
    /// Of cgroups that are forgotten.
    past: WorkloadTotals,
    /// Cgroups at it.
    cgroups: usize,
    /// When the last of them was forgotten, and readings since.
    idle: Option<(u64, u32)>,
    /// When one of its cgroups was last seen to have called.
    active_ns: u64,
    /// It was in a reading's figures.
    shown: bool,
}

impl SeriesKeeper {
    /// No workload yet, and room for so many.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            cgroups: BTreeMap::new(),
            series: BTreeMap::new(),
            other: WorkloadTotals::default(),
            ended: WorkloadTotals::default(),
            rest: WorkloadTotals::default(),
            folded: Folded::default(),
            seen: 0,
        }
    }

    /// Whether the cgroup's workload is known already.
    pub fn knows(&self, id: u64) -> bool {
        self.cgroups.get(&id).is_some_and(|cgroup| cgroup.workload.is_some())
    }

    /// Takes in what was read at `now_ns` of every cgroup, and of the entry that stands for `rest`. Gives the cgroups that
    /// have told all: the caller deletes their entries, then calls [`SeriesKeeper::forget`] for each that it deleted.
    pub fn read(&mut self, now_ns: u64, readings: Vec<Reading>, rest: WorkloadTotals) -> Vec<u64> {
        self.rest = rest;
        let mut told_all = Vec::new();
        for reading in readings {
            let id = reading.id;
            if self.take_in(now_ns, reading) {
                told_all.push(id);
            }
        }
        // Whoever comes back to its series has it before that ends, or goes to another.
        for id in self.waiting() {
            self.join(id);
        }
        self.end_series(now_ns);
        self.seat_all(now_ns);
        self.count_refused();
        self.series.values_mut().for_each(|series| series.shown = true);
        told_all
    }

    /// Whether the cgroup has told all.
    fn take_in(&mut self, now_ns: u64, reading: Reading) -> bool {
        let cgroup = match self.cgroups.entry(reading.id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.seen += 1;
                self.folded.unnamed += u64::from(reading.workload.is_none());
                entry.insert(Cgroup {
                    order: self.seen,
                    workload: None,
                    seated: false,
                    refused: false,
                    last: WorkloadTotals::default(),
                    settled: WorkloadTotals::default(),
                    active_ns: now_ns,
                    gone_ns: None,
                })
            }
        };
        if cgroup.workload.is_none() {
            cgroup.workload = reading.workload;
        }
        if cgroup.last != reading.totals {
            cgroup.active_ns = now_ns;
            let series = cgroup.workload.as_ref().filter(|_| cgroup.seated).and_then(|w| self.series.get_mut(&w.name));
            if let Some(series) = series {
                series.active_ns = now_ns;
            }
        }
        cgroup.last = reading.totals;
        let since = reading.gone.then(|| cgroup.gone_ns.unwrap_or(now_ns));
        cgroup.gone_ns = since;
        since.is_some_and(|since| now_ns.saturating_sub(since) >= SETTLED_NS)
    }

    /// Cgroups without a seat whose workload is known, in the order in which they came.
    fn waiting(&self) -> Vec<u64> {
        let waiting = self.cgroups.iter().filter(|(_, cgroup)| !cgroup.seated && cgroup.workload.is_some());
        let mut waiting: Vec<_> = waiting.map(|(id, cgroup)| (cgroup.order, *id)).collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, id)| id).collect()
    }

    /// Gives seats to cgroups without one.
    fn seat_all(&mut self, now_ns: u64) {
        let mut seats = Seats::of(&self.series);
        for id in self.waiting() {
            if !self.join(id) && self.make_series(now_ns, id, &mut seats) {
                self.join(id);
            }
        }
    }

    /// Makes a series for the cgroup's workload, where there is room or another gives its seat up.
    fn make_series(&mut self, now_ns: u64, id: u64, seats: &mut Seats) -> bool {
        let Some(cgroup) = self.cgroups.get(&id) else { return false };
        let Some(workload) = cgroup.workload.clone() else { return false };
        // One that is gone and was refused a seat while it lived gets none any more.
        if cgroup.refused && cgroup.gone_ns.is_some() {
            return false;
        }
        let active_ns = cgroup.active_ns;
        if self.series.len() >= self.cap {
            let calls = now_ns.saturating_sub(active_ns) < KEPT_NS;
            let Some(name) = seats.given_up(&self.series, &workload.owner, now_ns, calls) else { return false };
            self.evict(&name);
            seats.leave(&name);
        }
        seats.take(&workload);
        let past = WorkloadTotals::default();
        let name = workload.name.clone();
        self.series.insert(name, Series { workload, past, cgroups: 0, idle: None, active_ns, shown: false });
        true
    }

    /// Gives the cgroup a seat at its workload's series, if that has one.
    fn join(&mut self, id: u64) -> bool {
        let Some(cgroup) = self.cgroups.get_mut(&id) else { return false };
        let series = cgroup.workload.as_ref().and_then(|workload| self.series.get_mut(&workload.name));
        let Some(series) = series else { return false };
        series.cgroups += 1;
        series.idle = None;
        series.active_ns = series.active_ns.max(cgroup.active_ns);
        cgroup.seated = true;
        // It was shown under `other` before.
        if cgroup.refused {
            self.other = self.other.plus(&cgroup.own());
            cgroup.settled = cgroup.last;
        }
        true
    }

    /// Takes a series' seat. What it showed is in `ended` from then on, and its cgroups' further calls are in `other`.
    fn evict(&mut self, name: &str) {
        let Some(series) = self.series.remove(name) else { return };
        self.folded.gone += u64::from(series.cgroups == 0);
        let of_it = |cgroup: &&mut Cgroup| {
            cgroup.seated && cgroup.workload.as_ref().is_some_and(|workload| workload.name == name)
        };
        for cgroup in self.cgroups.values_mut().filter(of_it) {
            cgroup.seated = false;
            if series.shown {
                self.ended = self.ended.plus(&cgroup.own());
                cgroup.settled = cgroup.last;
            }
        }
        self.ended = self.ended.plus(&series.past);
    }

    /// Ends the series that were shown long enough without a cgroup.
    fn end_series(&mut self, now_ns: u64) {
        let Self { series, ended, folded, .. } = self;
        series.retain(|_, series| {
            let Some((since, readings)) = &mut series.idle else { return true };
            let keeps = now_ns.saturating_sub(*since) < KEPT_NS || *readings < SHOWN;
            *readings = readings.saturating_add(1);
            if !keeps {
                *ended = ended.plus(&series.past);
                folded.gone += 1;
            }
            keeps
        });
    }

    fn count_refused(&mut self) {
        for cgroup in self.cgroups.values_mut() {
            if !cgroup.seated && !cgroup.refused {
                cgroup.refused = true;
                self.folded.cap += u64::from(cgroup.workload.is_some());
            }
        }
    }

    /// Its entry is deleted: what it counted stays with its series.
    pub fn forget(&mut self, now_ns: u64, id: u64) {
        let Some(cgroup) = self.cgroups.remove(&id) else { return };
        let own = cgroup.own();
        let name = cgroup.workload.as_ref().map(|workload| &workload.name);
        match name.filter(|_| cgroup.seated).and_then(|name| self.series.get_mut(name)) {
            Some(series) => {
                series.past = series.past.plus(&own);
                series.cgroups = series.cgroups.saturating_sub(1);
                if series.cgroups == 0 {
                    series.idle = Some((now_ns, 0));
                }
            }
            None => self.other = self.other.plus(&own),
        }
    }

    /// By the names of the rows. A cgroup without a seat, or that is gone, is in `other`.
    fn registered(&self, shares: &Shares) -> BTreeMap<String, Share> {
        let mut rows: BTreeMap<String, Share> = BTreeMap::new();
        for (id, share) in shares {
            let seated = self.cgroups.get(id).filter(|cgroup| cgroup.seated);
            let workload = seated.and_then(|cgroup| cgroup.workload.as_ref());
            let name = workload.map_or_else(|| Workload::other().name, |workload| workload.name.clone());
            *rows.entry(name).or_default() += *share;
        }
        rows
    }

    /// The figures as of the last reading, and what each cgroup has registered.
    pub fn workloads(&self, told: WorkloadFigures, shares: Option<&Shares>) -> Workloads {
        let mut sums: BTreeMap<&str, WorkloadTotals> =
            self.series.iter().map(|(name, series)| (name.as_str(), series.past)).collect();
        let mut other = self.other.plus(&self.rest);
        for cgroup in self.cgroups.values() {
            let name = cgroup.workload.as_ref().map(|workload| workload.name.as_str());
            match name.filter(|_| cgroup.seated).and_then(|name| sums.get_mut(name)) {
                Some(sum) => *sum = sum.plus(&cgroup.own()),
                None => other = other.plus(&cgroup.own()),
            }
        }
        let own = self.series.values().zip(sums.values());
        let mut registered = shares.map(|shares| self.registered(shares));
        let mut row = |workload: Workload, totals: WorkloadTotals| Row {
            registered: registered.as_mut().map(|shares| shares.remove(&workload.name).unwrap_or_default()),
            totals: totals.spread(),
            workload,
        };
        let own: Vec<_> = own.map(|(series, sum)| row(series.workload.clone(), *sum)).collect();
        let other = row(Workload::other(), other);
        let ended = row(Workload::ended(), self.ended);
        let rest = self.rest.spread();
        Workloads {
            rows: own.into_iter().chain([other, ended]).collect(),
            folded: self.folded,
            unattributed: calls(&rest),
            folders_cut: false,
            told,
        }
    }
}

/// Who has how many of the seats.
struct Seats {
    /// Series by owner.
    by_owner: BTreeMap<String, BTreeSet<String>>,
}

impl Seats {
    fn of(series: &BTreeMap<String, Series>) -> Self {
        let mut seats = Self { by_owner: BTreeMap::new() };
        for series in series.values() {
            seats.take(&series.workload);
        }
        seats
    }

    fn take(&mut self, workload: &Workload) {
        self.by_owner.entry(workload.owner.clone()).or_default().insert(workload.name.clone());
    }

    fn leave(&mut self, name: &str) {
        for names in self.by_owner.values_mut() {
            names.remove(name);
        }
    }

    fn count(&self, owner: &str) -> usize {
        self.by_owner.get(owner).map_or(0, BTreeSet::len)
    }

    /// The series whose seat a workload of `owner` may take; `calls` where that has called within [`KEPT_NS`].
    fn given_up(&self, series: &BTreeMap<String, Series>, owner: &str, now_ns: u64, calls: bool) -> Option<String> {
        let own = self.count(owner);
        // Who was quiet for longest; among those the last by name, so that it is always the same.
        let quietest = |names: &mut dyn Iterator<Item = &String>| {
            let all = names.filter_map(|name| Some((Reverse(series.get(name)?.active_ns), name)));
            all.max().map(|(Reverse(active_ns), name)| (active_ns, name.clone()))
        };
        let richest = self.by_owner.values().max_by_key(|names| names.len())?;
        if richest.len() > own + 1 {
            return quietest(&mut richest.iter()).map(|(_, name)| name);
        }
        let others = self.by_owner.values().filter(|names| names.len() >= own);
        let (active_ns, name) = quietest(&mut others.flatten()).filter(|_| calls)?;
        (now_ns.saturating_sub(active_ns) >= KEPT_NS).then_some(name)
    }
}

#[cfg(test)]
mod tests;
