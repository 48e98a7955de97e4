//! The plan of an audit: every function of the family that this kernel has.

use super::{
    Choice, Hook, Kind, Outcome, Plan, PlanError, Wish,
    make::{Walk, empty, settings, walk},
};
use crate::{
    figure::Figure,
    kernel::{Facts, Types},
    probe::{
        audit::{FOLL_FORCE, FOLL_LONGTERM, MOST_ARGUMENTS, ROLES},
        mode::Mechanism,
        select,
        table::FunctionRole,
    },
};

/// Makes the plan; of the wish `attach`, `avoid` and whose calls they are matter.
pub fn audit_plan(facts: &Facts, wish: &Wish) -> Plan {
    let mut plan = empty(facts, wish, false);
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
    settings(plan, facts, types, wish);
    plan.settings.audit.foll_longterm = flag(plan, facts, types, FOLL_LONGTERM, Figure::FollLongterm);
    plan.settings.audit.foll_force = flag(plan, facts, types, FOLL_FORCE, Figure::FollForce);
    let walk = walk(types);
    for role in &ROLES {
        function(plan, facts, types, wish, role, &walk);
    }
    if let Walk::None(reason) = walk {
        plan.figures.lose(&[Figure::Vmas, Figure::Backings], &reason);
    }
    if plan.mechanism == Some(Mechanism::Kprobe) && facts.release.is_before(WHOLE_STACKS) {
        plan.figures.narrow(
            &[Figure::CallerStacks],
            "before 5.16 the kernel cannot follow a stack through a kretprobe: it may end early, or in a function that was not called",
        );
    }
}

/// Kernels whose unwinder knows the return addresses that kretprobes put aside.
const WHOLE_STACKS: (u32, u32) = (5, 16);

/// Kernels whose flags are an enum, which BTF has.
const ENUM: (u32, u32) = (6, 3);

/// The value of a flag, by the enum or, on kernels without it, as the macro had it.
fn flag(plan: &mut Plan, facts: &Facts, types: &Types, (name, before): (&'static str, u32), figure: Figure) -> u32 {
    if !types.enumerators.contains_key(name) && facts.release.is_from(ENUM) {
        plan.figures.narrow(&[figure], "BTF does not have its value, and it moved in 6.3");
    }
    types.enumerators.get(name).copied().unwrap_or(before)
}

fn function(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish, role: &FunctionRole, walk: &Walk) {
    let Some(name) = role.candidates.first().map(|candidate| candidate.function) else { return };
    if !facts.mentions(name) && !types.functions.contains_key(name) {
        return plan.chose(role.role, Outcome::NotApplicable, "this kernel has no such function");
    }
    let selection = select::select(facts, types, role, &wish.avoid);
    let reasons: Vec<_> = selection.passed_over.iter().map(|(f, why)| format!("{f}: {why}")).collect();
    plan.errors.extend(selection.mismatches);
    if selection.selected.is_none() {
        plan.figures.lose(role.figures, &reasons.join("; "));
        let why = reasons.join("; ");
        let passed_over = selection.passed_over;
        return plan.choices.push(Choice { role: role.role, chosen: Outcome::Lost, why, passed_over });
    }
    let arguments =
        types.functions.get(name).and_then(|forms| forms.first()).map_or(0, |prototype| prototype.parameters.len());
    let Some((mechanism, why)) = mechanism(plan, arguments) else { return };
    plan.chose(role.role, Outcome::Hooked(name.to_owned()), why);
    let (enter, exit) = mechanism.kinds();
    let variant = if *walk == Walk::FindVma { "" } else { "_plain" };
    let mut push = |program: String, kind| {
        plan.hooks.push(Hook { role: role.role, program, function: name.to_owned(), kind, figures: role.figures });
    };
    push(format!("{}_enter{variant}_{}", role.handler, enter.program()), enter);
    push(format!("{}_exit_{}", role.handler, exit.program()), exit);
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
        Kind::Multi | Kind::MultiReturn => Mechanism::Multi.name(),
        Kind::Kprobe | Kind::Kretprobe => Mechanism::Kprobe.name(),
        Kind::Fentry | Kind::Fexit => Mechanism::Fentry.name(),
        Kind::RawTracepoint | Kind::Tracepoint | Kind::Iterator | Kind::Call => kind.name(),
    }
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::audit::Gup;

    use super::*;
    use crate::{
        figure::Availability,
        kernel::{Prototype, fixture, symbols::Symbol},
        probe::table::Role,
    };

    /// A kernel that has `pin_user_pages_remote` in this form, and no other function of the family.
    fn plan_with(mut facts: Facts, prototype: &str) -> Plan {
        let name = Gup::PinRemote.name();
        let types = facts.types.as_mut().expect("types");
        types.functions = [(name.to_owned(), vec![Prototype::parse(prototype)])].into();
        let symbols = facts.symbols.as_mut().expect("symbols");
        symbols.functions.remove("pin_user_pages");
        symbols.functions.insert(name.to_owned(), Symbol { count: 1, renamed: Vec::new() });
        facts.traceable = crate::kernel::Traceable::List([name.to_owned()].into());
        audit_plan(&facts, &Wish::default())
    }

    fn programs(plan: &Plan) -> Vec<&str> {
        plan.hooks.iter().map(|hook| hook.program.as_str()).collect()
    }

    const SIX: &str = "long (struct mm_struct *, unsigned long, unsigned long, unsigned int, struct page **, int *)";
    const SEVEN: &str = "long (struct mm_struct *, unsigned long, unsigned long, unsigned int, struct page **, struct vm_area_struct **, int *)";

    #[test]
    fn a_function_of_seven_arguments_takes_kprobes() {
        let six = plan_with(fixture::debian_6_12(), SIX);
        assert_eq!(programs(&six), ["audit_pin_remote_enter_fentry", "audit_pin_remote_exit_fexit"]);
        let seven = plan_with(fixture::debian_6_1(), SEVEN);
        assert_eq!(programs(&seven), ["audit_pin_remote_enter_kprobe", "audit_pin_remote_exit_kretprobe"]);
        let old = plan_with(fixture::debian_5_10(), SEVEN);
        assert_eq!(programs(&old), ["audit_pin_remote_enter_plain_kprobe", "audit_pin_remote_exit_kretprobe"]);
        assert!(old.figures.missing(Figure::Backings).is_some());
    }

    #[test]
    fn an_unknown_prototype_is_refused_and_an_absent_function_is_no_loss() {
        let plan = plan_with(fixture::debian_6_12(), "int (struct mm_struct *, unsigned long)");
        assert!(plan.hooks.is_empty());
        assert!(plan.figures.missing(Figure::CallsOfPinRemote).is_some());
        let of = |gup| plan.choices.iter().find(|choice| choice.role == Role::Audit(gup)).map(|choice| &choice.chosen);
        assert_eq!(of(Gup::PinRemote), Some(&Outcome::Lost));
        assert_eq!(of(Gup::GetFast), Some(&Outcome::NotApplicable));
    }

    #[test]
    fn the_flags_come_from_the_kernel_where_they_are_an_enum() {
        let mut facts = fixture::debian_6_12();
        let guessed = plan_with(facts.clone(), SIX);
        assert!(matches!(guessed.figures.of(Figure::FollLongterm), Availability::Partial(_)));
        facts.types.as_mut().expect("types").enumerators =
            [("FOLL_LONGTERM".to_owned(), 256), ("FOLL_FORCE".to_owned(), 8)].into();
        let plan = plan_with(facts, SIX);
        assert_eq!((plan.settings.audit.foll_longterm, plan.settings.audit.foll_force), (256, 8));
        assert!(plan.figures.is_whole(), "{:?}", plan.figures);
        let old = plan_with(fixture::debian_6_1(), SEVEN);
        assert_eq!((old.settings.audit.foll_longterm, old.settings.audit.foll_force), (0x1_0000, 0x10));
    }
}
