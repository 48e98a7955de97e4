//! Q3: how many VMAs a buffer and a registration touch.

use super::{
    Answer, Context, Draft, Question, Table, Value,
    evidence::{Column, named},
    reasons,
};
use crate::{
    aggregate::{Distribution, Largest, Snapshot},
    figure::{Figure, FigureSet},
    human,
};

pub(super) const QUESTION: Question = Question {
    id: "Q3",
    text: "How many VMAs does a buffer, a registration touch?",
    roles: &["register", "update", "buffer", "pin"],
    figures: FigureSet::of(&[
        Figure::Results,
        Figure::EveryCall,
        Figure::PerRegistration,
        Figure::UpdateBuffers,
        Figure::Buffers,
        Figure::Vmas,
        Figure::EveryPart,
    ]),
};

const VMAS: &[Column] = &[
    Column { key: "of", head: "VMAs of" },
    Column { key: "count", head: "count" },
    Column { key: "single_share", head: "single" },
    Column { key: "p50", head: "p50" },
    Column { key: "p90", head: "p90" },
    Column { key: "p99", head: "p99" },
    Column { key: "max", head: "max" },
];

const LARGEST: &[Column] = &[
    Column { key: "what", head: "the most" },
    Column { key: "process", head: "by" },
    Column { key: "vmas", head: "VMAs" },
    Column { key: "buffers", head: "buffers" },
    Column { key: "bytes", head: "bytes" },
    Column { key: "time_ns", head: "took" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context) -> Answer {
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    let (Some(buffers), Some(registrations)) = (&snapshot.buffer_vmas, &snapshot.registration_vmas) else {
        return QUESTION.unanswerable(context, reasons::absence(snapshot, &QUESTION, "VMAs"));
    };
    let mut why = reasons::of(snapshot, &QUESTION);
    why.extend(reasons::walks(snapshot));
    QUESTION.told(
        context,
        Draft {
            n: buffers.count(),
            of: "buffers walked to their end",
            verdict: verdict(snapshot, buffers, registrations),
            why,
            tables: vec![
                Table::new("vmas", "VMAs touched", VMAS)
                    .rows([row("a registration", registrations), row("a buffer", buffers)])
                    .detail(),
                Table::new("largest", "The most VMAs", LARGEST).rows(largest(snapshot)).detail(),
            ],
            ..Draft::default()
        },
    )
}

fn verdict(snapshot: &Snapshot, buffers: &Distribution, registrations: &Distribution) -> String {
    let single = |vmas: &Distribution, noun: &str| {
        let share = vmas.share_of(1).map_or_else(|| "none".to_owned(), human::percent);
        format!("{share} of {}", human::plural(vmas.count(), noun))
    };
    // A registration with a buffer that was not walked whole is in none of them.
    let whole = if registrations.count() > 0 {
        format!(" and {}", single(registrations, "registration"))
    } else {
        String::new()
    };
    format!("{}{whole} lay in a single VMA; {}.", single(buffers, "buffer"), most(snapshot, buffers))
}

fn most(snapshot: &Snapshot, buffers: &Distribution) -> String {
    let largest = |largest: &Largest| {
        let who = named(Some(largest.pid), &largest.comm);
        format!("{} by {who}", human::plural(largest.vmas, "VMA"))
    };
    match (&snapshot.largest_registration, &snapshot.largest_buffer) {
        (Some(registration), Some(buffer)) if registration.vmas > buffer.vmas => format!(
            "the most in a registration was {}, in a buffer {}",
            largest(registration),
            human::count(buffer.vmas)
        ),
        (_, Some(buffer)) => format!("the most in a buffer was {}", largest(buffer)),
        (Some(registration), None) => format!("the most in a registration was {}", largest(registration)),
        (None, None) => {
            let most = buffers.max_bound().map_or_else(|| "unknown".to_owned(), human::count);
            format!("no buffer touched more than {most}")
        }
    }
}

fn row(of: &str, vmas: &Distribution) -> Vec<Value> {
    let quantiles = [0.5, 0.9, 0.99, 1.0].map(|q| Value::count(vmas.quantile(q)));
    let head = [Value::Text(of.to_owned()), Value::Count(vmas.count()), Value::share(vmas.share_of(1))];
    head.into_iter().chain(quantiles).collect()
}

fn largest(snapshot: &Snapshot) -> Vec<Vec<Value>> {
    let told = [("registration", &snapshot.largest_registration), ("buffer", &snapshot.largest_buffer)];
    told.into_iter()
        .filter_map(|(what, largest)| {
            let largest = largest.as_ref()?;
            Some(vec![
                Value::Text(what.to_owned()),
                Value::Process { pid: Some(largest.pid), comm: largest.comm.clone() },
                Value::Count(largest.vmas),
                Value::Count(largest.buffers),
                Value::Bytes(largest.bytes),
                Value::time(largest.nanoseconds),
            ])
        })
        .collect()
}
