//! The audit for people.

use super::{NARROWEST, WIDEST, human, page::Page};
use crate::{
    aggregate::audit::{Answer, Audit, Row},
    sink::Meta,
};

/// Rows shown; the others are summed.
const ROWS: usize = 40;
/// Functions of a chain that are shown behind the caller.
const STEPS: usize = 12;

/// The audit on `width` columns, held between 72 and 120: the answer in a sentence, a block for each caller, what the
/// rules refuse, how far it can be trusted, what it cost. `json::audit` has the exact figures, and the offsets.
pub fn audit(audit: &Audit, meta: &Meta, width: usize) -> String {
    let mut page = Page::new(width.clamp(NARROWEST, WIDEST));
    super::heading(&mut page, audit.elapsed_ns, meta);
    page.blank();
    page.paragraph("Q6 Who else pins user pages: ", &verdict(audit));
    rows(&mut page, audit);
    page.blank();
    page.paragraph(
        "Not listed: ",
        &format!(
            "{} of get_user_pages and its kin without FOLL_WRITE and FOLL_LONGTERM.",
            human::plural(audit.read_only, "call")
        ),
    );
    refused(&mut page, audit);
    trust(&mut page, audit);
    page.into_text()
}

fn verdict(audit: &Audit) -> String {
    let calls: u64 = audit.rows.iter().map(|row| row.calls).sum();
    let long: u64 = audit.rows.iter().filter(|row| row.flags.contains(&"FOLL_LONGTERM")).map(|row| row.calls).sum();
    let mut callers: Vec<_> = audit.rows.iter().filter_map(|row| row.caller.as_deref()).collect();
    callers.sort_unstable();
    callers.dedup();
    let answer = match audit.answer {
        Answer::Answered => "answered.",
        Answer::Degraded => "degraded (see below).",
        Answer::Unanswerable => return "unanswerable: none of the functions is hooked (see below).".to_owned(),
    };
    let unknown: u64 = audit.rows.iter().filter(|row| row.caller.is_none()).map(|row| row.calls).sum();
    let by = match (callers.len() as u64, unknown) {
        (0, 1..) => "callers that are unknown".to_owned(),
        (known, 0) => human::plural(known, "kernel function"),
        (known, unknown) => {
            format!("{}, {} by unknown ones", human::plural(known, "kernel function"), human::count(unknown))
        }
    };
    format!(
        "{answer} {} by {by}; {} of them for long (FOLL_LONGTERM).",
        human::plural(calls, "call"),
        human::count(long)
    )
}

fn rows(page: &mut Page, audit: &Audit) {
    if audit.rows.is_empty() {
        return;
    }
    page.section("CALLER", &[("calls", 9), ("failed", 8), ("pages", 9), ("time", 10), ("mean", 10)]);
    let (shown, others) = audit.rows.split_at(audit.rows.len().min(ROWS));
    for row in shown {
        one(page, row);
    }
    if !others.is_empty() {
        let sum = |of: fn(&Row) -> u64| others.iter().map(of).fold(0, u64::saturating_add);
        let label = format!("  {} more rows", others.len());
        figures(page, &label, [sum(|r| r.calls), sum(|r| r.failed), sum(|r| r.pages), sum(|r| r.time_ns)]);
    }
}

fn figures(page: &mut Page, label: &str, [calls, failed, pages, time]: [u64; 4]) {
    let mean = time.checked_div(calls).map_or_else(|| "-".to_owned(), human::duration);
    page.row(
        label,
        &[
            (human::count(calls), 9),
            (human::count(failed), 8),
            (human::count(pages), 9),
            (human::duration(time), 10),
            (mean, 10),
        ],
    );
}

fn one(page: &mut Page, row: &Row) {
    let module = row.module.as_ref().map(|module| format!(" [{module}]")).unwrap_or_default();
    let caller = row.caller.as_deref().unwrap_or("(unknown)");
    figures(page, &format!("  {caller}{module}"), [row.calls, row.failed, row.pages, row.time_ns]);
    let flags = if row.flags.is_empty() { "no flags".to_owned() } else { row.flags.join("|") };
    page.paragraph("    ", &format!("{}, {flags}", row.function));
    let errors: Vec<_> = row.errors.iter().map(|(name, count)| format!("{name} {}", human::count(*count))).collect();
    let errors = if errors.is_empty() { String::new() } else { format!("; {}", errors.join(", ")) };
    page.paragraph("    ", &format!("{}; by {}{errors}", behind(row), human::plain(&row.comm)));
    if let Some(chain) = row.chains.first() {
        let steps: Vec<_> = chain.steps.iter().skip(1).take(STEPS).map(|step| step.function.as_str()).collect();
        let more = match row.chains.len() {
            1 => String::new(),
            ways => format!(" (one of {ways} ways)"),
        };
        if !steps.is_empty() {
            page.paragraph("    < ", &format!("{}{more}", steps.join(" < ")));
        }
    }
    let rules = [("as proposed", row.refused.as_proposed), ("since 6.5", row.refused.since_6_5)];
    let refusing: Vec<_> =
        rules.into_iter().filter(|(_, calls)| calls.unwrap_or(0) > 0).map(|(rule, _)| rule).collect();
    // What does not write the rule is not about.
    if row.exempt > 0 && row.flags.contains(&"FOLL_WRITE") {
        let many =
            if row.exempt == row.calls { String::new() } else { format!(", {} of them", human::count(row.exempt)) };
        page.paragraph("    ", &format!("exempt from what was proposed{many}"));
    }
    if !refusing.is_empty() {
        page.paragraph("    ", &format!("would be refused: {}", refusing.join(", ")));
    }
}

fn behind(row: &Row) -> String {
    let backing = &row.backing;
    let Some(class) = backing.class else {
        return match backing.seen {
            "remote" => "memory of another mm: backing unknown",
            "unmapped" => "nothing mapped where the range begins",
            "busy" => "backing unknown: mmap_lock was busy",
            _ => "backing unknown",
        }
        .to_owned();
    };
    let mut text = class.to_owned();
    if let Some(filesystem) = &backing.filesystem {
        text = format!("{text} {}", human::cut(&human::plain(filesystem), 16));
    }
    text.push_str(if backing.shared == Some(true) { ", shared" } else { ", private" });
    if backing.writable == Some(false) {
        text.push_str(", read-only");
    }
    if backing.mixed {
        text.push_str(", and others");
    }
    if backing.seen == "part" {
        text.push_str(", not seen to its end");
    }
    text
}

fn refused(page: &mut Page, audit: &Audit) {
    let told = |calls: Option<u64>| calls.map_or_else(|| "unknown".to_owned(), |calls| human::plural(calls, "call"));
    page.paragraph(
        "Would be refused: ",
        &format!(
            "{} as proposed in April 2023 (FOLL_WRITE to a file mapping but shmem and hugetlb, by callers that it did not exempt); {} since 6.5 (long-term pins for writing of shared, writable file mappings), of those that succeeded.",
            told(audit.refused.as_proposed),
            told(audit.refused.since_6_5)
        ),
    );
    if audit.unjudged > 0 {
        page.paragraph(
            "  ",
            &format!("{} not judged: their backing is unknown.", human::plural(audit.unjudged, "call")),
        );
    }
}

fn trust(page: &mut Page, audit: &Audit) {
    let books = &audit.books;
    page.paragraph(
        "Books: ",
        &format!(
            "{} entered, {} returned, {} missed, {} in flight.",
            human::count(books.entries),
            human::count(books.returns),
            human::count(books.missed_returns),
            human::count(books.in_flight)
        ),
    );
    page.paragraph("Own cost: ", &cost(audit));
    if !audit.degraded.is_empty() {
        page.blank();
        page.line("Degraded:");
    }
    for reason in &audit.degraded {
        page.paragraph("  - ", &human::plain(reason));
    }
}

fn cost(audit: &Audit) -> String {
    let cost = &audit.cost;
    let entries = format!("walks and stacks took {}, in none of the times above", human::duration(cost.entry_ns));
    let (Some(runs), Some(run_ns)) = (cost.runs, cost.run_ns) else {
        let why = cost.why_not.as_deref().unwrap_or("no statistics");
        return format!("{entries}; all of it is unknown: {why}.");
    };
    let mean = run_ns.checked_div(runs).map_or_else(|| "-".to_owned(), human::duration);
    let share = cost.share.map(|share| match share {
        1.0.. => format!(", {share:.1} times the time of the calls listed"),
        _ => format!(", {} of the time of the calls listed", human::percent(share)),
    });
    format!(
        "{} of probes took {} ({mean} each){}; {entries}. Getting into a probe (trampoline or breakpoint) is in no figure.",
        human::plural(runs, "run"),
        human::duration(run_ns),
        share.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use crate::{
        aggregate::audit::{Audit, Behind, Chain, Cost, Refused, Row, Step},
        sink::Meta,
    };

    #[test]
    fn no_line_is_wider_than_the_page_and_the_unknown_is_no_zero() {
        let step = |function: &str| Step { function: function.to_owned(), offset: 0, module: None };
        let row = Row {
            caller: Some("a_function_with_a_name_that_is_longer_than_any_column_could_be".to_owned()),
            module: Some("module".to_owned()),
            function: "pin_user_pages_remote",
            flags: vec!["FOLL_PIN", "FOLL_LONGTERM", "FOLL_WRITE", "FOLL_FORCE"],
            comm: "\u{1b}[2J".to_owned(),
            backing: Behind {
                seen: "remote",
                class: None,
                filesystem: None,
                shared: None,
                writable: None,
                mixed: false,
            },
            calls: u64::MAX,
            failed: 0,
            errors: [("EFAULT".to_owned(), 3)].into(),
            pages_asked: 1,
            pages: u64::MAX,
            bytes: 1,
            vmas: None,
            time_ns: u64::MAX,
            refused: Refused::default(),
            exempt: 1,
            chains: vec![Chain { calls: 1, steps: vec![step("a"), step("b"), step("do_syscall_64")] }],
        };
        let audit = Audit {
            rows: vec![row],
            unjudged: 3,
            cost: Cost { why_not: Some("refused".to_owned()), ..Cost::default() },
            degraded: vec!["a reason".to_owned()],
            ..Audit::default()
        };
        let text = super::audit(&audit, &Meta::default(), 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in ["backing unknown", "unknown as proposed", "all of it is unknown: refused", "< b < do_syscall_64"]
        {
            assert!(flat.contains(words), "{words}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
