//! The questions and the advice, for people.

use super::{human, page::Page, sections::beginning};
use crate::answer::{Advice, Answer, Explanation, State, Table, Threshold, q6};

/// Rows of a table shown; the others are counted.
const ROWS: usize = 8;
/// Notes of an answer shown.
const NOTES: usize = 4;
/// Processes explained; the others are counted.
const PROCESSES: usize = 8;
/// The room before a verdict: id and state.
const STATE: usize = 13;

/// What a report says of the questions: verdicts with their states and short tables.
pub(super) fn questions(page: &mut Page, answers: &[Answer]) {
    if answers.is_empty() {
        return;
    }
    page.blank();
    page.line("QUESTIONS (--format markdown or json: the questions in full, and all figures)");
    let mut rest = answers;
    while let Some((first, others)) = rest.split_first() {
        rest = match &first.state {
            State::Unanswerable { why } => {
                // Several in a row often lack the same.
                let same = others.iter().take_while(|answer| answer.state == first.state).count();
                unanswerable(page, &rest[..=same], why);
                &rest[same + 1..]
            }
            State::Answered | State::Degraded { .. } => {
                answer(page, first);
                others
            }
        };
    }
    page.paragraph(&format!("{} ", q6::ID), q6::POINTER);
}

fn unanswerable(page: &mut Page, answers: &[Answer], why: &str) {
    let ids: Vec<_> = answers.iter().map(|answer| answer.id).collect();
    page.paragraph(&format!("{} unanswerable: ", ids.join(" ")), &human::plain(why));
}

fn answer(page: &mut Page, answer: &Answer) {
    let begin = format!("{} {:<width$}", answer.id, answer.state.name(), width = STATE - 3);
    page.paragraph(&begin, answer.verdict.as_deref().unwrap_or_default());
    let indent = " ".repeat(3);
    for why in answer.state.why() {
        page.paragraph(&format!("{indent}in part: "), &human::plain(why));
    }
    for note in answer.evidence.notes.iter().take(NOTES) {
        page.paragraph(&indent, note);
    }
    let thresholds: Vec<_> = answer.evidence.thresholds.iter().map(Threshold::words).collect();
    if !thresholds.is_empty() {
        page.paragraph(&indent, &format!("({})", thresholds.join("; ")));
    }
    for shown in answer.evidence.tables.iter().filter(|table| !table.detail) {
        table(page, shown);
    }
}

fn table(page: &mut Page, table: &Table) {
    let rows: Vec<Vec<String>> = table
        .rows
        .iter()
        .take(ROWS)
        .map(|row| row.iter().map(|value| human::cut(&value.shown(), 24)).collect())
        .collect();
    let width = |number: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(number)).map(|cell| human::columns(cell));
        cells.chain([human::columns(head)]).max().unwrap_or(0) + 2
    };
    let widths: Vec<_> = table.columns.iter().enumerate().map(|(number, column)| width(number, column.head)).collect();
    page.paragraph("   ", &format!("{}:", table.title));
    let mut row = |cells: &[String]| {
        let (label, others) = cells.split_first().map_or(("", cells), |(label, others)| (label.as_str(), others));
        let others: Vec<_> = others.iter().cloned().zip(widths.iter().skip(1).copied()).collect();
        page.row(&format!("     {label}"), &others);
    };
    let heads: Vec<_> = table.columns.iter().map(|column| column.head.to_owned()).collect();
    row(&heads);
    for cells in &rows {
        row(cells);
    }
    let more = table.rows.len().saturating_sub(ROWS) as u64;
    if more > 0 {
        page.line(&format!("     and {} more", human::count(more)));
    }
}

/// What to change, by process.
pub(super) fn explanations(page: &mut Page, explanations: &[Explanation]) {
    page.blank();
    page.line("WHAT TO CHANGE");
    if explanations.is_empty() {
        page.paragraph("  ", "Nothing to advise: no process registered buffers.");
    }
    for told in explanations.iter().take(PROCESSES) {
        let began = beginning(told.pid, &told.comm, explanations.iter().map(|other| (other.pid, &*other.comm)));
        page.paragraph(&format!("  {} {}{began}: ", human::plain(&told.comm), told.pid), &told.summary);
        for advice in &told.advice {
            one(page, advice);
        }
    }
    let more = explanations.len().saturating_sub(PROCESSES) as u64;
    if more > 0 {
        page.line(&format!("  and {} more", human::count(more)));
    }
}

fn one(page: &mut Page, advice: &Advice) {
    page.paragraph("  - ", &advice.seen);
    for (what, text) in [("costs:  ", &advice.costs), ("change: ", &advice.change), ("expect: ", &advice.expect)] {
        page.paragraph(&format!("    {what}"), text);
    }
}
