//! The functions that an audit hooks, with the prototypes that are relied on: where start, pages and flags stand among
//! a function's arguments follows from its form, and stands in the eBPF side's programs.

use tracer_ebpf::audit::Gup;

use super::{
    offsets,
    table::{Candidate, Effect, Form, FunctionRole, Role, wanted as wanted_of_sessions},
};
use crate::{figure::Figure, kernel::Wanted};

/// More arguments than trampolines pass on before 6.6: such a function takes a kprobe.
pub const MOST_ARGUMENTS: usize = 6;

/// `start, nr_pages, gup_flags, pages`; to 6.4 with `vmas` behind them.
const PLAIN: &[Form] = &[
    form("long (unsigned long, unsigned long, unsigned int, struct page **)"),
    form("long (unsigned long, unsigned long, unsigned int, struct page **, struct vm_area_struct **)"),
];
/// The same, with a `locked` behind them.
const LOCKED: &[Form] = &[form("long (unsigned long, unsigned long, unsigned int, struct page **, int *)")];
/// `start, nr_pages, gup_flags, pages`.
const FAST: &[Form] = &[form("int (unsigned long, int, unsigned int, struct page **)")];
/// `start, nr_pages, pages, gup_flags`.
const UNLOCKED: &[Form] = &[form("long (unsigned long, unsigned long, struct page **, unsigned int)")];
/// `mm, start, nr_pages, gup_flags, pages, locked`; to 6.4 with `vmas` before the last.
const REMOTE: &[Form] = &[
    form("long (struct mm_struct *, unsigned long, unsigned long, unsigned int, struct page **, int *)"),
    form(
        "long (struct mm_struct *, unsigned long, unsigned long, unsigned int, struct page **, struct vm_area_struct **, int *)",
    ),
];

const fn form(prototype: &'static str) -> Form {
    Form { prototype, effect: Effect::Plain }
}

macro_rules! role {
    ($gup:ident, $function:literal, $forms:ident, $handler:literal) => {
        FunctionRole {
            role: Role::Audit(Gup::$gup),
            candidates: &[Candidate { function: $function, forms: $forms, note: "" }],
            handler: $handler,
            returns: true,
            only_with: None,
            figures: &[Figure::calls_of(Gup::$gup)],
        }
    };
}

/// A role for each function: all of them are hooked that this kernel has.
pub const ROLES: [FunctionRole; Gup::COUNT] = [
    role!(Pin, "pin_user_pages", PLAIN, "audit_pin"),
    role!(PinFast, "pin_user_pages_fast", FAST, "audit_pin_fast"),
    role!(PinRemote, "pin_user_pages_remote", REMOTE, "audit_pin_remote"),
    role!(PinUnlocked, "pin_user_pages_unlocked", UNLOCKED, "audit_pin_unlocked"),
    role!(PinLocked, "pin_user_pages_locked", LOCKED, "audit_pin_locked"),
    role!(PinFastOnly, "pin_user_pages_fast_only", FAST, "audit_pin_fast_only"),
    role!(Get, "get_user_pages", PLAIN, "audit_get"),
    role!(GetFast, "get_user_pages_fast", FAST, "audit_get_fast"),
    role!(GetRemote, "get_user_pages_remote", REMOTE, "audit_get_remote"),
    role!(GetUnlocked, "get_user_pages_unlocked", UNLOCKED, "audit_get_unlocked"),
    role!(GetLocked, "get_user_pages_locked", LOCKED, "audit_get_locked"),
    role!(GetFastOnly, "get_user_pages_fast_only", FAST, "audit_get_fast_only"),
];

/// Every function of [`ROLES`].
pub const FUNCTIONS: [&str; Gup::COUNT] = {
    let mut functions = [""; Gup::COUNT];
    let mut i = 0;
    while i < Gup::COUNT {
        functions[i] = Gup::ALL[i].name();
        i += 1;
    }
    functions
};

/// `FOLL_LONGTERM`: its name since 6.3, and its value before, when it was a macro, which BTF does not have.
pub const FOLL_LONGTERM: (&str, u32) = ("FOLL_LONGTERM", 0x1_0000);
/// `FOLL_FORCE`, likewise.
pub const FOLL_FORCE: (&str, u32) = ("FOLL_FORCE", 0x10);

/// What the facts have to be asked about for an audit.
pub fn wanted() -> Wanted<'static> {
    Wanted {
        functions: &FUNCTIONS,
        members: &offsets::MEMBERS,
        tracepoints: &[],
        structs: &[],
        enumerators: &[FOLL_LONGTERM.0, FOLL_FORCE.0],
        ..wanted_of_sessions()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Prototype;

    #[test]
    fn every_function_has_its_role_and_its_forms_print_as_written() {
        for (role, gup) in ROLES.iter().zip(Gup::ALL) {
            assert_eq!((role.role, role.candidates[0].function), (Role::Audit(gup), gup.name()));
            for form in role.candidates[0].forms {
                assert_eq!(Prototype::parse(form.prototype).to_string(), form.prototype);
            }
        }
    }
}
