//! The figures, a card each. A card without figures says so, or is left out.

use maud::{Markup, html};
use tracer_ebpf::operation;

use super::{card, chart};
use crate::{
    aggregate::{Measured, Operation, Snapshot, registered::Registered},
    answer::{Answer, State, q6},
    sink::{human, text},
};

/// Backings shown; the others are counted.
const BACKINGS: usize = 12;

/// Stands for a figure that is not measured.
const UNKNOWN: &str = "unknown";
/// Stands for a figure of what has not been seen.
const NONE: &str = "none yet";

/// The main figures.
pub(super) fn tiles(snapshot: &Snapshot) -> Markup {
    let counted = || snapshot.operations().iter();
    let sum = |of: fn(&Operation) -> u64| counted().map(of).reduce(u64::saturating_add).map(human::count);
    let failed = sum(|operation| operation.failed).map(|failed| format!("{failed} failed"));
    let partial = counted().map(|operation| operation.partial).fold(0, u64::saturating_add);
    let failed = failed.map(|failed| match partial {
        0 => failed,
        partial => format!("{failed}, {} partial", human::count(partial)),
    });
    let buffers = snapshot.registration_buffers.as_ref().ok_or(UNKNOWN).map(|buffers| human::count(buffers.sum()));
    let bytes = snapshot.registration_bytes.as_ref().map(|bytes| human::bytes(bytes.sum()));
    let at_least = |of: Option<Measured>| if of.is_some_and(|of| of.missed > 0) { "at least " } else { "" };
    let unseen = at_least(snapshot.books.figures.buffers);
    let (buffers, bytes) = (buffers.map(|sum| format!("{unseen}{sum}")), bytes.map(|sum| format!("{unseen}{sum}")));
    let vmas = snapshot.buffer_vmas.as_ref();
    let single = vmas.ok_or(UNKNOWN).and_then(|vmas| vmas.share_of(1).map(human::percent).ok_or(NONE));
    let walked = vmas.map(|vmas| format!("of {} walked", human::count(vmas.count())));
    let register = snapshot.operations().iter().find(|operation| operation.operation == operation::Operation::Register);
    let duration = register.and_then(|operation| Some(&operation.duration.as_ref()?.ok));
    let quantile =
        |q: f64| duration.ok_or(UNKNOWN).and_then(|duration| duration.quantile(q).map(human::duration).ok_or(NONE));
    let median = quantile(0.5).ok().map(|median| format!("p50 {median}"));
    let share = |part: u64, total: u64| (total > 0).then(|| human::percent(part as f64 / total as f64)).ok_or(NONE);
    let pins = snapshot.split.as_ref().ok_or(UNKNOWN).and_then(|split| share(split.pin_ns, split.total_ns));
    let books = &snapshot.books;
    let no_coverage = if books.operations.iter().any(|one| one.ledger.is_some()) { NONE } else { UNKNOWN };
    let coverage = books.coverage.map(human::percent).ok_or(no_coverage);
    let balance = if books.balanced { "books balance" } else { "books do not balance" };
    html! {
        section class="tiles" {
            (tile("calls", sum(Operation::total).ok_or(UNKNOWN), failed.as_deref()))
            (tile("buffers", buffers, bytes.as_deref()))
            (tile("buffers in one VMA", single, walked.as_deref()))
            (tile("p99 of a register", quantile(0.99), median.as_deref()))
            (tile("time in the pins", pins, Some("of register and update")))
            @if let Some(registered) = &snapshot.registered { (registered_now(registered)) }
            (tile("coverage", coverage, Some(balance)))
        }
    }
}

/// What is pinned and what is registered now, with what is not known of it.
fn registered_now(registered: &Registered) -> Markup {
    let least = if registered.is_lower_bound() { "at least " } else { "" };
    let unknown = match registered.unknown_rings {
        0 => String::new(),
        unknown => format!(", {} unknown", human::count(unknown)),
    };
    let share = &registered.all;
    let note = format!(
        "{} registered in {} buffers on {} rings{unknown}",
        human::bytes(share.bytes),
        human::count(share.buffers),
        human::count(registered.rings),
    );
    tile("pinned now", Ok(format!("{least}{}", human::bytes(share.pinned))), Some(&note))
}

/// A figure, or the word that stands for it.
fn tile(label: &str, value: Result<String, &str>, note: Option<&str>) -> Markup {
    html! {
        div class="tile" {
            small { (label) }
            @match value {
                Ok(value) => b { (value) },
                Err(word) => b class="unknown" { (word) },
            }
            @if let Some(note) = note { small { (note) } }
        }
    }
}

/// The questions, each with its state, its verdict and what limits it.
pub(super) fn questions(answers: &[Answer]) -> Markup {
    let body = html! {
        dl class="questions" {
            @for answer in answers {
                dt { (answer.id) span class={ "pill " (colour(&answer.state)) } { (answer.state.name()) } }
                dd {
                    @if let Some(verdict) = &answer.verdict { (verdict) } @else { (answer.question) }
                    @for why in answer.state.why() { small { (human::plain(why)) } }
                }
            }
            dt { (q6::ID) } dd { (q6::POINTER) }
        }
    };
    card("", "Questions", &body)
}

fn colour(state: &State) -> &'static str {
    match state {
        State::Answered => "good",
        State::Degraded { .. } => "warn",
        State::Unanswerable { .. } => "",
    }
}

/// Calls by operation and result.
pub(super) fn registrations(snapshot: &Snapshot) -> Markup {
    if snapshot.operations().is_empty() {
        return html! {};
    }
    let body = html! {
        div class="scroll" {
            table {
                thead { tr { th { "operation" } th { "calls" } th { "ok" } th { "partial" } th { "failed" } } }
                tbody {
                    @for operation in snapshot.operations() {
                        tr {
                            td { (operation.operation.name()) small { (text::failures(operation)) } }
                            td { (human::count(operation.total())) }
                            td { (human::count(operation.ok)) }
                            td { (human::count(operation.partial)) }
                            td { (human::count(operation.failed)) }
                        }
                    }
                }
            }
        }
    };
    card("", "Registrations by operation and result", &body)
}

/// What a registration and a buffer are made of.
pub(super) fn sizes(snapshot: &Snapshot) -> Markup {
    card(
        "half",
        "VMAs, buffers and bytes",
        &html! {
            (chart::histogram("VMAs touched by a registration", snapshot.registration_vmas.as_ref(), human::count))
            (chart::histogram("VMAs touched by a buffer", snapshot.buffer_vmas.as_ref(), human::count))
            (chart::histogram("buffers of a registration", snapshot.registration_buffers.as_ref(), human::count))
            (chart::histogram("bytes of a registration", snapshot.registration_bytes.as_ref(), human::bytes))
        },
    )
}

/// Durations by operation, and the pins.
pub(super) fn durations(snapshot: &Snapshot) -> Markup {
    card(
        "half",
        "Durations",
        &html! {
            @for operation in snapshot.operations() {
                (chart::histogram(operation.operation.name(), operation.duration.as_ref().map(|duration| &duration.ok), human::duration))
            @if let Some(partial) = operation.duration.as_ref().map(|duration| &duration.partial).filter(|partial| partial.count() > 0) {
                (chart::histogram(&format!("{}, partial", operation.operation.name()), Some(partial), human::duration))
            }
            @if let Some(failed) = operation.duration.as_ref().map(|duration| &duration.failed).filter(|failed| failed.count() > 0) {
                (chart::histogram(&format!("{}, failed", operation.operation.name()), Some(failed), human::duration))
            }
            }
            (chart::histogram("pins of a registration", snapshot.pin.as_ref(), human::duration))
        },
    )
}

/// What lies behind the buffers.
pub(super) fn backings(snapshot: &Snapshot) -> Markup {
    let backings = snapshot.backings.as_deref();
    let most = backings.into_iter().flatten().map(|backing| backing.bytes).max().unwrap_or(0).max(1);
    let body = html! {
        @match backings {
            None => p class="soft" { "Not measured on this kernel." },
            Some([]) => p class="soft" { "None seen yet." },
            Some(all) => {
                div class="scroll" {
                    table {
                        thead { tr { th { "backing" } th { "buffers" } th { "VMAs" } th { "bytes" } th class="wide" {} } }
                        tbody {
                            @for backing in all.iter().take(BACKINGS) {
                                tr {
                                    td { (text::describe(backing)) }
                                    td { (human::count(backing.buffers)) }
                                    td { (human::count(backing.vmas)) }
                                    td { (human::bytes(backing.bytes)) }
                                    td class="wide" { (chart::bar(backing.bytes as f64 / most as f64)) }
                                }
                            }
                        }
                    }
                }
                (more(all.len(), BACKINGS))
                @if let Some(walks) = snapshot.books.figures.walks.filter(|walks| walks.missed > 0) {
                    p class="soft" { "Lower bounds: " (human::count(walks.missed)) " buffers were not walked to the end." }
                }
            },
        }
    };
    card("", "Backings", &body)
}

fn more(all: usize, shown: usize) -> Markup {
    let more = all.saturating_sub(shown);
    html! { @if more > 0 { p class="soft" { "and " (human::count(more as u64)) " more" } } }
}
