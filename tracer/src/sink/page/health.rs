//! How far the figures can be trusted: state, reasons, books, losses, probes.

use maud::{Markup, html};

use super::card;
use crate::{
    aggregate::Snapshot,
    probe::health::Status,
    sink::{human, service::Service, text, trace},
};

/// The service in one word, with the class of its colour.
pub(super) fn state(snapshot: &Snapshot, service: &Service) -> (&'static str, &'static str) {
    let attached = service.probes.iter().filter(|probe| probe.attached).count();
    let books = &snapshot.books;
    let whole = service.health == Status::Healthy
        && attached == service.probes.len()
        && snapshot.figures.is_whole()
        && books.balanced
        && books.coverage.is_none_or(|share| share >= 1.0)
        && snapshot.lost.by_cause().iter().all(|(_, _, count)| *count == 0);
    match (attached, whole) {
        (0, _) => ("nothing attached", "bad"),
        (_, false) => ("degraded", "warn"),
        (_, true) => ("healthy", "good"),
    }
}

/// What is not measured, or only in part.
pub(super) fn degraded(snapshot: &Snapshot, service: &Service) -> Markup {
    let missing: Vec<_> = service.probes.iter().filter(|probe| !probe.attached).collect();
    if snapshot.figures.is_whole() && missing.is_empty() {
        return html! {};
    }
    let body = html! {
        ul {
            @for probe in missing {
                li { "The probe at " code { (human::plain(&probe.function)) } " (" (probe.kind) ") is not attached." }
            }
            @for lack in snapshot.figures.shown() { li { (human::plain(&lack)) } }
        }
    };
    card("", "Not measured, or only in part", &body)
}

/// The calls that hang.
pub(super) fn under_way(snapshot: &Snapshot) -> Markup {
    let Some(calls) = snapshot.under_way.as_ref().filter(|calls| !calls.long.is_empty()) else { return html! {} };
    let others = calls.long.len().saturating_sub(LONG) as u64;
    let others = (others > 0).then(|| format!("and {} more", human::count(others)));
    let lines = calls.long.iter().take(LONG).map(trace::under_way).chain(others).chain(trace::unseen_ends(calls));
    card("", "Still under way", &html! { ul { @for line in lines { li { (line) } } } })
}

/// Calls that are named, the oldest.
const LONG: usize = 20;

/// Books, own cost and losses.
pub(super) fn trust(snapshot: &Snapshot) -> Markup {
    let body = html! { ul { @for words in text::trust_words(snapshot) { li { (words) } } } };
    card("half", "How far to trust it", &body)
}

/// The plan's probes.
pub(super) fn probes(service: &Service) -> Markup {
    let body = html! {
        @if service.probes.is_empty() { p class="soft" { "No probe is planned." } }
        @else {
            div class="scroll" {
                table {
                    thead { tr { th { "function" } th class="text" { "kind" } th { "state" } } }
                    tbody {
                        @for probe in &service.probes {
                            tr {
                                td { code { (human::plain(&probe.function)) } }
                                td class="text" { (probe.kind) }
                                td {
                                    @if probe.attached { span class="pill good" { "attached" } }
                                    @else { span class="pill bad" { "not attached" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    card("half", "Probes", &body)
}
