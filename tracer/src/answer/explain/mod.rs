//! What each process's registrations cost and what to change, in plain words, where the figures support it.

mod rules;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Context, Threshold, evidence::share};
use crate::{
    aggregate::{Faults, Habits, Judged, Judgements, Process, Snapshot},
    decode::Pid,
    human,
};

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Explanation {
    /// Thread group.
    #[serde(flatten, serialize_with = "crate::decode::pid::one::serialize")]
    #[schemars(with = "crate::decode::pid::Named")]
    pub pid: Pid,
    /// Its `task_struct.comm`.
    pub comm: String,
    /// What its registrations cost; and, where there is nothing to advise, that.
    pub summary: String,
    /// What to change, in the order of the rules.
    pub advice: Vec<Advice>,
}

/// One thing to change.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Advice {
    /// Name of the rule.
    pub rule: &'static str,
    /// What was seen, with its figures.
    pub seen: String,
    /// What it costs.
    pub costs: String,
    /// What to change: the call.
    pub change: String,
    /// What to expect of that.
    pub expect: String,
    /// From which figures on it is advised.
    pub thresholds: &'static [Threshold],
}

/// What a rule says of a case.
struct Said {
    seen: String,
    costs: String,
    change: String,
    expect: String,
}

/// A rule: when it applies, and what it says then.
struct Rule {
    name: &'static str,
    thresholds: &'static [Threshold],
    applies: fn(&Case<'_>) -> Option<Said>,
}

/// What the rules look at.
struct Case<'a> {
    process: &'a Process,
    judgements: Option<&'a Judgements>,
    judged: Vec<&'a Judged>,
    context: &'a Context,
}

impl Case<'_> {
    /// A part of the process's time in registrations, in words.
    fn part_of_time(&self, ns: u64) -> String {
        let part = self.process.duration_ns.and_then(|duration| share(ns.min(duration), duration));
        part.map_or_else(|| "an unknown share".to_owned(), human::percent)
    }

    /// Whether a part of its time is at least `least`.
    fn takes(&self, ns: u64, least: f64) -> bool {
        self.process.duration_ns.and_then(|duration| share(ns, duration)).is_some_and(|part| part >= least)
    }
}

/// Every process that registered buffers; `None` where processes are not kept apart.
pub fn explanations(snapshot: &Snapshot, context: &Context) -> Option<Vec<Explanation>> {
    let processes = snapshot.processes.as_deref()?;
    Some(processes.iter().map(|process| explain(process, snapshot, context)).collect())
}

fn explain(process: &Process, snapshot: &Snapshot, context: &Context) -> Explanation {
    let others = snapshot.judgements.iter().flat_map(|judgements| &judgements.others);
    let judged = others.filter(|judged| judged.pid == Some(process.pid)).collect();
    let case = Case { process, judgements: snapshot.judgements.as_ref(), judged, context };
    let advice: Vec<_> = rules::RULES.iter().filter_map(|rule| apply(rule, &case)).collect();
    let summary = summary(process, snapshot.faults.as_ref(), advice.is_empty());
    Explanation { pid: process.pid, comm: process.comm.clone(), summary, advice }
}

fn apply(rule: &Rule, case: &Case<'_>) -> Option<Advice> {
    let Said { seen, costs, change, expect } = (rule.applies)(case)?;
    Some(Advice { rule: rule.name, seen, costs, change, expect, thresholds: rule.thresholds })
}

fn summary(process: &Process, faults: Option<&Faults>, nothing: bool) -> String {
    let short = [(process.failed, "failed"), (process.partial, "partial")];
    let short =
        short.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", human::count(*count)));
    let short = short.collect::<Vec<_>>().join(", ");
    let failed = if short.is_empty() { short } else { format!(" ({short})") };
    let calls = human::plural(process.registrations, "call");
    let took = process
        .duration_ns
        .map_or_else(|| "were not measured".to_owned(), |ns| format!("took {}", human::duration(ns)));
    let mut facts = vec![format!("{calls}{failed} {took}")];
    if let Some(part) = process.pin_ns.zip(process.duration_ns).and_then(|(pin_ns, duration)| share(pin_ns, duration)) {
        facts.push(format!("{} of it in the pins", human::percent(part)));
    }
    if let (Some(buffers), Some(bytes)) = (process.buffers, process.bytes) {
        facts.push(format!("for {}, {} registered", human::plural(buffers, "buffer"), human::bytes(bytes)));
    }
    let told = |habits: &Habits| faults_of(faults, habits);
    if let Some(own) = process.habits.as_ref().and_then(told) {
        let sum = human::plural(own.minor.saturating_add(own.major), "page fault");
        let lack = faults.and_then(|_| own.lack());
        facts.push(format!("{sum} in the pins{}", lack.map(|lack| format!(" ({lack})")).unwrap_or_default()));
    }
    let whole = process
        .habits
        .as_ref()
        .is_some_and(|habits| told(habits).is_some_and(|own| faults.is_none() || own.lack().is_none()));
    let facts = facts.join(", ");
    match (nothing, process.habits.is_some()) {
        (false, _) => format!("{facts}."),
        (true, true) if whole => format!("Nothing to advise: {facts}."),
        (true, true) => format!("Nothing to advise from what is known: {facts}."),
        (true, false) => format!("Nothing to advise from what is known: {facts}; its buffers were not looked at."),
    }
}

/// The faults of one process; `None` where its pins are not seen.
fn faults_of(all: Option<&Faults>, habits: &Habits) -> Option<Faults> {
    let untold_buffers = all.and_then(|all| all.untold_buffers).and(habits.untold_faults);
    Some(Faults { minor: habits.minor_faults?, major: habits.major_faults?, untold_buffers })
}

#[cfg(test)]
mod tests;
