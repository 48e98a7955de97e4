//! Q7: what `mmap_lock` costs the registrations.

use super::{
    Answer, Context, Draft, Question, Table, Value,
    evidence::{Column, share},
    reasons,
};
use crate::{aggregate::Snapshot, human};

const QUESTION: Question = Question {
    id: "Q7",
    text: "What does mmap_lock cost here?",
    roles: &["register", "update", "ledger", "lock"],
    figures: &["lock"],
};

/// What registrations had to do with `mmap_lock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Registrations that were looked at.
    pub(super) registrations: u64,
    /// Those that took the lock at all.
    pub(super) took: u64,
    /// Their time from entry to return, nanoseconds.
    pub(super) total_ns: u64,
    /// Taken for reading.
    pub(super) read: Side,
    /// Taken for writing.
    pub(super) write: Side,
}

/// One side of the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Times it was taken.
    pub(super) taken: u64,
    /// Nanoseconds from asking for it to having it, together.
    pub(super) wait_ns: u64,
    /// The longest of them; `None` where it is not kept.
    pub(super) longest_ns: Option<u64>,
}

const SIDES: &[Column] = &[
    Column { key: "side", head: "side" },
    Column { key: "taken", head: "taken" },
    Column { key: "wait_ns", head: "wait" },
    Column { key: "mean_wait_ns", head: "each" },
    Column { key: "longest_wait_ns", head: "longest" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context, waits: Option<&Waits>) -> Answer {
    let Some(waits) = waits else {
        return QUESTION.unanswerable(context, "not asked for: --locks".to_owned());
    };
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    let row = |name: &'static str, side: Side| {
        vec![
            Value::Name(name, name),
            Value::Count(side.taken),
            Value::Time(side.wait_ns),
            Value::time(side.wait_ns.checked_div(side.taken)),
            Value::time(side.longest_ns),
        ]
    };
    let rows = [row("read", waits.read), row("write", waits.write)];
    QUESTION.told(
        context,
        Draft {
            n: waits.registrations,
            of: "registrations",
            verdict: verdict(waits),
            why: reasons::of(snapshot, &QUESTION),
            tables: vec![Table::new("sides", "mmap_lock in registrations", SIDES).rows(rows)],
            ..Draft::default()
        },
    )
}

fn verdict(waits: &Waits) -> String {
    let all = human::plural(waits.registrations, "registration");
    if waits.took == 0 {
        return format!("None of {all} took mmap_lock.");
    }
    let wait_ns = waits.read.wait_ns.saturating_add(waits.write.wait_ns);
    let part = share(wait_ns, waits.total_ns);
    let part = part.map(|part| format!(", {} of their time", human::percent(part))).unwrap_or_default();
    format!(
        "{} of {all} took mmap_lock, and they waited {} for it{part} ({} for reading, {} for writing).",
        human::count(waits.took),
        human::duration(wait_ns),
        human::duration(waits.read.wait_ns),
        human::duration(waits.write.wait_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{State, fixture};

    #[test]
    fn without_the_tracepoints_it_is_not_answered() {
        let answer = answer(&fixture::a_snapshot(), &Context::default(), None);
        assert_eq!(answer.state, State::Unanswerable { why: "not asked for: --locks".to_owned() });
    }

    #[test]
    fn waits_are_told_by_side() {
        let read = Side { taken: 40, wait_ns: 2_000_000, longest_ns: Some(1_000_000) };
        let waits = Waits { registrations: 100, took: 40, total_ns: 10_000_000, read, write: Side::default() };
        let told = answer(&fixture::a_snapshot(), &Context::default(), Some(&waits));
        assert_eq!(
            told.verdict.as_deref(),
            Some(
                "40 of 100 registrations took mmap_lock, and they waited 2.00 ms for it, 20.0% of their time (2.00 ms for reading, 0 ns for writing)."
            )
        );
        assert_eq!((told.state, told.evidence.n), (State::Answered, Some(100)));
        assert_eq!(told.evidence.tables[0].rows[1][3], Value::Unknown);
        let none = Waits { took: 0, ..waits };
        let told = answer(&fixture::a_snapshot(), &Context::default(), Some(&none));
        assert_eq!(told.verdict.as_deref(), Some("None of 100 registrations took mmap_lock."));
    }
}
