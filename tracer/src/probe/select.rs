//! The first candidate of a role that this kernel has, and why the ones before it were passed over.

use tracer_ebpf::operation::Operation;

use super::{
    offsets,
    plan::PlanError,
    table::{Candidate, Effect, Form, FunctionRole, INNER_ACCOUNTING, OUTER_ACCOUNTING, Role, UNREGISTER},
};
use crate::kernel::{Facts, Prototype, Traceable, Types};

/// The function that fills a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selected {
    /// The role.
    pub(super) role: Role,
    /// The function.
    pub(super) function: &'static str,
    /// What its prototype means.
    pub(super) effect: Effect,
    /// What to know about it.
    pub(super) note: &'static str,
}

/// How the choice for a role went.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// What fills it.
    pub(super) selected: Option<Selected>,
    /// Function and reason of each candidate that does not.
    pub(super) passed_over: Vec<(String, String)>,
    /// Prototypes that no probe knows.
    pub(super) mismatches: Vec<PlanError>,
    /// Nothing fills it since the kernel has nothing of the kind.
    pub(super) not_applicable: bool,
}

/// Why a candidate is not taken.
enum Refusal {
    Reason(String),
    Mismatch(PlanError),
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Reason(reason.to_owned())
    }
}

/// Looks at the candidates in their order of preference.
pub(super) fn select(facts: &Facts, types: &Types, role: &FunctionRole, avoid: &[String]) -> Selection {
    let mut selection = Selection { not_applicable: does_not_apply(facts, types, role), ..Selection::default() };
    for candidate in role.candidates {
        let function = candidate.function;
        match examine(facts, types, role.role, candidate, avoid) {
            Ok(effect) => {
                selection.selected = Some(Selected { role: role.role, function, effect, note: candidate.note });
                break;
            }
            Err(Refusal::Reason(reason)) => selection.passed_over.push((function.to_owned(), reason)),
            Err(Refusal::Mismatch(error)) => {
                selection.passed_over.push((function.to_owned(), "its prototype is not one that is known".to_owned()));
                selection.mismatches.push(error);
            }
        }
    }
    selection
}

/// Neither the type that goes with the function nor any symbol of it is there.
fn does_not_apply(facts: &Facts, types: &Types, role: &FunctionRole) -> bool {
    role.only_with.is_some_and(|name| !types.structs.contains(name))
        && !role.candidates.iter().any(|candidate| facts.mentions(candidate.function))
}

fn examine(
    facts: &Facts,
    types: &Types,
    role: Role,
    candidate: &Candidate,
    avoid: &[String],
) -> Result<Effect, Refusal> {
    let function = candidate.function;
    if avoid.iter().any(|name| name == function) {
        return Err("avoided on request".into());
    }
    if function == INNER_ACCOUNTING && types.functions.contains_key(OUTER_ACCOUNTING) {
        return Err("inlined into io_account_mem, which this kernel has".into());
    }
    if role == Role::Release && function == UNREGISTER && !types.offsets.contains_key(offsets::NODE) {
        return Err("a ring that ends does not call it on this kernel".into());
    }
    in_kallsyms(facts, function)?;
    if let Traceable::List(list) = &facts.traceable
        && !list.contains(function)
    {
        return Err("in kallsyms, but not among the functions that can be traced".into());
    }
    let effect = form(types, candidate)?.effect;
    if let Effect::Declined(reason) = effect {
        return Err(reason.into());
    }
    match offsets::missing(types, required(role, effect)) {
        Some(member) => Err(Refusal::Reason(format!("its probe reads {member}, which BTF does not have"))),
        None => Ok(effect),
    }
}

/// The members that the probes of a role read and cannot do without.
fn required(role: Role, effect: Effect) -> &'static [&'static str] {
    match (role, effect) {
        (Role::Buffer, Effect::ReturnsNode) => &["io_mapped_ubuf.nr_bvecs", offsets::NODE],
        (Role::Buffer, _) => &["io_mapped_ubuf.nr_bvecs"],
        (Role::Pin, _) => &offsets::FAULTS,
        (Role::Registration(Operation::Unregister) | Role::Release, _) => &offsets::OWNER,
        _ => &[],
    }
}

fn in_kallsyms(facts: &Facts, function: &str) -> Result<(), Refusal> {
    // Without kallsyms the prototype and the attachment itself have to tell.
    let Ok(symbols) = &facts.symbols else {
        return Ok(());
    };
    match symbols.functions.get(function) {
        Some(symbol) if symbol.count == 1 => Ok(()),
        Some(symbol) if symbol.count > 1 => {
            Err(Refusal::Reason(format!("{} functions have this name: it cannot be told which", symbol.count)))
        }
        Some(symbol) if !symbol.renamed.is_empty() => Err(Refusal::Reason(format!(
            "renamed by the compiler to {}: its arguments may have changed",
            symbol.renamed.join(", ")
        ))),
        _ => Err("not in kallsyms: inlined, or not in this kernel".into()),
    }
}

fn form<'a>(types: &Types, candidate: &'a Candidate) -> Result<&'a Form, Refusal> {
    let found: &[Prototype] = types.functions.get(candidate.function).map_or(&[], Vec::as_slice);
    let [prototype] = found else {
        let reason =
            if found.is_empty() { "not in BTF: inlined, or not in this kernel" } else { "several prototypes in BTF" };
        return Err(reason.into());
    };
    let printed = prototype.to_string();
    candidate.forms.iter().find(|form| form.prototype == printed).ok_or_else(|| {
        let known = candidate.forms.iter().filter(|form| !matches!(form.effect, Effect::Declined(_)));
        Refusal::Mismatch(PlanError::Prototype {
            function: candidate.function.to_owned(),
            found: printed,
            relied_on: known.map(|form| form.prototype.to_owned()).collect(),
        })
    })
}
