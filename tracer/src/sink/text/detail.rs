//! The sections of the report that a session asks for: the waits for `mmap_lock`, and the parts of the time.

use super::{
    human,
    page::{Page, bar},
    sections::{BAR, table},
};
use crate::{
    aggregate::{Locks, Phases, Snapshot},
    sink::trace,
};

/// The system calls' own time.
pub(super) fn calls(page: &mut Page, snapshot: &Snapshot) {
    let operations: Vec<_> = snapshot.calls.iter().flatten().filter(|times| times.calls > 0).collect();
    if operations.is_empty() {
        return;
    }
    page.section(
        "THE CALLERS' TIME",
        &[("calls", 9), ("total", 10), ("waiting", 10), ("function", 10), ("after it", 10)],
    );
    for times in operations {
        let nanoseconds = [Some(times.total_ns), Some(times.wait_ns), Some(times.function_ns), times.after_ns];
        let mut cells = vec![(human::count(times.calls), 9)];
        cells.extend(nanoseconds.map(|ns| (ns.map_or_else(|| "-".to_owned(), human::duration), 10)));
        page.row(&format!("  {}", times.operation.name()), &cells);
    }
    page.paragraph("  ", "waiting: before the function, for the ring's lock (and the look-up of the ring)");
}

/// The calls that hang.
pub(super) fn under_way(page: &mut Page, snapshot: &Snapshot) {
    let Some(calls) = snapshot.under_way.as_ref().filter(|calls| !calls.long.is_empty()) else { return };
    page.blank();
    page.line("STILL UNDER WAY");
    let (shown, others) = calls.long.split_at(calls.long.len().min(LONG));
    for call in shown {
        page.paragraph("  ", &trace::under_way(call));
    }
    if !others.is_empty() {
        page.line(&format!("  and {} more", human::count(others.len() as u64)));
    }
    if let Some(words) = trace::unseen_ends(calls) {
        page.paragraph("  ", &words);
    }
}

/// Calls that are named.
const LONG: usize = 8;

pub(super) fn locks(page: &mut Page, snapshot: &Snapshot) {
    let Some(locks) = snapshot.locks.as_ref().filter(|locks| locks.registrations > 0) else { return };
    let rows: Vec<_> = [("  wait to read", &locks.read), ("  wait to write", &locks.write)]
        .into_iter()
        .filter(|(_, side)| side.wait.count() > 0)
        .map(|(label, side)| (label.to_owned(), &side.wait))
        .collect();
    if rows.is_empty() {
        page.blank();
        page.line("MMAP_LOCK");
    } else {
        table(page, "MMAP_LOCK", &rows, human::duration);
    }
    page.paragraph("  ", &who_took_it(locks));
    if !locks.complete {
        page.paragraph("  ", "Some probes of the lock were skipped or saw no end of a wait: these are lower bounds.");
    }
}

/// How many took the lock, and what it cost them.
fn who_took_it(locks: &Locks) -> String {
    let of_all = |count: u64| human::percent(count as f64 / locks.registrations as f64);
    let mut facts = vec![
        format!(
            "taken to read by {} of the registrations, to write by {}",
            of_all(locks.readers),
            of_all(locks.writers)
        ),
        format!("{} waited more than 1 µs", of_all(locks.waited)),
    ];
    if let Some(share) = locks.share() {
        facts.push(format!("waiting is {} of their time", human::percent(share)));
    }
    for (count, what) in [(locks.failed_trylocks, "failed trylock"), (locks.killed_waits, "killed wait")] {
        if count > 0 {
            facts.push(human::plural(count, what));
        }
    }
    facts.join("; ")
}

pub(super) fn phases(page: &mut Page, snapshot: &Snapshot) {
    let Some(phases) = snapshot.phases.as_ref().filter(|phases| phases.total_ns > 0) else { return };
    let bound = if phases.missed == 0 { "" } else { " (some ends were not seen: parts are lower bounds)" };
    page.blank();
    page.line(&format!("PHASES{bound}"));
    for (label, calls, ns) in rows(phases) {
        let share = ns as f64 / phases.total_ns as f64;
        let calls = calls.map(human::count).unwrap_or_default();
        let (time, percent) = (human::duration(ns), human::percent(share));
        page.line(&format!("  {label:<18}{calls:>9}{time:>10}{percent:>8} {}", bar(share, BAR / 2)));
    }
    if let Some(slow) = &phases.slow {
        let (pins, fast) = (human::plural(slow.pins, "pin"), human::count(slow.fast_pins));
        let (ns, fast_ns) = (human::duration(slow.ns), human::duration(slow.fast_ns));
        page.paragraph("  ", &format!("{pins} took the slow path ({ns}), {fast} the fast one ({fast_ns})"));
    }
    if phases.left_out > 0 {
        page.paragraph("  ", &format!("{} not whole, and left out", human::plural(phases.left_out, "registration")));
    }
}

/// Label, calls and nanoseconds of each part that is known, in the order of the call chain.
fn rows(phases: &Phases) -> Vec<(&'static str, Option<u64>, u64)> {
    let part = |label, part: Option<&crate::aggregate::Part>| part.map(|part| (label, Some(part.calls), part.ns));
    let rows = [
        part("pin: page faults", phases.faults.as_ref()),
        part("pin: look-ups", phases.lookups.as_ref()),
        Some(("pin: other GUP", None, phases.pin_other_ns)),
        part("rest: accounting", phases.accounting.as_ref()),
        Some(("rest: other", None, phases.rest_other_ns)),
    ];
    rows.into_iter().flatten().collect()
}
