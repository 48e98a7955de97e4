//! The report for people, on 80 columns.

mod audit;
mod detail;
pub(super) mod page;
mod questions;
mod sections;

use super::{Meta, human, left_running};
use crate::{
    aggregate::{Operation, OperationBooks, ResultCount, Snapshot},
    answer::Answers,
    decode::PARTIAL,
};
pub use audit::audit;
use page::Page;
pub(super) use sections::{beginning, describe};

/// The columns of a terminal that does not say how many it has.
pub const WIDTH: usize = 80;
/// The narrowest page that the tables fit on; a narrower terminal wraps it.
const NARROWEST: usize = 72;
/// The widest that can be read across.
const WIDEST: usize = 120;

/// The report: registrations, VMAs, durations and their split, buffers, backings, processes, the questions, the advice
/// where it was asked for, then how far it can be trusted. `width` is the terminal's, held between 72 and 120 columns; no line is wider. Times leave
/// out pinscope's own walks. Figures are rounded to three digits; `json::report` has the exact ones.
pub fn report(snapshot: &Snapshot, meta: &Meta, told: &Answers, width: usize) -> String {
    let mut page = Page::new(width.clamp(NARROWEST, WIDEST));
    heading(&mut page, snapshot.elapsed_ns, meta);
    let nothing = snapshot.operations().iter().all(|operation| operation.total() == 0);
    let timed = snapshot.operations().iter().any(|operation| operation.duration.is_some());
    if nothing {
        nothing_seen(&mut page, snapshot, meta);
    } else {
        sections::registrations(&mut page, snapshot);
        sections::vmas(&mut page, snapshot);
        sections::durations(&mut page, snapshot);
        sections::split(&mut page, snapshot);
        detail::calls(&mut page, snapshot);
        detail::locks(&mut page, snapshot);
        detail::phases(&mut page, snapshot);
        sections::sizes(&mut page, snapshot);
        sections::backings(&mut page, snapshot);
        sections::processes(&mut page, snapshot);
        if timed {
            page.blank();
            page.line("p50 to max are never too low and at most 1/8 too high; below 16 they are exact.");
        }
    }
    detail::under_way(&mut page, snapshot);
    questions::questions(&mut page, &told.answers);
    if let Some(explanations) = &told.explanations {
        questions::explanations(&mut page, explanations);
    }
    if nothing || !timed || !told.answers.is_empty() {
        page.blank();
    }
    trust(&mut page, snapshot);
    page.into_text()
}

fn heading(page: &mut Page, elapsed_ns: u64, meta: &Meta) {
    let length = human::duration(elapsed_ns);
    page.line(&format!("pinscope {}: {length} of {}", human::plain(&meta.origin.version), human::plain(&meta.scope)));
    page.line(&format!("Linux {}, {} probes", human::plain(&meta.origin.kernel), human::plain(&meta.origin.mode)));
    if let Some(command) = &meta.command {
        let end = meta.exit_code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
        let room = page.width().saturating_sub(end.len() + 2);
        page.line(&format!("$ {}{end}", human::cut(&human::plain(command), room)));
    }
    if let Some(words) = left_running(meta.left_running) {
        page.paragraph("", &words);
    }
}

fn nothing_seen(page: &mut Page, snapshot: &Snapshot, meta: &Meta) {
    page.blank();
    if snapshot.books.operations.iter().all(|books| books.ledger.is_none()) {
        page.paragraph(
            "",
            "Registrations could not be counted: the kernel's tracepoint io_uring_register is not attached; see below.",
        );
        return;
    }
    page.line(&format!("No buffer registration was seen in {}.", human::duration(snapshot.elapsed_ns)));
    let scope = human::plain(&meta.scope);
    for hint in [
        "Does the program register buffers at all? Plain io_uring I/O does not; fio does with --fixedbufs=1, liburing with io_uring_register_buffers().",
        "Most programs register once, when they start: start pinscope first, or `pinscope report -- COMMAND`.",
        &format!("Only this was watched: {scope}."),
        "`pinscope doctor` says whether every hook can be attached on this kernel.",
    ] {
        page.paragraph("  - ", hint);
    }
}

/// How far the figures can be trusted, and what pinscope itself cost, a line each.
pub(super) fn trust_words(snapshot: &Snapshot) -> Vec<String> {
    let books = format!("books: {}", books(snapshot));
    let cost = own_cost(snapshot).map(|cost| format!("own cost: {cost}"));
    let lost = losses(snapshot).into_iter().map(|loss| format!("lost or missed: {loss}"));
    [books].into_iter().chain(cost).chain(lost).collect()
}

/// The same in the text report.
fn trust(page: &mut Page, snapshot: &Snapshot) {
    page.paragraph("Books: ", &books(snapshot));
    if let Some(cost) = own_cost(snapshot) {
        page.paragraph("Own cost: ", &cost);
    }
    let degraded: Vec<_> = snapshot.figures.shown().collect();
    for (title, reasons) in [("Degraded:", degraded), ("Lost or missed:", losses(snapshot))] {
        if !reasons.is_empty() {
            page.blank();
            page.line(title);
        }
        for reason in reasons {
            page.paragraph("  - ", &human::plain(&reason));
        }
    }
}

fn books(snapshot: &Snapshot) -> String {
    let books = &snapshot.books;
    let sum =
        |of: fn(&OperationBooks) -> Option<u64>| books.operations.iter().filter_map(of).reduce(u64::saturating_add);
    let Some(ledger) = sum(|books| books.ledger) else {
        return "the kernel's tracepoint is not attached, so nothing holds the counts against it.".to_owned();
    };
    let measured = books.coverage.map(|share| format!(", {} of them measured", human::percent(share)));
    let calls = human::plural(ledger, "call");
    let mut facts = vec![format!("the kernel's tracepoint saw {calls}{}", measured.unwrap_or_default())];
    let refused = sum(|books| books.refused_early).unwrap_or(0);
    let open = books.in_flight.unwrap_or(0);
    let before = books.begun_before.unwrap_or(0);
    for (count, what) in [
        (refused, "refused early"),
        (open.max(0).unsigned_abs(), "in flight"),
        (before, "more, under way when the session began, left out"),
    ] {
        if count > 0 {
            facts.push(format!("{} {what}", human::count(count)));
        }
    }
    let off = books.operations.iter().filter_map(|books| books.unexplained).fold(0, u64::saturating_add);
    facts.push(match (books.balanced, off) {
        (true, _) => "they balance.".to_owned(),
        (false, 0) => "they do not balance.".to_owned(),
        (false, off) => format!("they are off by {}.", human::count(off)),
    });
    facts.join("; ")
}

fn own_cost(snapshot: &Snapshot) -> Option<String> {
    let walks = snapshot.walks.as_ref()?;
    let number = [walks.complete, walks.hole, walks.busy, walks.cut].into_iter().fold(0, u64::saturating_add);
    let each = walks.nanoseconds.checked_div(number)?;
    Some(format!(
        "{} over {} took {} ({} each), in none of the times above.",
        human::plural(number, "walk"),
        human::plural(walks.vmas, "VMA"),
        human::duration(walks.nanoseconds),
        human::duration(each),
    ))
}

/// What is missing from the figures above.
fn losses(snapshot: &Snapshot) -> Vec<String> {
    let causes = snapshot.lost.by_cause().into_iter().map(|(_, meaning, count)| (count, meaning.to_owned()));
    let books = &snapshot.books.operations;
    let entries = books.iter().filter_map(|books| {
        Some((books.missed_entries?, format!("entries of {}: counted, not measured", books.operation.name())))
    });
    let returns = (
        snapshot.books.missed_returns(),
        "returns: a kretprobe ran out of instances or a probe was skipped, so parts of some times are unknown"
            .to_owned(),
    );
    let parts = (
        snapshot.books.missed_parts(),
        "entries of buffers or pins: their probe was skipped, so their registrations are not whole".to_owned(),
    );
    let skipped = snapshot.skipped.iter().map(|skipped| {
        (
            skipped.runs,
            format!(
                "runs of {} skipped by the kernel: on that CPU it was at work for a preempted task",
                skipped.program
            ),
        )
    });
    let walks = snapshot.walks.as_ref().map_or([0; 3], |walks| [walks.busy, walks.cut, walks.none]);
    let ends = ["ended early: a writer held mmap_lock", "ended early: a limit of the verifier", "did not happen"];
    let walks =
        walks.into_iter().zip(ends).map(|(count, why)| (count, format!("walks {why}; their VMAs are not counted")));
    let all = causes.chain(entries).chain([returns, parts]).chain(walks).chain(skipped);
    all.filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", human::count(count))).collect()
}

/// What failed and why, and at which refusals partial updates stopped: `EFAULT 20, ENOMEM 4; partial: EFAULT 6`.
pub(super) fn failures(operation: &Operation) -> String {
    let list = |results: &mut dyn Iterator<Item = &ResultCount>| {
        results.map(|result| format!("{} {}", result.result, human::count(result.count))).collect::<Vec<_>>().join(", ")
    };
    let failed =
        list(&mut operation.results.iter().filter(|result| !["ok", PARTIAL].contains(&result.result.as_str())));
    let partial = list(&mut operation.partial_reasons.iter());
    let partial = if partial.is_empty() { partial } else { format!("partial: {partial}") };
    [failed, partial].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
