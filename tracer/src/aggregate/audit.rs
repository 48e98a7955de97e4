//! From an audit's maps to who takes hold of which user pages. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::Serialize;
use tracer_ebpf::{
    audit::{AuditCounter, AuditKey, AuditTotals, Gup, RangeCoverage, flag, rule},
    backing::Kind,
};

use crate::{
    decode::{comm, filesystem, result_name},
    kernel::{self, Known, addresses::Place},
    sample::audit::{AuditSample, add},
};

/// Whether the question is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Wholly.
    #[default]
    Answered,
    /// Not wholly, or not for sure.
    Degraded,
    /// Not at all.
    Unanswerable,
}

/// A function of a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Step {
    /// Its name; the address where it is in no function.
    pub function: String,
    /// Bytes from its start.
    pub offset: u64,
    /// The module it is of.
    pub module: Option<String>,
}

/// One way to the function: from the caller to the system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Chain {
    /// Calls that came this way.
    pub calls: u64,
    /// The caller first.
    pub steps: Vec<Step>,
}

/// What lies behind calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Behind {
    /// How much is known of it: `whole`, `part`, `unmapped`, `busy`, `remote`, `unknown`.
    pub seen: &'static str,
    /// Of the range's first VMA, as in the report; `None` where nothing is known.
    #[schemars(with = "Option<tracer_ebpf::backing::Class>")]
    pub class: Option<&'static str>,
    /// Likewise.
    pub filesystem: Option<String>,
    /// Likewise.
    pub shared: Option<bool>,
    /// Likewise.
    pub writable: Option<bool>,
    /// The range has other backings behind the first.
    pub mixed: bool,
}

/// The functions to whose calls the proposal of April 2023 gave `FOLL_ALLOW_BROKEN_FILE_MAPPING`, in its second version, and
/// those that compilers put them into: what comes by way of one would not have been refused.
const EXEMPT: [&str; 15] = [
    "process_vm_rw_single_vec",
    "process_vm_rw_core",
    "process_vm_rw",
    "mem_rw",
    "ptrace_access_vm",
    "access_process_vm",
    "__update_ref_ctr",
    "update_ref_ctr",
    "xdp_umem_pin_pages",
    "xdp_umem_create",
    "xdp_umem_reg",
    "__qib_get_user_pages",
    "qib_get_user_pages",
    "usnic_uiom_get_pages",
    "siw_umem_get",
];

/// Calls that succeeded and that a rule refuses; `None` where the rule asks for what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refused {
    /// As first proposed in April 2023: no write to a file mapping but shmem and hugetlb, the callers that it exempted
    /// left out.
    pub as_proposed: Option<u64>,
    /// Since 6.5: no long-term pin for writing where the mapping needs dirty tracking.
    pub since_6_5: Option<u64>,
}

/// Calls by one caller, of one function, with the same flags, backing and command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Row {
    /// The first function outside of the family; `None` where the stack is unknown.
    pub caller: Option<String>,
    /// Its module; `None` for the kernel proper.
    pub module: Option<String>,
    /// The function called.
    pub function: &'static str,
    /// Of `FOLL_PIN`, `FOLL_LONGTERM`, `FOLL_WRITE`, `FOLL_FORCE`.
    pub flags: Vec<&'static str>,
    /// `task_struct.comm`.
    pub comm: String,
    /// What lies behind.
    pub backing: Behind,
    /// Calls that returned.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that failed, by errno.
    pub errors: BTreeMap<String, u64>,
    /// Pages asked for.
    pub pages_asked: u64,
    /// Pages got.
    pub pages: u64,
    /// Bytes of the pages got.
    pub bytes: u64,
    /// VMAs touched; `None` where they were not walked.
    pub vmas: Option<u64>,
    /// Nanoseconds in the function, without pinscope's work at its entry.
    pub time_ns: u64,
    /// What the rules make of it.
    pub refused: Refused,
    /// Calls by way of a function that the proposal exempted.
    pub exempt: u64,
    /// The ways to it, the commonest first.
    pub chains: Vec<Chain>,
}

/// A function of the family on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Audited {
    /// Its name.
    pub function: String,
    /// How it is hooked; `None` where it is not.
    pub mechanism: Option<&'static str>,
    /// Why it is not, or is so.
    pub why: String,
}

/// Entries held against returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditBooks {
    /// Calls to be listed whose entry was seen.
    pub entries: u64,
    /// Whose return was seen.
    pub returns: u64,
    /// Whose return was missed.
    pub missed_returns: u64,
    /// Returns of pins without an entry.
    pub missed_entries: u64,
    /// Under way at the end, or missed without a sign.
    pub in_flight: u64,
}

/// What was lost, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditLost {
    /// Calls: no memory for the task's frame.
    pub frames: u64,
    /// Callers: the map of stacks is full.
    pub stacks: u64,
    /// Calls: the map of calls is full.
    pub rows: u64,
    /// Runs of probes that the kernel skipped.
    pub skipped: u64,
}

/// What the audit itself cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Cost {
    /// Nanoseconds of walks and stacks at the entries of the calls listed.
    pub entry_ns: u64,
    /// Runs of our programs by the kernel's statistics; `None` where it keeps none.
    pub runs: Option<u64>,
    /// Nanoseconds of those runs.
    pub run_ns: Option<u64>,
    /// `run_ns` against the time of the calls listed.
    pub share: Option<f64>,
    /// Why the kernel keeps none.
    pub why_not: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Audit {
    /// Nanoseconds.
    pub elapsed_ns: u64,
    /// Whether the question is answered.
    pub answer: Answer,
    /// Why not wholly.
    pub degraded: Vec<String>,
    /// The most calls first.
    pub rows: Vec<Row>,
    /// `get_user_pages` and its kin for reading, not for long: counted, not listed.
    pub read_only: u64,
    /// What the rules make of all rows; `None` where they know of none of them.
    pub refused: Refused,
    /// Calls whose backing the rules would have to know and do not.
    pub unjudged: u64,
    /// The family on this kernel.
    pub functions: Vec<Audited>,
    /// Entries and returns.
    pub books: AuditBooks,
    /// Losses.
    pub lost: AuditLost,
    /// Cost.
    pub cost: Cost,
}

/// What a fold needs besides the maps.
#[derive(Clone, Debug)]
pub struct Context {
    /// Nanoseconds.
    pub elapsed_ns: u64,
    /// What the stacks' addresses are.
    pub places: Known<BTreeMap<u64, Place>>,
    /// The family on this kernel.
    pub functions: Vec<Audited>,
    /// What the probes cannot tell.
    pub degraded: Vec<String>,
    /// Why the kernel keeps no statistics of programs, where it does not.
    pub no_statistics: Option<String>,
}

/// The addresses that have to be looked up for a fold.
pub fn addresses(sample: &AuditSample) -> BTreeSet<u64> {
    sample.stacks.values().flat_map(|stack| stack.iter().enumerate().map(|(place, ip)| call(place, *ip))).collect()
}

/// Where a call stands: a return address may lie behind the end of the function that made it. The innermost one is no
/// return address.
fn call(place: usize, ip: u64) -> u64 {
    if place == 0 { ip } else { ip.wrapping_sub(1) }
}

/// Folds the maps.
pub fn fold(sample: &AuditSample, context: &Context) -> Audit {
    let rows = rows(sample, context.places.as_ref().ok());
    let counter = |counter: AuditCounter| sample.counters[counter as usize];
    let books = AuditBooks {
        entries: counter(AuditCounter::Entries),
        returns: counter(AuditCounter::Returns),
        missed_returns: counter(AuditCounter::MissedReturns),
        missed_entries: counter(AuditCounter::MissedEntries),
        in_flight: counter(AuditCounter::Entries)
            .saturating_sub(counter(AuditCounter::Returns) + counter(AuditCounter::MissedReturns)),
    };
    let lost = AuditLost {
        frames: counter(AuditCounter::LostFrames),
        stacks: counter(AuditCounter::LostStacks),
        rows: counter(AuditCounter::LostRows),
        skipped: sample.skipped.values().sum(),
    };
    let hooked = context.functions.iter().any(|function| function.mechanism.is_some());
    let none = (hooked && rows.is_empty()).then_some(0);
    let sum =
        |of: fn(&Refused) -> Option<u64>| rows.iter().filter_map(|row| of(&row.refused)).reduce(|a, b| a + b).or(none);
    let mut audit = Audit {
        elapsed_ns: context.elapsed_ns,
        read_only: counter(AuditCounter::ReadOnly),
        refused: Refused { as_proposed: sum(|r| r.as_proposed), since_6_5: sum(|r| r.since_6_5) },
        unjudged: rows.iter().filter(|row| row.refused.as_proposed.is_none()).map(|row| row.calls - row.failed).sum(),
        cost: cost(sample, context, &rows),
        functions: context.functions.clone(),
        rows,
        books,
        lost,
        ..Audit::default()
    };
    judge(&mut audit, context);
    audit
}

fn judge(audit: &mut Audit, context: &Context) {
    audit.degraded.clone_from(&context.degraded);
    if let Err(unknown) = &context.places {
        audit.degraded.push(format!("callers: {unknown}"));
    }
    let (books, lost) = (audit.books, audit.lost);
    for (count, what) in [
        (books.missed_returns, "calls whose return was missed: they are in no row"),
        (books.missed_entries, "pins whose entry was missed: they are in no row"),
        (lost.frames, "calls lost: no memory for the task's frame"),
        (lost.rows, "calls lost: more kinds of calls than the map holds"),
        (lost.stacks, "calls without a caller: more stacks than the map holds"),
        (lost.skipped, "runs of probes skipped by the kernel: on that CPU it was at work for a preempted task"),
    ] {
        if count > 0 {
            audit.degraded.push(format!("{count} {what}"));
        }
    }
    let hooked =
        |pins: bool| audit.functions.iter().any(|f| f.mechanism.is_some() && f.function.starts_with("pin_") == pins);
    audit.answer = match (hooked(true), hooked(false)) {
        (false, false) => Answer::Unanswerable,
        (true, true) if audit.degraded.is_empty() => Answer::Answered,
        _ => Answer::Degraded,
    };
}

fn cost(sample: &AuditSample, context: &Context, rows: &[Row]) -> Cost {
    let entry_ns = sample.calls.values().map(|totals| totals.own_ns).sum();
    if let Some(why) = &context.no_statistics {
        return Cost { entry_ns, why_not: Some(why.clone()), ..Cost::default() };
    }
    let time: u64 = rows.iter().map(|row| row.time_ns).sum();
    let share = (time > 0).then(|| sample.run_ns as f64 / time as f64);
    Cost { entry_ns, runs: Some(sample.runs), run_ns: Some(sample.run_ns), share, why_not: None }
}

/// What makes rows one: the caller, and all of the key but stack and errno.
type Group = (Option<(String, Option<String>)>, AuditKey);

/// A key of the map with its stack.
type Keyed<'a> = (&'a AuditKey, &'a AuditTotals, Vec<Step>);

fn rows(sample: &AuditSample, places: Option<&BTreeMap<u64, Place>>) -> Vec<Row> {
    let mut groups: BTreeMap<Group, Vec<Keyed<'_>>> = BTreeMap::new();
    for (key, totals) in &sample.calls {
        let stack = sample.stacks.get(&key.stack).map_or(&[][..], Vec::as_slice);
        let steps = places.map(|places| chain(stack, places)).unwrap_or_default();
        let caller = steps.first().map(|step| (step.function.clone(), step.module.clone()));
        let group = (caller, AuditKey { stack: 0, error: 0, ..*key });
        groups.entry(group).or_default().push((key, totals, steps));
    }
    let mut rows: Vec<Row> =
        groups.into_iter().filter_map(|((caller, key), calls)| row(caller, &key, calls, &sample.filesystems)).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.calls));
    rows
}

fn row(
    caller: Option<(String, Option<String>)>,
    key: &AuditKey,
    calls: Vec<Keyed<'_>>,
    filesystems: &HashMap<u64, String>,
) -> Option<Row> {
    let function = Gup::from_number(key.function)?;
    let sum = calls.iter().fold(AuditTotals::default(), |sum, (_, totals, _)| add(sum, **totals));
    let sight = RangeCoverage::from_number(key.sight)?;
    let mut errors = BTreeMap::new();
    let mut chains: BTreeMap<Vec<Step>, u64> = BTreeMap::new();
    let mut refused = Refused { as_proposed: Some(0), since_6_5: Some(0) };
    let mut exempt = 0;
    for (key, totals, steps) in calls {
        let by = exemption(&steps);
        exempt += if by == Some(true) { totals.calls } else { 0 };
        let accepted = if key.error == 0 { totals.calls } else { 0 };
        refused = both(refused, self::refused(key, sight, accepted, by));
        if key.error != 0 {
            *errors.entry(result_name(-i64::from(key.error))).or_default() += totals.calls;
        }
        *chains.entry(steps).or_default() += totals.calls;
    }
    let failed = errors.values().sum();
    let mut chains: Vec<_> = chains.into_iter().map(|(steps, calls)| Chain { calls, steps }).collect();
    chains.retain(|chain| !chain.steps.is_empty());
    chains.sort_by_key(|chain| std::cmp::Reverse(chain.calls));
    let (caller, module) = caller.unzip();
    Some(Row {
        caller,
        module: module.flatten(),
        function: function.name(),
        flags: flags(function, key.flags),
        comm: comm(&key.comm),
        backing: behind(key, sight, filesystems),
        calls: sum.calls,
        failed,
        errors,
        pages_asked: sum.asked,
        pages: sum.got,
        bytes: sum.got.saturating_mul(kernel::page_size()),
        vmas: matches!(sight, RangeCoverage::Whole | RangeCoverage::Part | RangeCoverage::Hole).then_some(sum.vmas),
        time_ns: sum.time_ns,
        refused,
        exempt,
        chains,
    })
}

fn flags(function: Gup, flags: u8) -> Vec<&'static str> {
    let all = [
        (function.pins(), "FOLL_PIN"),
        (flags & flag::LONGTERM != 0, "FOLL_LONGTERM"),
        (flags & flag::WRITE != 0, "FOLL_WRITE"),
        (flags & flag::FORCE != 0, "FOLL_FORCE"),
    ];
    all.into_iter().filter_map(|(set, name)| set.then_some(name)).collect()
}

fn behind(key: &AuditKey, sight: RangeCoverage, filesystems: &HashMap<u64, String>) -> Behind {
    let kind = Some(Kind(key.kind)).filter(|_| matches!(sight, RangeCoverage::Whole | RangeCoverage::Part));
    Behind {
        seen: sight.name(),
        class: kind.and_then(Kind::class).map(tracer_ebpf::backing::Class::name),
        filesystem: kind.and_then(|kind| filesystem(kind, filesystems.get(&key.filesystem).cloned())),
        shared: kind.map(Kind::is_shared),
        writable: kind.map(Kind::is_writable),
        mixed: key.flags & flag::MIXED != 0,
    }
}

/// Whether the calls of a stack are exempt from the proposal; `None` where the stack is unknown.
fn exemption(steps: &[Step]) -> Option<bool> {
    let is_exempt = |step: &Step| step.function.split('.').next().is_some_and(|name| EXEMPT.contains(&name));
    (!steps.is_empty()).then(|| steps.iter().any(is_exempt))
}

fn both(a: Refused, b: Refused) -> Refused {
    let plus = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    Refused { as_proposed: plus(a.as_proposed, b.as_proposed), since_6_5: plus(a.since_6_5, b.since_6_5) }
}

/// What the rules make of `calls` that succeeded. A rule that the flags do not fall under refuses none, whatever lies
/// behind.
fn refused(key: &AuditKey, sight: RangeCoverage, calls: u64, exempt: Option<bool>) -> Refused {
    let writes = key.flags & flag::WRITE != 0;
    let pins = Gup::from_number(key.function).is_some_and(Gup::pins);
    let for_long = writes && pins && key.flags & flag::LONGTERM != 0;
    let judged = |falls_under: bool, rule: u8| match sight {
        _ if !falls_under || calls == 0 => Some(0),
        // One VMA is enough to refuse; that the others are none needs all of them.
        _ if key.rules & rule != 0 => Some(calls),
        RangeCoverage::Whole => Some(0),
        _ => None,
    };
    let proposed = match (judged(writes, rule::FILE), exempt) {
        (_, Some(true)) => Some(0),
        // Whether the caller is exempt matters only to what would be refused.
        (Some(1..), None) => None,
        (told, _) => told,
    };
    Refused { as_proposed: proposed, since_6_5: judged(for_long, rule::TRACKED) }
}

/// From the first function outside of the family to the system call.
fn chain(stack: &[u64], places: &BTreeMap<u64, Place>) -> Vec<Step> {
    let steps: Vec<_> = stack.iter().enumerate().map(|(place, ip)| step(call(place, *ip), places)).collect();
    let is_family = |step: &Step| Gup::ALL.iter().any(|gup| step.function.split('.').next() == Some(gup.name()));
    // Above it stand our program and its trampoline.
    let first = steps.iter().take(12).rposition(is_family).map_or(0, |place| place + 1);
    let ours = |step: &&Step| step.module.as_deref() == Some("bpf") || step.function.starts_with("bpf_");
    steps[first..].iter().skip_while(ours).cloned().collect()
}

fn step(address: u64, places: &BTreeMap<u64, Place>) -> Step {
    match places.get(&address) {
        Some(place) => Step { function: place.function.clone(), offset: place.offset, module: place.module.clone() },
        None => Step { function: format!("{address:#x}"), offset: 0, module: None },
    }
}

#[cfg(test)]
mod tests;
