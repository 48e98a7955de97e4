//! Q7: what `mmap_lock` costs the registrations.

use tracer_ebpf::operation::Operation;

use super::{
    Answer, Context, Draft, Question, Table, Value,
    evidence::{Column, share},
    reasons,
};
use crate::{
    aggregate::{LockSide, Locks, Snapshot},
    figure::{Figure, FigureSet, Lack},
    human,
};

pub(super) const QUESTION: Question = Question {
    id: "Q7",
    text: "What does mmap_lock cost here?",
    roles: &["register", "update", "ledger", "lock"],
    figures: FigureSet::of(&[Figure::Results, Figure::EveryCall, Figure::LockWaits]),
};

const SIDES: &[Column] = &[
    Column { key: "side", head: "side" },
    Column { key: "registrations", head: "calls" },
    Column { key: "acquisitions", head: "taken" },
    Column { key: "wait_ns", head: "wait" },
    Column { key: "p50_ns", head: "p50" },
    Column { key: "p99_ns", head: "p99" },
    Column { key: "max_ns", head: "max" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context) -> Answer {
    let Some(locks) = &snapshot.locks else {
        let lost = snapshot.figures.lacks_of(FigureSet::of(&[Figure::LockWaits, Figure::Everything])).next();
        return QUESTION.unanswerable(context, lost.map_or_else(|| "not asked for: --locks".to_owned(), Lack::shown));
    };
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    if locks.registrations == 0 {
        return QUESTION.unanswerable(context, "no register or update was seen".to_owned());
    }
    let mut why = reasons::of(snapshot, &QUESTION);
    if !locks.complete {
        why.push("a probe was skipped, or the end of a wait was not seen: the waits are lower bounds".to_owned());
    }
    let rows = [row("read", locks.readers, &locks.read), row("write", locks.writers, &locks.write)];
    QUESTION.told(
        context,
        Draft {
            n: locks.registrations,
            of: "registrations",
            verdict: verdict(locks),
            why,
            tables: vec![Table::new("sides", "mmap_lock in registers and updates", SIDES).rows(rows)],
            notes: [Some(notes(locks)), rings_lock(snapshot)].into_iter().flatten().collect(),
            ..Draft::default()
        },
    )
}

fn row(name: &'static str, registrations: u64, side: &LockSide) -> Vec<Value> {
    let quantiles = [0.5, 0.99, 1.0].map(|q| Value::time(side.wait.quantile(q)));
    [
        Value::Name(name, name),
        Value::Count(registrations),
        Value::Count(side.acquisitions),
        Value::Time(side.wait.sum()),
    ]
    .into_iter()
    .chain(quantiles)
    .collect()
}

fn verdict(locks: &Locks) -> String {
    let all = human::plural(locks.registrations, "registration");
    if locks.readers == 0 && locks.writers == 0 {
        return format!("None of {all} took mmap_lock.");
    }
    let part = share(locks.wait_ns, locks.total_ns);
    let part = part.map(|part| format!(", {} of their time", human::percent(part))).unwrap_or_default();
    format!(
        "Of {all}, {} took mmap_lock for reading and {} for writing; together they waited {} for it{part}.",
        human::count(locks.readers),
        human::count(locks.writers),
        human::duration(locks.wait_ns),
    )
}

/// The other lock that callers wait for.
fn rings_lock(snapshot: &Snapshot) -> Option<String> {
    let pins = snapshot
        .calls
        .as_ref()?
        .iter()
        .filter(|times| matches!(times.operation, Operation::Register | Operation::Update));
    let (wait, total) = pins.fold((0_u64, 0_u64), |(wait, total), times| {
        (wait.saturating_add(times.wait_ns), total.saturating_add(times.total_ns))
    });
    let share = share(wait, total)?;
    Some(format!(
        "The ring's own lock is another: before their functions registers and updates waited {}, {} of their system calls' time.",
        human::duration(wait),
        human::percent(share)
    ))
}

fn notes(locks: &Locks) -> String {
    format!(
        "{} waited more than 1 µs; {} found the lock taken; {} ended by a fatal signal. A wait is from mmap_lock_start_locking to mmap_lock_acquire_returned, whether the lock was free or not.",
        human::plural(locks.waited, "registration"),
        human::plural(locks.failed_trylocks, "trylock"),
        human::plural(locks.killed_waits, "wait"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{State, fixture};

    fn locks() -> Locks {
        let side = |acquisitions, waits: &[u64]| LockSide { acquisitions, wait: fixture::values(waits) };
        Locks {
            registrations: 100,
            readers: 40,
            writers: 0,
            waited: 2,
            total_ns: 10_000_000,
            wait_ns: 2_000_000,
            read: side(40, &[1_000_000, 1_000_000]),
            write: side(0, &[]),
            failed_trylocks: 1,
            killed_waits: 0,
            complete: true,
        }
    }

    fn told(locks: Option<Locks>) -> Answer {
        answer(&Snapshot { locks, ..fixture::a_snapshot() }, &Context::default())
    }

    #[test]
    fn without_the_tracepoints_it_is_not_answered() {
        assert_eq!(told(None).state, State::Unanswerable { why: "not asked for: --locks".to_owned() });
        let why = "waits for mmap_lock: tracepoint mmap_lock_start_locking: not in this kernel's BTF".to_owned();
        let mut snapshot = Snapshot { locks: None, ..fixture::a_snapshot() };
        snapshot.figures.lose(&[Figure::LockWaits], "tracepoint mmap_lock_start_locking: not in this kernel's BTF");
        assert_eq!(answer(&snapshot, &Context::default()).state, State::Unanswerable { why });
    }

    #[test]
    fn waits_are_told_by_side() {
        let answer = told(Some(locks()));
        assert_eq!(
            answer.verdict.as_deref(),
            Some(
                "Of 100 registrations, 40 took mmap_lock for reading and 0 for writing; together they waited 2.00 ms for it, 20.0% of their time."
            )
        );
        assert_eq!((answer.state, answer.evidence.n), (State::Answered, Some(100)));
        assert_eq!(answer.evidence.tables[0].rows[1][6], Value::Unknown);
        let none = told(Some(Locks { readers: 0, ..locks() }));
        assert_eq!(none.verdict.as_deref(), Some("None of 100 registrations took mmap_lock."));
    }

    #[test]
    fn what_was_missed_makes_it_a_lower_bound() {
        let answer = told(Some(Locks { complete: false, ..locks() }));
        assert_eq!(answer.state.name(), "degraded");
    }
}
