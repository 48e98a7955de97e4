//! Q1: whether buffers are registered once at set-up, or sets are switched at run time.

use std::cmp::Reverse;

use tracer_ebpf::installation::Installation;

use super::{
    Answer, Context, Draft, Question, Table, Value,
    classes::{Class, Owner, RUN_TIME_LEAST, SETUP_AGE_NS, THRESHOLDS, class, owners, rate},
    evidence::{Column, named, sum},
    reasons,
};
use crate::{
    aggregate::{ByRequests, Installations, Ring, Rings, Snapshot},
    figure::{Figure, FigureSet},
    human,
    probe::table::RING,
};

pub(super) const QUESTION: Question = Question {
    id: "Q1",
    text: "Are buffers registered once at set-up, or do programs switch sets at run time?",
    roles: &["register", "update", "clone", "ledger", "ring"],
    figures: FigureSet::of(&[Figure::Results, Figure::EveryCall, Figure::Rings, Figure::Requests, Figure::UpdateKinds]),
};

const RINGS: &[Column] = &[
    Column { key: "process", head: "ring of" },
    Column { key: "fd", head: "fd" },
    Column { key: "class", head: "class" },
    Column { key: "installations", head: "sets" },
    Column { key: "after_requests", head: "after" },
    Column { key: "switches", head: "switch" },
    Column { key: "rate_per_second", head: "rate" },
    Column { key: "first_age_ns", head: "first" },
    Column { key: "shortest_gap_ns", head: "gap" },
];

const PROCESSES: &[Column] = &[
    Column { key: "process", head: "process" },
    Column { key: "class", head: "class" },
    Column { key: "rings", head: "rings" },
    Column { key: "run_time_rings", head: "at run time" },
    Column { key: "replaced_rings", head: "replaced" },
    Column { key: "installations", head: "sets" },
    Column { key: "rate_per_second", head: "rate" },
];

const OPERATIONS: &[Column] = &[
    Column { key: "what", head: "on rings" },
    Column { key: "registers", head: "registers" },
    Column { key: "updates", head: "updates" },
    Column { key: "clones", head: "clones" },
    Column { key: "fills", head: "fills" },
    Column { key: "unregisters", head: "unregisters" },
    Column { key: "failed", head: "failed" },
];

const TIMES: &[Column] = &[
    Column { key: "what", head: "at an installation" },
    Column { key: "count", head: "count" },
    Column { key: "p50_ns", head: "p50" },
    Column { key: "p90_ns", head: "p90" },
    Column { key: "p99_ns", head: "p99" },
    Column { key: "max_ns", head: "max" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context) -> Answer {
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    let Some(rings) = &snapshot.rings else { return without_rings(snapshot, context) };
    let list = rings.list.as_deref().unwrap_or_default();
    let list: Vec<_> = list.iter().filter(|ring| ring.installations() > 0).cloned().collect();
    let mut why = reasons::of(snapshot, &QUESTION);
    let verdict = if rings.list.is_none() {
        why.push("rings are not kept apart in this session, so none has a class".to_owned());
        totals(snapshot.installations.as_ref(), Some(rings))
    } else if let Some(verdict) = verdict(&list, snapshot.elapsed_ns) {
        why.extend(doubts(snapshot, rings, &list));
        verdict
    } else {
        let all = human::plural(list.len() as u64, "ring");
        let unknown = match requests_untold(snapshot, &list) {
            Some(why) => format!("{all} without a class: {why}"),
            None => format!("{all} installed once each and had been there before pinscope: it may have been set-up"),
        };
        return QUESTION.unanswerable(context, if list.is_empty() { no_installation(rings) } else { unknown });
    };
    QUESTION.told(
        context,
        Draft {
            n: rings.ordinal.count(),
            of: "installations",
            verdict,
            why,
            thresholds: THRESHOLDS.to_vec(),
            tables: tables(rings, &list, snapshot.elapsed_ns),
            notes: notes(snapshot.installations.as_ref(), rings),
        },
    )
}

/// Where only the requests of the rings are told.
fn without_rings(snapshot: &Snapshot, context: &Context) -> Answer {
    let Some(installations) = &snapshot.installations else {
        let why = reasons::absence(snapshot, &QUESTION, "registrations by ring");
        return QUESTION.unanswerable(context, why);
    };
    let mut why = reasons::of(snapshot, &QUESTION);
    why.push("rings are not followed in this session: neither their age nor their class is known".to_owned());
    QUESTION.told(
        context,
        Draft {
            n: installations.all.sum(),
            of: "installations",
            verdict: totals(Some(installations), None),
            why,
            thresholds: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
        },
    )
}

fn no_installation(rings: &Rings) -> String {
    match rings.unlisted {
        None | Some(0) => "no installation that succeeded was seen".to_owned(),
        Some(unlisted) => format!("the map had no room for the rings of {} installations", human::count(unlisted)),
    }
}

/// Why it is not known what came after the first requests of some ring.
fn requests_untold(snapshot: &Snapshot, list: &[Ring]) -> Option<String> {
    list.iter().any(|ring| ring.after_requests.is_none()).then(|| {
        let reason = snapshot.figures.missing(Figure::Requests).unwrap_or("not measured in this session");
        format!("what came after the ring's first request is not known ({reason})")
    })
}

/// Why the classes may not be the whole truth.
fn doubts(snapshot: &Snapshot, rings: &Rings, list: &[Ring]) -> Vec<String> {
    let unknown = list.iter().filter(|ring| class(ring) == Class::Unknown).count() as u64;
    let unknown = (unknown > 0).then(|| {
        let rings = human::plural(unknown, "ring");
        match requests_untold(snapshot, list) {
            Some(why) => format!("{rings} without a class: {why}"),
            None => format!("{rings} had been there before pinscope and installed once: it may have been set-up"),
        }
    });
    let unlisted = rings.unlisted.filter(|unlisted| *unlisted > 0).map(|unlisted| {
        format!("{} are of rings that the map had no room for", human::plural(unlisted, "installation"))
    });
    let unseen = snapshot.skipped.iter().filter(|skipped| skipped.program == RING.program && skipped.runs > 0).map(|skipped| {
        let many = human::plural(skipped.runs, "ring");
        format!("the making of {many} at the most was not seen, since the probe was skipped: such a ring is taken for older")
    });
    unknown.into_iter().chain(unlisted).chain(unseen).chain(untold(snapshot)).collect()
}

/// Updates that may be fills and count as switches.
fn untold(snapshot: &Snapshot) -> Option<String> {
    let untold = snapshot.installations.as_ref()?.kinds.of(Installation::Update).after_requests;
    (untold > 0).then(|| {
        format!(
            "{} count as switches, since it could not be seen whether their slots were empty",
            human::plural(untold, "update")
        )
    })
}

/// In one sentence; `None` where no ring has a class.
fn verdict(list: &[Ring], elapsed_ns: u64) -> Option<String> {
    let of = |wanted: Class| list.iter().filter(|ring| class(ring) == wanted).count() as u64;
    let owners = owners(list, elapsed_ns);
    let active: Vec<_> = owners.iter().filter(|owner| owner.class == Class::RunTime).collect();
    if let Some(most) = active.iter().max_by(|a, b| a.rate.unwrap_or(0.0).total_cmp(&b.rate.unwrap_or(0.0))) {
        let others = active.len() as u64 - 1;
        let others = match others {
            0 => String::new(),
            1 => ", and 1 other process does the like".to_owned(),
            _ => format!(", and {} other processes do the like", human::count(others)),
        };
        return Some(format!("Run time: {}{others}.", switches(most)));
    }
    let all = list.len() as u64;
    let known = all - of(Class::Unknown);
    if of(Class::Occasional) > 0 {
        let most = owners.iter().find(|owner| owner.class == Class::Occasional)?;
        let who = named(Some(most.pid), most.comm);
        let times = human::plural(most.installations, "installation");
        return Some(format!(
            "Occasional: {} of {} had buffers installed after set-up, but few times or rarely, first among them those of {who} with {times}; none at run time.",
            human::count(of(Class::Occasional)),
            human::plural(all, "ring"),
        ));
    }
    (known > 0).then(|| {
        format!(
            "Set-up: {} of {} installed buffers only {}.",
            human::count(known),
            human::plural(all, "ring"),
            setup_words(list)
        )
    })
}

/// What a process at run time does.
fn switches(owner: &Owner<'_>) -> String {
    let who = named(Some(owner.pid), owner.comm);
    let rate = owner.rate.map(|rate| format!(" {}", human::how_often(rate))).unwrap_or_default();
    if owner.renews {
        return format!(
            "process {who} made a new ring for its buffers{rate} ({} in the place of one that it had closed)",
            human::count(owner.replaced)
        );
    }
    format!(
        "process {who} switched buffer sets{rate} on {} of {}",
        human::count(owner.busy),
        human::plural(owner.rings, "ring")
    )
}

fn setup_words(list: &[Ring]) -> String {
    let set_up: Vec<_> = list.iter().filter(|ring| class(ring) == Class::SetUp).collect();
    let fills = |ring: &Ring| if ring.after_requests.is_some() { ring.fills_after_requests } else { ring.fills };
    let filled =
        set_up.iter().any(|ring| fills(ring).is_some_and(|fills| fills > 0)).then(|| "into empty slots".to_owned());
    let early = || format!("within {} of their making", human::duration(SETUP_AGE_NS));
    let early = set_up.iter().any(|ring| ring.late() > 0).then(early);
    let told = set_up.iter().any(|ring| ring.after_requests.is_some());
    let before = told.then(|| "before their first request".to_owned());
    let words: Vec<_> = [before, filled, early].into_iter().flatten().collect();
    words.join(" or ")
}

/// What can be told where rings are not kept apart.
fn totals(installations: Option<&Installations>, rings: Option<&Rings>) -> String {
    let made = rings.map(|rings| rings.ordinal.count_at_most(1).saturating_sub(rings.ordinal.count_at_most(0)));
    let on = made.map(|made| format!(" on {}", human::plural(made, "ring"))).unwrap_or_default();
    let Some(installations) = installations else {
        return format!("Whether the installations{on} came before the ring's first request is not known.");
    };
    let ByRequests { before_requests, after_requests } = installations.all;
    format!(
        "{} of {}{on} came before the ring's first request and {} after it{}.",
        human::count(before_requests),
        human::plural(installations.all.sum(), "installation"),
        human::count(after_requests),
        kinds(installations).map(|kinds| format!(" ({kinds})")).unwrap_or_default(),
    )
}

/// What those after the first request did; `None` where there are none.
fn kinds(installations: &Installations) -> Option<String> {
    let told = |kind| match kind {
        Installation::Table => "whole tables",
        Installation::Fill => "updates of empty slots",
        Installation::Replacement => "replacements of buffers",
        Installation::Update => "updates of slots not known",
        Installation::Clone => "clones of other rings' buffers",
    };
    let some = installations.kinds.iter().filter(|(_, counts)| counts.after_requests > 0);
    let some: Vec<_> =
        some.map(|(kind, counts)| format!("{}: {}", told(kind), human::count(counts.after_requests))).collect();
    (!some.is_empty()).then(|| some.join(", "))
}

fn notes(installations: Option<&Installations>, rings: &Rings) -> Vec<String> {
    let requests = installations.map(|installations| {
        format!(
            "{} came before the ring had been given a request, {} after{}; it is told by the ring's own counters (io_ring_ctx.cached_sq_head).",
            human::plural(installations.all.before_requests, "installation"),
            human::count(installations.all.after_requests),
            kinds(installations).map(|kinds| format!(" ({kinds})")).unwrap_or_default(),
        )
    });
    let is_old = |ring: &&Ring| ring.installations() > 0 && ring.last_age_ns.is_none();
    let old = rings.list.iter().flatten().filter(is_old).count() as u64;
    let old = (old > 0).then(|| {
        format!(
            "{} had been there before pinscope: of unknown age, with a class by requests and rate only.",
            human::plural(old, "ring")
        )
    });
    // As many as a program would have that makes a ring for each set of buffers.
    let indexed = rings.list.iter().flatten().filter(|ring| ring.indexed && !ring.ended).count() as u64;
    let indexed = (indexed >= RUN_TIME_LEAST).then(|| {
        format!(
            "{} live by an index (IORING_REGISTER_RING_FDS), so that their fd given anew does not tell that they ended: they may be fewer at a time.",
            human::plural(indexed, "ring")
        )
    });
    requests.into_iter().chain(old).chain(indexed).collect()
}

fn tables(rings: &Rings, list: &[Ring], elapsed_ns: u64) -> Vec<Table> {
    let mut sorted: Vec<_> = list.iter().collect();
    sorted.sort_by_key(|ring| Reverse((class(ring), ring.installations())));
    let owners = owners(list, elapsed_ns);
    vec![
        Table::new("rings", "Rings, the most active first: installations (sets), those after the first request, those of them in the place of others (switch) and how often, age at the first, least time between two", RINGS).rows(sorted.into_iter().map(ring_row)),
        Table::new("processes", "Processes, the most active first", PROCESSES)
            .rows(owners.iter().map(owner_row))
            .detail(),
        Table::new("operations", "Calls on rings by class", OPERATIONS).rows(operations(list)).detail(),
        Table::new("times", "Age of the ring, and time since the installation before", TIMES)
            .rows(times(rings))
            .detail(),
    ]
}

fn ring_row(ring: &Ring) -> Vec<Value> {
    let (name, shown) = class(ring).names();
    vec![
        Value::Process { pid: Some(ring.pid), comm: ring.comm.clone() },
        ring.fd.map_or(Value::Unknown, |fd| Value::Count(fd.max(0).unsigned_abs().into())),
        Value::Name(name, shown),
        Value::Count(ring.installations()),
        ring.after_requests.map_or(Value::Unknown, Value::Count),
        Value::count(ring.switches),
        rate(ring).map_or(Value::Unknown, Value::Rate),
        Value::time(ring.first_age_ns),
        Value::time(ring.shortest_gap_ns),
    ]
}

fn owner_row(owner: &Owner<'_>) -> Vec<Value> {
    let (name, shown) = owner.class.names();
    vec![
        Value::Process { pid: Some(owner.pid), comm: owner.comm.to_owned() },
        Value::Name(name, shown),
        Value::Count(owner.rings),
        Value::Count(owner.busy),
        Value::Count(owner.replaced),
        Value::Count(owner.installations),
        owner.rate.map_or(Value::Unknown, Value::Rate),
    ]
}

fn operations(list: &[Ring]) -> Vec<Vec<Value>> {
    let row = |wanted: Class| {
        let rings: Vec<_> = list.iter().filter(|ring| class(ring) == wanted).collect();
        let (name, shown) = wanted.names();
        let total = |of: fn(&Ring) -> u64| Value::Count(sum(&rings, |ring| of(ring)));
        let fills = rings.iter().try_fold(0_u64, |sum, ring| Some(sum.saturating_add(ring.fills?)));
        let counts = [
            total(|ring| ring.registers),
            total(|ring| ring.updates),
            total(|ring| ring.clones),
            Value::count(fills),
            total(|ring| ring.unregisters),
            total(|ring| ring.failed),
        ];
        (!rings.is_empty()).then(|| [Value::Name(name, shown)].into_iter().chain(counts).collect())
    };
    Class::ALL.into_iter().filter_map(row).collect()
}

fn times(rings: &Rings) -> Vec<Vec<Value>> {
    let told = [("age of the ring", &rings.age), ("time since the one before", &rings.gap)];
    told.into_iter()
        .filter(|(_, times)| times.count() > 0)
        .map(|(what, times)| {
            let quantiles = [0.5, 0.9, 0.99, 1.0].map(|q| Value::time(times.quantile(q)));
            [Value::Text(what.to_owned()), Value::Count(times.count())].into_iter().chain(quantiles).collect()
        })
        .collect()
}
