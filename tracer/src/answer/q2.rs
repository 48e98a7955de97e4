//! Q2: whether GUP dominates the time, and what a separate pass over the VMAs would add.

use tracer_ebpf::operation::Operation;

use super::{
    Answer, Context, Draft, Question, Table, Threshold, Value,
    evidence::{Column, share},
    reasons,
    rows::{Row, by_pages, by_vmas, total},
};
use crate::{
    aggregate::{CostCell, Part, Phases, Snapshot, Split},
    figure::{Figure, FigureSet},
    human,
};

pub(super) const QUESTION: Question = Question {
    id: "Q2",
    text: "Does GUP dominate the time, or would separate VMA look-ups show?",
    roles: &["register", "update", "buffer", "pin", "look-up", "fault", "accounting"],
    figures: FigureSet::of(&[
        Figure::Results,
        Figure::EveryCall,
        Figure::RegisterDuration,
        Figure::UpdateDuration,
        Figure::Vmas,
        Figure::PinTime,
        Figure::PinFaults,
        Figure::HugePageFaults,
        Figure::Lookups,
        Figure::Phases,
        Figure::FaultTime,
        Figure::LookupTime,
        Figure::AccountingTime,
        Figure::SlowPins,
        Figure::EveryPart,
    ]),
};

/// GUP dominates from this share of the time on.
const DOMINATES: f64 = 0.5;
const THRESHOLDS: &[Threshold] =
    &[Threshold { name: "GUP dominates: from this share of the time on", value: DOMINATES * 100.0, unit: "%" }];

const PARTS: &[Column] = &[
    Column { key: "part", head: "register and update" },
    Column { key: "time_ns", head: "time" },
    Column { key: "share", head: "share" },
];

const BY_VMAS: &[Column] = &[
    Column { key: "vmas", head: "VMAs" },
    Column { key: "buffers", head: "buffers" },
    Column { key: "pin_ns_per_buffer", head: "pin" },
    Column { key: "walk_ns_per_buffer", head: "pass" },
    Column { key: "walk_share_of_pin", head: "pass/pin" },
    Column { key: "slow_share", head: "slow path" },
    Column { key: "faults_per_buffer", head: "faults" },
];

const BY_SIZE: &[Column] = &[
    Column { key: "pages", head: "size" },
    Column { key: "buffers", head: "buffers" },
    Column { key: "pin_ns_per_buffer", head: "pin" },
    Column { key: "walk_ns_per_vma", head: "a VMA" },
    Column { key: "break_even_vmas", head: "even at" },
    Column { key: "break_even_reachable", head: "can be" },
    Column { key: "slow_share", head: "slow path" },
    Column { key: "faults_per_buffer", head: "faults" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context) -> Answer {
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    let pins = snapshot.pin.as_ref().map_or(0, crate::aggregate::Distribution::count);
    let Some(split) = snapshot.split.as_ref() else {
        return QUESTION.unanswerable(context, reasons::absence(snapshot, &QUESTION, "the times of the pins"));
    };
    if split.total_ns == 0 || pins == 0 {
        return QUESTION.unanswerable(context, "no registration that pinned a buffer was seen".to_owned());
    }
    let costs = snapshot.costs.as_deref().filter(|costs| total(costs).pin_ns > 0);
    let mut why = reasons::of(snapshot, &QUESTION);
    why.extend(reasons::times(snapshot));
    why.extend(timed_phases(snapshot).into_iter().flat_map(|phases| reasons::phases(snapshot, phases)));
    why.extend(missing_pass(snapshot, costs));
    QUESTION.told(
        context,
        Draft {
            n: pins,
            of: "registrations with a pin",
            verdict: verdict(split, (calls(snapshot), pins), costs),
            why,
            thresholds: THRESHOLDS.to_vec(),
            tables: tables(snapshot, split, costs.unwrap_or_default()),
            notes: notes(snapshot, costs),
        },
    )
}

/// Why there is no figure of the pass, where no other reason says so.
fn missing_pass(snapshot: &Snapshot, costs: Option<&[CostCell]>) -> Option<String> {
    if costs.is_some() {
        return reasons::walks(snapshot);
    }
    let told = snapshot.figures.missing(Figure::Vmas).is_some();
    (!told).then(|| "what a pass over the VMAs costs was not measured".to_owned())
}

/// Registers and updates whose time is known, as it is in the split.
fn calls(snapshot: &Snapshot) -> u64 {
    let timed = snapshot
        .operations()
        .iter()
        .filter(|operation| matches!(operation.operation, Operation::Register | Operation::Update));
    let counts = timed.filter_map(|operation| operation.duration.as_ref()).map(|duration| duration.whole().count());
    counts.fold(0, u64::saturating_add)
}

fn verdict(split: &Split, (calls, pins): (u64, u64), costs: Option<&[CostCell]>) -> String {
    let part = share(split.pin_ns, split.total_ns).unwrap_or(0.0);
    let begin = if part >= DOMINATES { "GUP dominates" } else { "GUP does not dominate" };
    let time = human::percent(part);
    let without = match calls.saturating_sub(pins) {
        0 => String::new(),
        without => format!(", {} of them without a pin,", human::count(without)),
    };
    let gup =
        format!("{begin}: {time} of the time of {}{without} was in the pin", human::plural(calls, "registration"));
    let Some(costs) = costs else { return format!("{gup}.") };
    let pass = total(costs).walk_share().map_or_else(|| "-".to_owned(), |share| Value::Share(share).shown());
    format!("{gup}; a separate pass over the VMAs would add at most {pass} to the pins, {}.", crossing(costs))
}

/// At how many VMAs the pass was seen to cost as much as the pin.
fn crossing(costs: &[CostCell]) -> String {
    let rows = by_vmas(costs);
    let most = rows.last().map_or(0, |row| row.to);
    let Some(first) = rows.iter().position(Row::crossed) else {
        return format!("and less than the pin at every number of VMAs seen (up to {})", human::count(most));
    };
    // Small buffers in few VMAs and large ones in many are other memory: the one may cross where the other does not.
    match rows[first..].iter().find(|row| !row.crossed()) {
        Some(less) => format!("and cost as much as the pin at {}, but not at {}", vmas(&rows[first]), vmas(less)),
        None => format!("and cost as much as the pin from {} on", vmas(&rows[first])),
    }
}

fn vmas(row: &Row) -> String {
    let range = Value::Range(row.from, row.to).shown();
    if (row.from, row.to) == (1, 1) { "1 VMA".to_owned() } else { format!("{range} VMAs") }
}

fn notes(snapshot: &Snapshot, costs: Option<&[CostCell]>) -> Vec<String> {
    let mut notes = Vec::new();
    if snapshot.phases.is_none() {
        notes.push("The time in page faults, look-ups and accounting is told with --phases.".to_owned());
    }
    if let Some(faults) = &snapshot.faults {
        let lookups = snapshot.lookups.map(|lookups| format!(", {}", human::plural(lookups, "VMA look-up")));
        let lack = faults.lack().map(|lack| format!(" ({lack})")).unwrap_or_default();
        notes.push(format!(
            "In the pins: {}, {} with I/O{lack}{}.",
            human::plural(faults.minor.saturating_add(faults.major), "page fault"),
            human::count(faults.major),
            lookups.unwrap_or_default(),
        ));
    }
    let Some(costs) = costs else { return notes };
    let all = total(costs);
    if let (Some(slow), Some(part)) = (all.slow, all.slow_share()) {
        let time = all.slow_ns.and_then(|slow_ns| share(slow_ns, all.pin_ns));
        let time = time.map(|time| format!(", {} of the pins' time", human::percent(time))).unwrap_or_default();
        notes.push(format!(
            "Slow path (the pin looked a VMA up): {} of {} ({}){time}.",
            human::count(slow),
            human::plural(all.buffers, "buffer"),
            human::percent(part),
        ));
    }
    notes.push(
        "The pass is pinscope's own walk, a bpf_find_vma from BPF for each VMA: an upper bound of what a pass in the kernel would cost. `even at`: VMAs at which it would cost as much as the pin of a buffer of that size costs now; a buffer has no more VMAs than pages."
            .to_owned(),
    );
    notes
}

/// The phases, where any registration is in them.
fn timed_phases(snapshot: &Snapshot) -> Option<&Phases> {
    snapshot.phases.as_ref().filter(|phases| phases.registrations > 0)
}

/// The parts of the time: as far as they are known where they were asked for, else the pin and the rest.
fn parts(snapshot: &Snapshot, split: &Split) -> Vec<Vec<Value>> {
    let Some(phases) = timed_phases(snapshot) else {
        return [("pin", "pin", split.pin_ns), ("rest", "the rest", split.rest_ns)]
            .map(|(name, shown, ns)| part(name, shown, Some(ns), split.total_ns))
            .into();
    };
    let time = |part: &Option<Part>| part.as_ref().map(|part| part.ns);
    [
        ("pin_faults", "page faults in the pin", time(&phases.faults)),
        ("pin_lookups", "VMA look-ups in the pin", time(&phases.lookups)),
        ("pin_other", "the pin's rest", Some(phases.pin_other_ns)),
        ("accounting", "accounting", time(&phases.accounting)),
        ("rest_other", "the rest", Some(phases.rest_other_ns)),
    ]
    .map(|(name, shown, ns)| part(name, shown, ns, phases.total_ns))
    .into()
}

fn part(name: &'static str, shown: &'static str, ns: Option<u64>, total_ns: u64) -> Vec<Value> {
    let part = ns.and_then(|ns| share(ns, total_ns));
    vec![Value::Name(name, shown), Value::time(ns), Value::share(part)]
}

fn tables(snapshot: &Snapshot, split: &Split, costs: &[CostCell]) -> Vec<Table> {
    let parts = parts(snapshot, split);
    vec![
        Table::new("parts", "Where the time went", PARTS).rows(parts).detail_if(timed_phases(snapshot).is_none()),
        Table::new("by_vmas", "A buffer, by its VMAs: time in the pin, of a pass over the VMAs", BY_VMAS).rows(by_vmas(costs).iter().map(vmas_row)),
        Table::new("by_size", "A buffer, by its size: time in the pin, of the pass for one VMA; VMAs at which they are even, and whether it can have so many", BY_SIZE).rows(by_pages(costs).iter().map(size_row)),
    ]
}

fn vmas_row(row: &Row) -> Vec<Value> {
    vec![
        Value::Range(row.from, row.to),
        Value::Count(row.buffers),
        Value::time(row.pin_each()),
        Value::time(row.walk_each()),
        Value::share(row.walk_share()),
        Value::share(row.slow_share()),
        faults(row),
    ]
}

fn size_row(row: &Row) -> Vec<Value> {
    let even = row.break_even();
    vec![
        Value::Pages(row.from, row.to),
        Value::Count(row.buffers),
        Value::time(row.pin_each()),
        Value::time(row.walk_per_vma()),
        Value::count(even),
        even.map_or(Value::Unknown, |vmas| Value::Flag(vmas <= row.to)),
        Value::share(row.slow_share()),
        faults(row),
    ]
}

fn faults(row: &Row) -> Value {
    row.faults.and_then(|faults| share(faults, row.buffers)).map_or(Value::Unknown, Value::Mean)
}
