//! The report as markdown, for a mail to a list or an issue: prose that reads well as it is, on 72 columns, and tables
//! of figures that are tables in both.

use super::{
    Meta, human, left_running,
    text::{beginning, page::Page},
};
use crate::{
    aggregate::Snapshot,
    answer::{Advice, Answer, Answers, Evidence, Explanation, Table, Threshold, q6},
};

/// What a mail is wrapped at.
const WIDTH: usize = 72;
/// Rows of a table shown; the others are counted.
const ROWS: usize = 16;
/// A cell is cut here.
const CELL: usize = 40;
/// The first column is narrowed to this, where the others need the room.
const LABEL: usize = 14;

/// The seven questions with verdict, state and evidence, then the advice, what is missing, and how it was measured.
///
/// Figures are rounded to three digits; `json::report` has the exact ones.
pub fn report(snapshot: &Snapshot, meta: &Meta, told: &Answers) -> String {
    let mut page = Page::new(WIDTH);
    header(&mut page, snapshot, meta);
    for answer in &told.answers {
        question(&mut page, answer);
    }
    if !told.answers.is_empty() {
        page.blank();
        page.line(&format!("## {}", q6::ID));
        page.blank();
        page.paragraph("", q6::POINTER);
    }
    if let Some(explanations) = &told.explanations {
        changes(&mut page, explanations);
    }
    measured(&mut page, snapshot);
    page.into_text()
}

fn header(page: &mut Page, snapshot: &Snapshot, meta: &Meta) {
    page.line("# io_uring buffer registration");
    page.blank();
    let mut facts = vec![
        ("pinscope", format!("{}, {} probes", human::plain(&meta.origin.version), human::plain(&meta.origin.mode))),
        ("kernel", human::plain(&meta.origin.kernel)),
        ("watched", format!("{} for {}", human::plain(&meta.scope), human::duration(snapshot.elapsed_ns))),
    ];
    facts.extend(meta.started.as_ref().map(|started| ("from", human::plain(started))));
    if let Some(command) = &meta.command {
        let end = meta.exit_code.map(|code| format!(" (exit code {code})")).unwrap_or_default();
        facts.push(("command", format!("{}{end}", human::plain(command))));
    }
    facts.extend(left_running(meta.left_running).map(|words| ("left running", words)));
    for operation in snapshot.operations().iter().filter(|operation| operation.total() > 0) {
        let (calls, failed) = (human::plural(operation.total(), "call"), human::count(operation.failed));
        let partial = match operation.partial {
            0 => String::new(),
            partial => format!(", {} partial", human::count(partial)),
        };
        facts.push((operation.operation.name(), format!("{calls}{partial}, {failed} failed")));
    }
    for (name, fact) in facts {
        prose(page, "- ", &format!("{name}: {fact}"));
    }
}

fn question(page: &mut Page, answer: &Answer) {
    page.blank();
    page.line(&format!("## {} {}", answer.id, answer.state.name()));
    page.blank();
    prose(page, "", answer.question);
    if let Some(verdict) = &answer.verdict {
        page.blank();
        page.paragraph("", &format!("**Verdict:** {}", escaped(verdict)));
    }
    bullets(page, answer.state.why().iter().map(|why| human::plain(why)));
    let Evidence { notes, tables, .. } = &answer.evidence;
    for table in tables {
        page.blank();
        prose(page, "", &format!("{}:", table.title));
        page.blank();
        rows(page, table);
    }
    bullets(page, notes.iter().cloned());
    evidence(page, &answer.evidence);
}

/// What was counted, by which hooks, and held against which limits.
fn evidence(page: &mut Page, evidence: &Evidence) {
    let Some(n) = evidence.n else { return };
    let hooks: Vec<_> =
        evidence.hooks.iter().map(|hook| format!("{} ({})", hook.role, human::plain(&hook.function))).collect();
    let hooks = if hooks.is_empty() { String::new() } else { format!("; hooks: {}", hooks.join(", ")) };
    let (kernel, mode) = (human::plain(&evidence.kernel), human::plain(&evidence.mode));
    let measured = format!("n = {} {}; Linux {kernel}, {mode}{hooks}.", human::count(n), evidence.of);
    let thresholds = evidence.thresholds.iter().map(Threshold::words);
    bullets(page, [measured].into_iter().chain(thresholds));
}

fn bullets(page: &mut Page, items: impl Iterator<Item = String>) {
    for (number, item) in items.enumerate() {
        if number == 0 {
            page.blank();
        }
        prose(page, "- ", &item);
    }
}

/// A table of GitHub's, its cells filled up so that it is one in plain text too.
fn rows(page: &mut Page, table: &Table) {
    let mut lines = vec![table.columns.iter().map(|column| column.head.to_owned()).collect::<Vec<_>>()];
    lines.extend(table.rows.iter().take(ROWS).map(|row| row.iter().map(|value| cell(&value.shown())).collect()));
    let widths = fit((0..table.columns.len()).map(|column| widest(&lines, column)).collect());
    for (number, line) in lines.iter().enumerate() {
        page.line(&shown(line, &widths));
        if number == 0 {
            page.line(&rule(&widths));
        }
    }
    let more = table.rows.len().saturating_sub(ROWS) as u64;
    let dropped: Vec<_> = table.columns.iter().skip(widths.len()).map(|column| column.head.to_owned()).collect();
    let more = (more > 0).then(|| format!("{} more rows", human::count(more)));
    let left_out: Vec<_> = more.into_iter().chain(dropped).collect();
    if !left_out.is_empty() {
        page.blank();
        prose(page, "", &format!("Left out here, but in the JSON: {}.", human::list(&left_out)));
    }
}

fn widest(lines: &[Vec<String>], column: usize) -> usize {
    let cells = lines.iter().filter_map(|line| line.get(column)).map(|cell| human::columns(cell));
    cells.max().unwrap_or(0).max(3)
}

/// Narrows the first column, then leaves out the last ones, until the table fits the page.
fn fit(mut widths: Vec<usize>) -> Vec<usize> {
    let over = |widths: &[usize]| (widths.iter().sum::<usize>() + 2 * widths.len() + 1).saturating_sub(WIDTH);
    let over_by = over(&widths);
    if let Some(label) = widths.first_mut() {
        *label = label.saturating_sub(over_by).max(LABEL.min(*label));
    }
    while widths.len() > 1 && over(&widths) > 0 {
        widths.pop();
    }
    widths
}

fn cell(text: &str) -> String {
    human::cut(text, CELL).split(' ').map(inline).collect::<Vec<_>>().join(" ")
}

fn prose(page: &mut Page, first: &str, text: &str) {
    page.paragraph(first, &escaped(text));
}

/// Text that reads as it is, whatever names are in it. What stands apart from other words might begin a line, and there be a
/// list, a title or a quotation.
fn escaped(text: &str) -> String {
    let words = text.split(' ').enumerate().map(|(place, word)| match word.strip_suffix(['.', ')']) {
        // Only a 1 begins a list in the middle of a paragraph.
        Some(number) if place == 0 && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{number}\\{}", &word[number.len()..])
        }
        _ => escaped_word(word),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn escaped_word(word: &str) -> String {
    let all = |byte: u8| word.len() > 1 && word.bytes().all(|other| other == byte);
    if word.starts_with(['#', '>']) || ["-", "+"].contains(&word) || all(b'-') || all(b'=') {
        format!("\\{}", inline(word))
    } else if let "1." | "1)" = word {
        word.replace('1', "1\\")
    } else {
        inline(word)
    }
}

/// With a backslash in front of what markdown takes for markup inside a line. A bar, which would end a cell, is a slash; a
/// back-tick, whose partner may be anywhere, is an apostrophe.
fn inline(word: &str) -> String {
    let mut text = String::new();
    let mut before = None;
    for (at, character) in word.char_indices() {
        let after = word[at + character.len_utf8()..].chars().next();
        let is_word = |side: Option<char>| side.is_some_and(char::is_alphanumeric);
        let markup = match character {
            '\\' | '*' | '[' | ']' | '~' => true,
            // Inside a word it is none: `io_pin_pages`.
            '_' => !is_word(before) || !is_word(after),
            // What has an @ behind it may be an address of mail.
            '<' => {
                after.is_some_and(|after| after.is_ascii_alphabetic() || "/!?|".contains(after))
                    || word[at..].contains('@')
            }
            '&' => is_word(after) || after == Some('#'),
            // Addresses become links by themselves.
            '/' => before == Some(':') && after == Some('/'),
            '.' => text.to_ascii_lowercase().ends_with("www"),
            _ => false,
        };
        if markup {
            text.push('\\');
        }
        text.push(match character {
            '|' => '/',
            '`' => '\'',
            other => other,
        });
        before = Some(character);
    }
    text
}

/// The first cell on the left, the others on the right.
fn shown(line: &[String], widths: &[usize]) -> String {
    let cells = line.iter().zip(widths).enumerate().map(|(number, (cell, width))| {
        let cell = human::cut(cell, *width);
        if number == 0 { format!(" {}|", human::padded(&cell, *width)) } else { format!(" {cell:>width$}|") }
    });
    format!("|{}", cells.collect::<String>())
}

fn rule(widths: &[usize]) -> String {
    let cells = widths.iter().enumerate().map(|(number, width)| {
        if number == 0 { format!("{}|", "-".repeat(width + 1)) } else { format!("{}:|", "-".repeat(*width)) }
    });
    format!("|{}", cells.collect::<String>())
}

fn changes(page: &mut Page, explanations: &[Explanation]) {
    page.blank();
    page.line("## What to change");
    for told in explanations {
        page.blank();
        let who = escaped(&human::plain(&told.comm));
        let began = beginning(told.pid, &told.comm, explanations.iter().map(|other| (other.pid, &*other.comm)));
        page.paragraph("", &format!("**{who} {}{began}.** {}", told.pid, escaped(&told.summary)));
        for advice in &told.advice {
            page.blank();
            one(page, advice);
        }
    }
}

fn one(page: &mut Page, advice: &Advice) {
    prose(page, "- ", &advice.seen);
    for (what, text) in [("Costs: ", &advice.costs), ("Change: ", &advice.change), ("Expect: ", &advice.expect)] {
        prose(page, "  ", &format!("{what}{text}"));
    }
}

fn measured(page: &mut Page, snapshot: &Snapshot) {
    page.blank();
    page.line("## How it was measured");
    page.blank();
    page.paragraph(
        "",
        "By eBPF programs at the entry and return of the kernel's functions. Times leave out pinscope's own walks over the VMAs. Quantiles are never too low and at most 1/8 too high; below 16 they are exact. What is not known is absent, never zero.",
    );
    let trust = super::text::trust_words(snapshot);
    let degraded = snapshot.figures.shown().map(|lack| format!("degraded: {}", human::plain(&lack)));
    bullets(page, trust.into_iter().chain(degraded));
}

#[cfg(test)]
mod tests;
