//! The plan of an audit: every function of the family that this kernel has.

use super::{
    Choice, Hook, Kind, Outcome, Plan, PlanError, Wish,
    make::{Walk, empty, settings, tracepoint, walk},
};
use crate::{
    kernel::{Facts, Types},
    probe::{
        audit::{FOLL_FORCE, FOLL_LONGTERM, MOST_ARGUMENTS, ROLES},
        mode::Mechanism,
        select,
        table::{BACKINGS, DESCENT, FunctionRole, VMAS},
    },
};

/// Makes the plan; of the wish `attach`, `descent` and `avoid` matter.
pub fn audit_plan(facts: &Facts, wish: &Wish) -> Plan {
    let mut plan = empty(facts, wish);
    match &facts.types {
        Ok(types) => fill(&mut plan, facts, types, wish),
        Err(unknown) => plan.errors.insert(0, PlanError::NoTypes(unknown.to_string())),
    }
    if plan.errors.iter().any(PlanError::is_fatal) {
        plan.hooks.clear();
    }
    plan
}

fn fill(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    settings(plan, types);
    let value = |(name, before): (&str, u32)| types.enumerators.get(name).copied().unwrap_or(before);
    plan.settings.audit.foll_longterm = value(FOLL_LONGTERM);
    plan.settings.audit.foll_force = value(FOLL_FORCE);
    let walk = walk(types);
    for role in &ROLES {
        function(plan, facts, types, wish, role, &walk);
    }
    tracepoint(plan, types, wish, &DESCENT, wish.descent);
    if let Walk::None(reason) = walk {
        plan.lose(&[VMAS, BACKINGS], &reason);
    }
}

fn function(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish, role: &FunctionRole, walk: &Walk) {
    let Some(name) = role.candidates.first().map(|candidate| candidate.function) else { return };
    let symbol = facts.symbols.as_ref().is_ok_and(|symbols| symbols.functions.contains_key(name));
    if !symbol && !types.functions.contains_key(name) {
        return plan.chose(role.role, Outcome::NotApplicable, "this kernel has no such function");
    }
    let selection = select::select(facts, types, role, &wish.avoid);
    let reasons: Vec<_> = selection.passed_over.iter().map(|(f, why)| format!("{f}: {why}")).collect();
    plan.errors.extend(selection.mismatches);
    if selection.selected.is_none() {
        plan.lose(role.figures, &reasons.join("; "));
        let why = reasons.join("; ");
        let passed_over = selection.passed_over;
        return plan.choices.push(Choice { role: role.role, chosen: Outcome::Lost, why, passed_over });
    }
    let arguments =
        types.functions.get(name).and_then(|forms| forms.first()).map_or(0, |prototype| prototype.parameters.len());
    let Some((mechanism, why)) = mechanism(plan, arguments) else { return };
    plan.chose(role.role, Outcome::Hooked(name.to_owned()), why);
    let (enter, exit) = match mechanism {
        Mechanism::Kprobe => (Kind::Kprobe, Kind::Kretprobe),
        Mechanism::Fentry => (Kind::Fentry, Kind::Fexit),
    };
    let variant = if *walk == Walk::FindVma { "" } else { "_plain" };
    let mut push = |program: String, kind| {
        plan.hooks.push(Hook { role: role.role, program, function: name.to_owned(), kind, figures: role.figures });
    };
    push(format!("{}_enter{variant}_{}", role.handler, enter.name()), enter);
    push(format!("{}_exit_{}", role.handler, exit.name()), exit);
}

/// How a function of so many arguments is hooked; `None` where nothing is.
fn mechanism(plan: &Plan, arguments: usize) -> Option<(Mechanism, &'static str)> {
    match plan.mechanism? {
        Mechanism::Fentry if arguments > MOST_ARGUMENTS => {
            Some((Mechanism::Kprobe, "by kprobe: it has more arguments than a trampoline passes on before 6.6"))
        }
        mechanism => Some((mechanism, "its prototype is one that is known")),
    }
}

/// How a hook is attached, as a word.
pub fn mechanism_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Kprobe | Kind::Kretprobe => Mechanism::Kprobe.name(),
        Kind::Fentry | Kind::Fexit => Mechanism::Fentry.name(),
        Kind::RawTracepoint | Kind::Tracepoint => kind.name(),
    }
}
