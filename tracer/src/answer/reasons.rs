//! What keeps a question from being answered whole.

use super::Question;
use crate::{
    aggregate::{Phases, Snapshot, Walks},
    figure::{Figure, Lack},
    human,
};

/// Why the answer holds only in part: hooks that its figures miss, and registrations that were not measured.
pub(super) fn of(snapshot: &Snapshot, question: &Question) -> Vec<String> {
    let mut reasons = hooks(snapshot, question);
    reasons.extend(coverage(snapshot));
    reasons
}

/// The reasons of the plan that touch the question.
pub(super) fn hooks(snapshot: &Snapshot, question: &Question) -> Vec<String> {
    snapshot.figures.lacks_of(question.figures).map(Lack::shown).collect()
}

/// Why figures that a hook should give are not there at all.
pub(super) fn absence(snapshot: &Snapshot, question: &Question, what: &str) -> String {
    // Several figures can be missing for one reason.
    let mut told: Vec<&str> = Vec::new();
    for lack in snapshot.figures.lacks_of(question.figures.with(Figure::Everything)) {
        if !told.contains(&&*lack.reason) {
            told.push(&lack.reason);
        }
    }
    if told.is_empty() { format!("{what} are not measured in this session") } else { told.join("; ") }
}

/// Whether any registration was seen at all.
pub(super) fn nothing_seen(snapshot: &Snapshot) -> Option<String> {
    if let Some(reason) = snapshot.figures.missing(Figure::Results) {
        return Some(reason.to_owned());
    }
    let ended = snapshot.operations().iter().any(|operation| operation.total() > 0);
    (!ended).then(|| "no registration was seen".to_owned())
}

fn coverage(snapshot: &Snapshot) -> Option<String> {
    let missed = 1.0 - snapshot.books.coverage?;
    (missed > 0.0).then(|| format!("{} of the calls were not measured", human::percent(missed)))
}

/// Buffers whose VMAs are not known.
pub(super) fn walks(snapshot: &Snapshot) -> Option<String> {
    let Walks { busy, cut, none, .. } = snapshot.walks.as_ref()?;
    let missing = busy.saturating_add(*cut).saturating_add(*none);
    (missing > 0).then(|| format!("{} could not be walked to the end", human::plural(missing, "buffer")))
}

/// Returns and entries of parts that were not seen, so that times are missing.
pub(super) fn times(snapshot: &Snapshot) -> Option<String> {
    let missed = snapshot.books.missed_returns().saturating_add(snapshot.books.missed_parts());
    let split = snapshot.split.as_ref().is_some_and(|split| !split.complete);
    match missed {
        0 if split => Some("some ends of pins were not seen: the pin's share is a lower bound".to_owned()),
        0 => None,
        _ => Some(format!("{} were not seen: the pin's share is a lower bound", human::plural(missed, "end"))),
    }
}

/// What the times of the parts of a registration lack.
pub(super) fn phases(snapshot: &Snapshot, phases: &Phases) -> Vec<String> {
    const PROGRAMS: [&str; 3] = ["fault_", "lookup_", "accounting_"];
    let is_part = |program: &str| PROGRAMS.iter().any(|part| program.starts_with(part));
    let skipped = snapshot.skipped.iter().filter(|skipped| is_part(&skipped.program)).map(|skipped| skipped.runs);
    let skipped = skipped.fold(0, u64::saturating_add);
    let left_out = (phases.left_out > 0).then(|| {
        format!("{} are in no part: some end in them was not seen", human::plural(phases.left_out, "registration"))
    });
    let missed = (phases.missed > 0).then(|| {
        format!("{} of parts were not seen: their time is a lower bound", human::plural(phases.missed, "end"))
    });
    let skipped = (skipped > 0).then(|| {
        format!("{} of the parts' probes were skipped: their time may be a lower bound", human::plural(skipped, "run"))
    });
    [left_out, missed, skipped].into_iter().flatten().collect()
}

/// What a map or a record had no room for.
pub(super) fn lost(snapshot: &Snapshot, causes: &[&str]) -> Vec<String> {
    let lost = snapshot.lost.by_cause().into_iter();
    let lost = lost.filter(|(cause, _, count)| *count > 0 && causes.contains(cause));
    lost.map(|(_, meaning, count)| format!("{} {meaning}", human::count(count))).collect()
}
