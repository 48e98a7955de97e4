//! Q4: what backs the buffers, and whom each kernel's rule would hit.

use tracer_ebpf::policy::Policy;

use super::{
    Answer, Context, Draft, Question, Table, Value,
    evidence::{Column, errno_name, named, share, sum},
    reasons,
    rules::{Agreement, Change, Refused, backing, changes, everywhere, judged, refused, running, words},
};
use crate::{
    aggregate::{Backing, Judgements, Snapshot},
    figure::{Figure, FigureSet, Figures},
    human,
};

pub(super) const QUESTION: Question = Question {
    id: "Q4",
    text: "Which file types back the buffers, and whom would a ban on file mappings hit?",
    roles: &["register", "update", "buffer", "pin"],
    figures: FigureSet::of(&[
        Figure::Results,
        Figure::EveryCall,
        Figure::PerRegistration,
        Figure::UpdateBuffers,
        Figure::Buffers,
        Figure::Bytes,
        Figure::Vmas,
        Figure::Backings,
        Figure::Overlays,
        Figure::Refusals,
        Figure::KernelRule,
        Figure::EveryPart,
    ]),
};

/// Programs named in sentences, for each change.
const NAMED: usize = 3;

const POLICIES: &[Column] = &[
    Column { key: "policy", head: "the rule" },
    Column { key: "buffers", head: "refuses" },
    Column { key: "share", head: "share" },
    Column { key: "bytes", head: "bytes" },
    Column { key: "processes", head: "processes" },
    Column { key: "errnos", head: "with" },
];

/// By importance: where there is no room the last are left out.
const REFUSALS: &[Column] = &[
    Column { key: "process", head: "process" },
    Column { key: "backing", head: "backing" },
    Column { key: "buffers", head: "buffers" },
    Column { key: "here", head: "here" },
    Column { key: "since_7_2", head: "7.2 on" },
    Column { key: "since_6_5", head: "6.5-7.1" },
    Column { key: "before_6_5", head: "before 6.5" },
    Column { key: "as_proposed", head: "proposed" },
    Column { key: "single_source", head: "6.3, 6.4" },
];

const AGREEMENT: &[Column] =
    &[Column { key: "answer", head: "the kernel's answers" }, Column { key: "buffers", head: "buffers" }];

const BACKINGS: &[Column] = &[
    Column { key: "class", head: "backing" },
    Column { key: "filesystem", head: "filesystem" },
    Column { key: "shared", head: "shared" },
    Column { key: "accepted", head: "accepted" },
    Column { key: "buffers", head: "buffers" },
    Column { key: "bytes", head: "bytes" },
];

pub(super) fn answer(snapshot: &Snapshot, context: &Context) -> Answer {
    if let Some(why) = reasons::nothing_seen(snapshot) {
        return QUESTION.unanswerable(context, why);
    }
    let Some(judgements) = &snapshot.judgements else {
        return QUESTION.unanswerable(context, reasons::absence(snapshot, &QUESTION, "the backings of buffers"));
    };
    let agreement = Agreement::of(judgements);
    let mut why = reasons::of(snapshot, &QUESTION);
    why.extend(reasons::lost(snapshot, &["backings", "short_records"]));
    why.extend(doubts(judgements, agreement.as_ref(), &snapshot.figures));
    QUESTION.told(
        context,
        Draft {
            n: judged(judgements),
            of: "buffers judged",
            verdict: verdict(judgements, agreement.as_ref()),
            why,
            tables: tables(snapshot, judgements, agreement.as_ref()),
            notes: notes(judgements, agreement.as_ref()),
            ..Draft::default()
        },
    )
}

fn doubts(judgements: &Judgements, agreement: Option<&Agreement>, told: &Figures) -> Vec<String> {
    let mut doubts = Vec::new();
    if judgements.unjudged > 0 {
        let buffers = human::plural(judgements.unjudged, "buffer");
        doubts.push(format!("{buffers} could not be judged: not walked to the end, or the map was full"));
    }
    match agreement {
        Some(agreement) if agreement.disagreed() > 0 => doubts.push(format!(
            "{} of the kernel's answers are not what its rule says ({} accepted though refused by it, {} the other way)",
            human::count(agreement.disagreed()),
            human::count(agreement.accepted),
            human::count(agreement.refused),
        )),
        Some(_) => {}
        // Where the plan knows why, that is said already.
        None if told.missing(Figure::KernelRule).is_some() => {}
        None => {
            let why = &judgements.kernel_policy_why;
            doubts.push(format!("it cannot be told which rule this kernel is under: {why}"));
        }
    }
    doubts
}

fn verdict(judgements: &Judgements, agreement: Option<&Agreement>) -> String {
    let n = judged(judgements);
    let refused = Policy::ALL.map(|policy| refused(judgements, policy).buffers);
    let changes = changes(judgements, Policy::Since72);
    let hit = accepted_here(&changes);
    let upgrade = match hit.first() {
        None => String::new(),
        Some(first) => {
            let others = hit.len() as u64 - 1;
            let others = if others == 0 { String::new() } else { format!(" and {} more", human::count(others)) };
            let buffers = human::plural(sum(&hit, |change| change.buffers), "buffer");
            let who = named(first.pid, &first.comm);
            format!("{buffers} of {who}{others} are accepted here and would be refused by 6.5 and later; ")
        }
    };
    let all = human::plural(n, "buffer");
    let everywhere = match everywhere(judgements) {
        0 => String::new(),
        hit => format!("; every kernel refuses {} (read-only, with a hole, or on DAX)", human::count(hit)),
    };
    let unserved = match agreement.map_or(0, |agreement| agreement.unserved) {
        0 => String::new(),
        hit => format!(
            "; {} failed with EFAULT, which no rule explains: memory that could not be brought in",
            human::count(hit)
        ),
    };
    if refused == [0; Policy::COUNT] {
        return format!("None of {all} would be refused under any of the five rules{everywhere}{unserved}.");
    }
    let parts = Policy::ALL.into_iter().zip(refused).map(|(policy, buffers)| {
        let count = if buffers == 0 { "none".to_owned() } else { human::count(buffers) };
        match policy {
            Policy::Before65 => format!("{count} would be refused by the rule before 6.5"),
            Policy::AsProposed => format!("{count} by the one proposed"),
            Policy::SingleSource | Policy::Since65 | Policy::Since72 => format!("{count} by that of {}", words(policy)),
        }
    });
    let parts: Vec<_> = parts.collect();
    let begin = if upgrade.is_empty() { "Of" } else { "of" };
    format!("{upgrade}{begin} {all} {}{everywhere}{unserved}.", human::list(&parts))
}

fn accepted_here(changes: &[Change]) -> Vec<&Change> {
    changes.iter().filter(|change| change.here == 0).collect()
}

fn notes(judgements: &Judgements, agreement: Option<&Agreement>) -> Vec<String> {
    let mut notes = sentences(judgements);
    if let (Some(agreement), Some(policy)) = (agreement, judgements.kernel_policy) {
        notes.push(format!(
            "This kernel is under the rule {} ({}); {} of {} of its answers are what that rule says.",
            policy.name(),
            human::plain(&judgements.kernel_policy_why),
            human::count(agreement.agreed),
            human::count(agreement.agreed.saturating_add(agreement.disagreed())),
        ));
    }
    if let Some(unserved) = agreement.map(|agreement| agreement.unserved).filter(|buffers| *buffers > 0) {
        let buffers = human::plural(unserved, "buffer");
        notes.push(format!(
            "{buffers} got EFAULT though this kernel's rule has nothing against them: memory beyond the end of its file, a full tmpfs or hugetlb pool, a poisoned or guarded page, userfaultfd, a cgroup's limit, or a task killed in its pin. They judge no rule."
        ));
    }
    if let Some(undecided) = agreement.map(|agreement| agreement.undecided).filter(|buffers| *buffers > 0) {
        let buffers = human::plural(undecided, "buffer");
        notes.push(format!(
            "{buffers} on private mappings under DAX judge no rule: whether they are taken depends on pages that are copied already."
        ));
    }
    if judgements.rolled_back > 0 {
        let buffers = human::plural(judgements.rolled_back, "buffer");
        notes.push(format!(
            "{buffers} more were pinned and let go again, since another buffer of their call was refused."
        ));
    }
    notes
}

/// Who would get another answer from another kernel: first what a newer one refuses, then what it lifts, then what an older
/// one refuses.
fn sentences(judgements: &Judgements) -> Vec<String> {
    let of = |policy, accepted| {
        let changes = changes(judgements, policy);
        changes.into_iter().filter(|change| (change.here == 0) == accepted).collect::<Vec<_>>()
    };
    let without = |changes: Vec<Change>, known: &[Change]| {
        changes.into_iter().filter(|change| !known.contains(change)).collect::<Vec<_>>()
    };
    let lifted = of(Policy::Since65, false);
    let lifted_later = without(of(Policy::Since72, false), &lifted);
    // Before the last rule there are two others, of which the older one refuses more.
    let large = if running(judgements) == Some(Policy::Since72) { of(Policy::Since65, true) } else { Vec::new() };
    let older = without(of(Policy::Before65, true), &large);
    let told = |changes: &[Change], kernel: &str| {
        changes.iter().take(NAMED).map(|change| sentence(change, kernel)).collect::<Vec<_>>()
    };
    [
        told(&of(Policy::Since72, true), "after an upgrade to 6.5 or later"),
        told(&lifted, "after an upgrade to 6.5 or later"),
        told(&lifted_later, "after an upgrade to 7.2 or later"),
        told(&large, "on a kernel before 7.2"),
        told(&older, "on a kernel before 6.5"),
    ]
    .concat()
}

fn sentence(change: &Change, kernel: &str) -> String {
    let who = named(change.pid, &change.comm);
    let buffers = human::plural(change.buffers, "buffer");
    let backing = human::plain(&change.backing);
    if change.here == 0 {
        let errno = errno_name(change.there);
        return format!(
            "{who} registers {buffers} of {backing} on this kernel and would be refused ({errno}) {kernel}."
        );
    }
    let errno = errno_name(change.here);
    format!("{who} is refused {buffers} of {backing} ({errno}) on this kernel and would be accepted {kernel}.")
}

fn tables(snapshot: &Snapshot, judgements: &Judgements, agreement: Option<&Agreement>) -> Vec<Table> {
    let n = judged(judgements);
    vec![
        Table::new("policies", "Under each kernel's rule", POLICIES)
            .rows(Policy::ALL.map(|policy| policy_row(policy, &refused(judgements, policy), n))),
        Table::new("refusals", "Buffers that some rule refuses, and with what", REFUSALS)
            .rows(refusals(judgements))
            .detail(),
        Table::new("agreement", "This kernel's answers against its rule", AGREEMENT)
            .rows(agreement.map(agreement_rows).unwrap_or_default())
            .detail(),
        Table::new("backings", "What lies behind the buffers", BACKINGS)
            .rows(snapshot.backings.iter().flatten().map(backing_row))
            .detail(),
    ]
}

fn policy_row(policy: Policy, refused: &Refused, n: u64) -> Vec<Value> {
    let errnos: Vec<_> = refused
        .errnos
        .iter()
        .map(|(errno, count)| format!("{} {}", errno_name(*errno), human::count(*count)))
        .collect();
    vec![
        Value::Name(policy.name(), words(policy)),
        Value::Count(refused.buffers),
        Value::share(share(refused.buffers, n)),
        Value::Bytes(refused.bytes),
        Value::Count(refused.processes),
        if errnos.is_empty() { Value::Unknown } else { Value::Text(errnos.join(", ")) },
    ]
}

fn refusals(judgements: &Judgements) -> Vec<Vec<Value>> {
    let mut hit: Vec<_> = judgements
        .others
        .iter()
        .filter(|judged| judged.errno != 0 || Policy::ALL.iter().any(|policy| policy.is_sure_to_refuse(judged.traits)))
        .collect();
    hit.sort_by_key(|judged| std::cmp::Reverse(judged.buffers));
    let row = |judged: &&crate::aggregate::Judged| {
        let process = Value::Process { pid: judged.pid, comm: judged.comm.clone() };
        let mut row =
            vec![process, Value::Text(backing(judged)), Value::Count(judged.buffers), Value::Errno(judged.errno)];
        let rules = [Policy::Since72, Policy::Since65, Policy::Before65, Policy::AsProposed, Policy::SingleSource];
        row.extend(rules.map(|policy| {
            if policy.decides(judged.traits) { Value::Errno(policy.refuses(judged.traits)) } else { Value::Unknown }
        }));
        row
    };
    hit.iter().map(row).collect()
}

fn agreement_rows(agreement: &Agreement) -> Vec<Vec<Value>> {
    [
        ("agreed", "as its rule says", agreement.agreed),
        ("other_errno", "of those, with another errno", agreement.other_errno),
        ("accepted_though_refused", "accepted, refused by the rule", agreement.accepted),
        ("refused_though_accepted", "refused, accepted by the rule", agreement.refused),
        ("unserved", "EFAULT by no rule (unserved)", agreement.unserved),
        ("undecided", "undecided (private, on DAX)", agreement.undecided),
    ]
    .map(|(name, shown, count)| vec![Value::Name(name, shown), Value::Count(count)])
    .into()
}

fn backing_row(backing: &Backing) -> Vec<Value> {
    vec![
        Value::Text(backing.class.name().to_owned()),
        backing.filesystem.clone().map_or(Value::Unknown, Value::Text),
        Value::Flag(backing.shared),
        Value::Flag(backing.ok),
        Value::Count(backing.buffers),
        Value::Bytes(backing.bytes),
    ]
}
