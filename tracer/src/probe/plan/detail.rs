//! What is hooked only where a session asks for waits and phases.

use super::{Hook, Kind, Outcome, Plan, PlanError, Wish, make};
use crate::{
    figure::{Figure, FigureSet},
    kernel::Types,
    probe::{
        offsets,
        select::Selected,
        table::{self, Role},
    },
};

/// Whether a role is to be filled.
pub(super) fn is_wanted(wish: &Wish, role: Role) -> bool {
    match role {
        Role::Lookup => wish.lookups,
        Role::Fault | Role::Accounting => wish.phases,
        Role::Release => wish.tables,
        Role::Call => wish.calls,
        _ => true,
    }
}

/// The figures that nobody asks for with this wish.
pub(super) fn unasked(wish: &Wish) -> FigureSet {
    const LOOKUPS: &[Figure] = &[Figure::Lookups];
    const PHASES: &[Figure] =
        &[Figure::Phases, Figure::FaultTime, Figure::LookupTime, Figure::AccountingTime, Figure::SlowPins];
    let unasked = [
        (wish.lookups, LOOKUPS),
        (wish.phases, PHASES),
        (wish.locks, &[Figure::LockWaits]),
        (wish.calls, &[Figure::CallTime]),
        (wish.ring, &[Figure::Rings]),
        (wish.tables, &[Figure::Registered, Figure::RegisteredBefore]),
        (wish.controller().is_some(), &[Figure::WorkloadsV1]),
    ];
    let unasked = unasked.into_iter().filter(|(asked, _)| !asked).flat_map(|(_, figures)| figures);
    unasked.fold(FigureSet::NONE, |set, figure| set.with(*figure))
}

/// The candidate that runs once the look-up is done.
const AFTER_THE_LOOKUP: &str = "check_vma_flags";

/// Hooks the return of the look-up, where the function is the look-up itself.
pub(super) fn time_lookups(plan: &mut Plan, selected: &Selected, exit: Kind) {
    if selected.function == AFTER_THE_LOOKUP {
        return;
    }
    plan.settings.kernel.lookup_returns = 1;
    plan.hooks.push(Hook {
        role: Role::Lookup,
        program: format!("lookup_exit_{}", exit.program()),
        function: selected.function.to_owned(),
        kind: exit,
        figures: &[Figure::LookupTime],
    });
}

/// Why look-ups have no time though phases are asked for; `None` where they have, or where the plan says why itself.
pub fn no_lookup_times(plan: &Plan) -> Option<&'static str> {
    let choice = plan.choices.iter().find(|choice| choice.role == Role::Lookup)?;
    match &choice.chosen {
        Outcome::Hooked(function) if function == AFTER_THE_LOOKUP => Some(
            "this kernel's look-up is inlined, and check_vma_flags, by which look-ups are counted, is no part of it",
        ),
        Outcome::NotWanted => Some("look-ups are not hooked in this session"),
        _ => None,
    }
}

/// Why there is no function to time.
pub(super) const NO_ACCOUNTING: &str = "this kernel charges a buffer's pages inline (io_mapped_ubuf has no acct_pages)";

/// Why the accounting has no time though phases are asked for; `None` where the plan says why itself.
pub fn no_accounting_times(plan: &Plan) -> Option<&'static str> {
    let choice = plan.choices.iter().find(|choice| choice.role == Role::Accounting)?;
    (choice.chosen == Outcome::NotApplicable).then_some(NO_ACCOUNTING)
}

/// Both tracepoints of the lock or neither.
pub(super) fn locks(plan: &mut Plan, types: &Types, wish: &Wish) {
    let hooked = make::tracepoint(plan, types, wish, &table::LOCK_WANTED, wish.locks);
    if !hooked {
        return;
    }
    plan.choices.retain(|choice| choice.role != Role::Lock);
    if let Some(member) = offsets::missing(types, &offsets::LOCK) {
        let reason = format!("BTF has no {member}");
        plan.hooks.retain(|hook| hook.role != Role::Lock);
        plan.figures.lose(table::LOCK_RETURNED.figures, &reason);
        return plan.chose(Role::Lock, Outcome::Lost, reason);
    }
    let hooked = make::tracepoint(plan, types, wish, &table::LOCK_RETURNED, true);
    match lock_write(types) {
        Ok(position) if hooked => plan.settings.kernel.lock_write = position,
        Ok(_) => plan.hooks.retain(|hook| hook.role != Role::Lock),
        Err(error) => {
            plan.hooks.retain(|hook| hook.role != Role::Lock);
            if hooked {
                let reason = "its arguments differ";
                plan.choices.retain(|choice| choice.role != Role::Lock);
                plan.figures.lose(
                    table::LOCK_RETURNED.figures,
                    &format!("tracepoint {}: {reason}", table::LOCK_RETURNED.tracepoint),
                );
                plan.chose(Role::Lock, Outcome::Lost, reason);
                plan.errors.push(error);
            }
        }
    }
}

/// Position of `write` among the arguments of the lock's second tracepoint, with `success` right behind it: by name, or
/// where names are lacking the first of the only two `bool`s.
fn lock_write(types: &Types) -> Result<u8, PlanError> {
    let tracepoint = table::LOCK_RETURNED.tracepoint;
    let relied_on = "void (struct mm_struct *, ..., bool write, bool success)";
    let Some(prototype) = types.tracepoints.get(tracepoint) else {
        return Err(make::mismatch(tracepoint, "(absent)", relied_on));
    };
    let arguments = &prototype.parameters;
    let bools: Vec<_> = arguments.iter().zip(0_u8..).filter(|(argument, _)| argument.kind == "bool").collect();
    match bools[..] {
        [(write, first), (success, second)]
            if second == first + 1
                && ["write", ""].contains(&&write.name[..])
                && ["success", ""].contains(&&success.name[..]) =>
        {
            Ok(first)
        }
        _ => Err(make::mismatch(tracepoint, &prototype.to_string(), relied_on)),
    }
}
