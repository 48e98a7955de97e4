use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn counted(calls: u64) -> WorkloadTotals {
    let mut totals = WorkloadTotals::default();
    totals.0[Slot::Succeeded as usize] = calls;
    totals.0[Slot::Plain as usize] = 2 * calls;
    totals.0[Slot::Bytes as usize] = 4096 * calls;
    totals
}

fn reading(id: u64, name: &str, calls: u64) -> Reading {
    let workload = Workload::at(&format!("/system.slice/{name}.service"));
    Reading { id, totals: counted(calls), workload: Some(workload), gone: false }
}

fn gone(id: u64, name: &str, calls: u64) -> Reading {
    Reading { gone: true, ..reading(id, name, calls) }
}

/// What the reading leads to: forgets what may be.
fn read(folder: &mut SeriesKeeper, at: u64, readings: Vec<Reading>) -> (Workloads, Vec<u64>) {
    let told_all = folder.read(at * SECOND, readings, WorkloadTotals::default());
    for id in &told_all {
        folder.forget(at * SECOND, *id);
    }
    (folder.workloads(WorkloadFigures::default(), None), told_all)
}

/// Successes by name, those that were counted together among them; `ended` once there are any.
fn successes(workloads: &Workloads) -> BTreeMap<&str, u64> {
    let rows = workloads.rows.iter().map(|row| (row.workload.name.as_str(), row.totals.get(Slot::Succeeded)));
    rows.filter(|row| *row != ("ended", 0)).collect()
}

fn all<'a>(pairs: &[(&'a str, u64)]) -> BTreeMap<&'a str, u64> {
    pairs.iter().copied().collect()
}

#[test]
fn cgroups_of_one_workload_are_summed() {
    let mut folder = SeriesKeeper::new(10);
    let (workloads, _) = read(&mut folder, 0, vec![reading(1, "a", 1), reading(2, "a", 2), reading(3, "b", 4)]);
    assert_eq!(successes(&workloads), all(&[("a.service", 9), ("b.service", 12), ("other", 0)]));
    let names: Vec<&str> = workloads.rows.iter().map(|row| row.workload.name.as_str()).collect();
    assert_eq!(names, ["a.service", "b.service", "other", "ended"]);
    assert_eq!(workloads.folded, Folded::default());
    assert!(folder.knows(1) && !folder.knows(4));
}

#[test]
fn the_first_keep_their_seats_and_who_waits_takes_one_that_comes_free() {
    let mut folder = SeriesKeeper::new(1);
    let (workloads, _) = read(&mut folder, 0, vec![reading(5, "a", 1)]);
    assert_eq!(successes(&workloads), all(&[("a.service", 3), ("other", 0)]));
    let (workloads, _) = read(&mut folder, 10, vec![reading(1, "b", 10), reading(5, "a", 2)]);
    assert_eq!(successes(&workloads), all(&[("a.service", 6), ("other", 30)]));
    assert_eq!(workloads.folded.cap, 1);
    // The first is gone, and keeps its series for a while.
    let (_, told_all) = read(&mut folder, 20, vec![reading(1, "b", 11), gone(5, "a", 3)]);
    assert!(told_all.is_empty());
    let (workloads, told_all) = read(&mut folder, 22, vec![reading(1, "b", 12), gone(5, "a", 4)]);
    assert_eq!((told_all, successes(&workloads)), (vec![5], all(&[("a.service", 12), ("other", 36)])));
    for at in [30, 40, 321] {
        let (workloads, _) = read(&mut folder, at, vec![reading(1, "b", 12)]);
        assert_eq!(successes(&workloads), all(&[("a.service", 12), ("other", 36)]), "after {at} s");
    }
    // Then its seat goes to the one that waits, whose past stays where it was; `other` does not move.
    let (workloads, _) = read(&mut folder, 322, vec![reading(1, "b", 13)]);
    assert_eq!(successes(&workloads), all(&[("b.service", 0), ("other", 39), ("ended", 12)]));
    let (workloads, _) = read(&mut folder, 330, vec![reading(1, "b", 15)]);
    assert_eq!(successes(&workloads), all(&[("b.service", 6), ("other", 39), ("ended", 12)]));
    assert_eq!(workloads.folded, Folded { cap: 1, gone: 1, unnamed: 0 });
}

fn of_user(id: u64, name: &str, calls: u64) -> Reading {
    let path = format!("/user.slice/user-1000.slice/user@1000.service/{name}.scope");
    Reading { workload: Some(Workload::at(&path)), ..reading(id, "", calls) }
}

#[test]
fn seats_are_shared_fairly_by_owner() {
    let mut folder = SeriesKeeper::new(4);
    let scopes = |calls: u64| (1..=9).map(move |id| of_user(id, &format!("s{id}"), calls + id)).collect::<Vec<_>>();
    let names = |workloads: &Workloads| {
        let rows = workloads.rows.iter().filter(|row| !row.workload.kind.is_many());
        rows.map(|row| row.workload.name.clone()).collect::<Vec<_>>()
    };
    let (workloads, _) = read(&mut folder, 0, scopes(1));
    assert_eq!(names(&workloads).len(), 4);
    let sum = |workloads: &Workloads| successes(workloads).values().sum::<u64>();
    // Two services come: each has a seat at once, and so has the user as many as both.
    let with = |calls, more: Vec<Reading>| [scopes(calls), more].concat();
    let (workloads, _) = read(&mut folder, 10, with(2, vec![reading(20, "a", 1), reading(21, "b", 1)]));
    assert_eq!(
        names(&workloads),
        ["a.service", "b.service", "user@1000.service/s1.scope", "user@1000.service/s2.scope"]
    );
    assert_eq!(sum(&workloads), 3 * ((1..=9).map(|id| 2 + id).sum::<u64>() + 2));
    // What the other two had shown is not in `other`, whose rate would show it.
    assert_eq!(successes(&workloads)["ended"], 3 * (2 + 3 + 2 + 4));
    let (workloads, _) =
        read(&mut folder, 20, with(2, vec![reading(20, "a", 1), reading(21, "b", 1), reading(22, "c", 1)]));
    assert_eq!(names(&workloads), ["a.service", "b.service", "c.service", "user@1000.service/s1.scope"]);
    // All have one each: who comes later waits, as long as the others call.
    let five = |a, d| with(a, vec![reading(20, "a", a), reading(21, "b", a), reading(22, "c", 1), reading(23, "d", d)]);
    let (workloads, _) = read(&mut folder, 30, five(3, 1));
    assert_eq!(names(&workloads), ["a.service", "b.service", "c.service", "user@1000.service/s1.scope"]);
    let (workloads, _) = read(&mut folder, 319, five(4, 2));
    assert_eq!(names(&workloads), ["a.service", "b.service", "c.service", "user@1000.service/s1.scope"]);
    // c has not called for five minutes.
    let (workloads, _) = read(&mut folder, 320, five(5, 3));
    assert_eq!(names(&workloads), ["a.service", "b.service", "d.service", "user@1000.service/s1.scope"]);
    assert_eq!(sum(&workloads), 3 * ((1..=9).map(|id| 5 + id).sum::<u64>() + 5 + 5 + 1 + 3));
}

#[test]
fn a_series_is_shown_twice_however_late() {
    let mut folder = SeriesKeeper::new(1);
    read(&mut folder, 0, vec![gone(1, "a", 1)]);
    let (_, told_all) = read(&mut folder, 2, vec![gone(1, "a", 1)]);
    assert_eq!(told_all, [1]);
    for at in [10_000, 20_000] {
        assert_eq!(successes(&read(&mut folder, at, vec![]).0), all(&[("a.service", 3), ("other", 0)]));
    }
    assert_eq!(successes(&read(&mut folder, 30_000, vec![]).0), all(&[("other", 0), ("ended", 3)]));
}

#[test]
fn a_workload_that_comes_back_goes_on() {
    let mut folder = SeriesKeeper::new(1);
    read(&mut folder, 0, vec![gone(1, "a", 1)]);
    read(&mut folder, 2, vec![gone(1, "a", 1)]);
    // A restart: another cgroup of the same name, long after.
    read(&mut folder, 200, vec![]);
    let (workloads, _) = read(&mut folder, 1000, vec![reading(2, "a", 1)]);
    assert_eq!(successes(&workloads), all(&[("a.service", 6), ("other", 0)]));
}

#[test]
fn without_a_name_it_is_other_until_it_has_one() {
    let mut folder = SeriesKeeper::new(1);
    let unnamed = |calls| Reading { workload: None, ..reading(1, "a", calls) };
    let (workloads, _) = read(&mut folder, 0, vec![unnamed(1)]);
    assert_eq!((successes(&workloads), workloads.folded.unnamed), (all(&[("other", 3)]), 1));
    let (workloads, _) = read(&mut folder, 1, vec![reading(1, "a", 2)]);
    assert_eq!(successes(&workloads), all(&[("a.service", 0), ("other", 6)]));
    let (workloads, _) = read(&mut folder, 2, vec![reading(1, "a", 3)]);
    assert_eq!(successes(&workloads), all(&[("a.service", 3), ("other", 6)]));
}

#[test]
fn what_is_not_attributed_is_in_other() {
    let mut folder = SeriesKeeper::new(1);
    folder.read(0, vec![reading(1, "a", 1)], counted(5));
    let workloads = folder.workloads(WorkloadFigures::default(), None);
    assert_eq!((successes(&workloads), workloads.unattributed), (all(&[("a.service", 3), ("other", 15)]), 15));
}

#[test]
fn what_is_registered_goes_to_the_row_of_its_cgroup() {
    let share = |bytes| Share { buffers: 1, bytes, pinned: bytes };
    let mut folder = SeriesKeeper::new(1);
    folder.read(0, vec![reading(1, "a", 1), reading(2, "b", 1), reading(3, "a", 1)], counted(0));
    let shares = [(1, share(10)), (2, share(200)), (3, share(3000)), (77, share(40_000))].into();
    let registered = |shares| {
        let rows = folder.workloads(WorkloadFigures::default(), shares).rows;
        rows.into_iter().map(|row| (row.workload.name, row.registered.map(|share| share.bytes))).collect::<Vec<_>>()
    };
    let rows = |a, other, ended| [("a.service", a), ("other", other), ("ended", ended)].map(|(n, b)| (n.to_owned(), b));
    assert_eq!(registered(Some(&shares)), rows(Some(3010), Some(40_200), Some(0)));
    assert_eq!(registered(None), rows(None, None, None));
}

/// A machine in small: what its cgroups counted, which are there, which have an entry.
#[derive(Default)]
struct Machine {
    /// By id: workload's number, calls, whether it is gone.
    entries: BTreeMap<u64, (u8, u64, bool)>,
    rest: u64,
    next: u64,
    truth: u64,
}

#[derive(Clone, Debug)]
enum Event {
    /// A cgroup of this workload begins.
    Begin(u8),
    /// So many calls in one of those that are there.
    Call(usize, u64),
    /// One of them ends.
    End(usize),
    /// A reading after so many milliseconds; its deletions fail where the second says so.
    Read(u64, bool),
}

/// More entries than this the machine's map does not hold.
const ENTRIES: usize = 12;

impl Machine {
    fn pick(&mut self, which: usize) -> Option<&mut (u8, u64, bool)> {
        let alive = self.entries.values_mut().filter(|entry| !entry.2);
        let mut alive: Vec<_> = alive.collect();
        if alive.is_empty() { None } else { Some(alive.swap_remove(which % alive.len())) }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Begin(workload) if self.entries.len() < ENTRIES => {
                self.next += 1;
                self.entries.insert(self.next, (workload, 1, false));
                self.truth += 1;
            }
            Event::Begin(_) => {
                self.rest += 1;
                self.truth += 1;
            }
            Event::Call(which, calls) => {
                if let Some(entry) = self.pick(which) {
                    entry.1 += calls;
                    self.truth += calls;
                }
            }
            Event::End(which) => {
                if let Some(entry) = self.pick(which) {
                    entry.2 = true;
                }
            }
            Event::Read(..) => {}
        }
    }

    /// Every fifth workload has no name.
    fn readings(&self) -> Vec<Reading> {
        let entries = self.entries.iter();
        entries
            .map(|(id, (workload, calls, gone))| Reading {
                workload: (workload % 5 != 4).then(|| Workload::at(&format!("/w{workload}.service"))),
                gone: *gone,
                ..reading(*id, "", *calls)
            })
            .collect()
    }
}

fn an_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..12_u8).prop_map(Event::Begin),
        4 => (any::<usize>(), 1..100_u64).prop_map(|(which, calls)| Event::Call(which, calls)),
        3 => any::<usize>().prop_map(Event::End),
        4 => (0..200_000_u64, prop::bool::weighted(0.1)).prop_map(|(ms, fails)| Event::Read(ms, fails)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_is_lost_and_no_counter_goes_back(cap in 1..6_usize, events in prop::collection::vec(an_event(), 1..120)) {
        let (mut machine, mut folder, mut now) = (Machine::default(), SeriesKeeper::new(cap), 0);
        let mut shown: BTreeMap<String, WorkloadTotals> = BTreeMap::new();
        let mut truth = 0;
        for event in events {
            machine.apply(&event);
            let Event::Read(milliseconds, fails) = event else { continue };
            now += milliseconds * 1_000_000;
            for id in folder.read(now, machine.readings(), counted(machine.rest)) {
                prop_assert!(machine.entries[&id].2, "{} has told all and is alive", id);
                if !fails {
                    machine.entries.remove(&id);
                    folder.forget(now, id);
                }
            }
            let workloads = folder.workloads(WorkloadFigures::default(), None);
            let rows: BTreeMap<String, WorkloadTotals> =
                workloads.rows.iter().map(|row| (row.workload.name.clone(), row.totals)).collect();
            prop_assert_eq!(rows.len(), workloads.rows.len());
            prop_assert!(rows.len() <= cap + 2 && rows.contains_key("other") && rows.contains_key("ended"));
            let sum = rows.values().fold(WorkloadTotals::default(), |sum, row| sum.plus(row));
            prop_assert_eq!(sum, counted(machine.truth).spread());
            for (name, before) in &shown {
                if let Some(after) = rows.get(name) {
                    prop_assert!(before.0.iter().zip(&after.0).all(|(before, after)| before <= after), "{}", name);
                }
            }
            // A rate over `other` shows calls that were made since, and none from before.
            let other = |rows: &BTreeMap<String, WorkloadTotals>| rows.get("other").map_or(0, |row| row.get(Slot::Succeeded));
            let made = 3 * (machine.truth - truth);
            prop_assert!(other(&rows) - other(&shown) <= made, "{} more in other, {} made", other(&rows) - other(&shown), made);
            truth = machine.truth;
            // Memory is bounded by the map and the cap.
            prop_assert!(folder.cgroups.len() <= ENTRIES && folder.series.len() <= cap);
            shown = rows;
        }
    }

    #[test]
    fn who_lives_and_calls_keeps_its_series(cap in 1..6_usize, events in prop::collection::vec(an_event(), 1..120)) {
        let (mut machine, mut folder, mut now) = (Machine::default(), SeriesKeeper::new(cap), 0);
        let mut seated: BTreeSet<String> = BTreeSet::new();
        // Of each cgroup its workload, when it was last seen to have called, and what it had counted.
        let mut called: BTreeMap<u64, (String, u64, u64)> = BTreeMap::new();
        for event in events {
            machine.apply(&event);
            let Event::Read(milliseconds, _) = event else { continue };
            now += milliseconds * 1_000_000;
            for (id, (workload, calls, _)) in &machine.entries {
                let before = called.get(id).filter(|(_, _, counted)| counted == calls);
                let at = before.map_or(now, |(_, at, _)| *at);
                called.insert(*id, (format!("w{workload}.service"), at, *calls));
            }
            for id in folder.read(now, machine.readings(), WorkloadTotals::default()) {
                machine.entries.remove(&id);
                // What one did without a seat gives its workload none once it is gone.
                if !folder.cgroups[&id].seated {
                    called.remove(&id);
                }
                folder.forget(now, id);
            }
            let alive: BTreeSet<String> = machine
                .entries
                .values()
                .filter(|(workload, _, gone)| workload % 5 != 4 && !gone)
                .map(|(workload, ..)| format!("w{workload}.service"))
                .collect();
            let quiet = |name: &String| called.values().all(|(of, at, _)| of != name || now - at >= KEPT_NS);
            let names: BTreeSet<String> = folder.series.keys().cloned().collect();
            prop_assert!(seated.intersection(&alive).all(|name| names.contains(name) || quiet(name)));
            // No seat stays empty while somebody waits.
            prop_assert!(names.len() == cap || alive.is_subset(&names));
            seated = names;
        }
    }
}
