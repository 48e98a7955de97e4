//! What this kernel offers, which hooks are planned and why, and what is missing: as text and as JSON.

pub mod json;
pub mod text;

use crate::{
    kernel::Facts,
    probe::plan::{Plan, PlanError, Verdict},
};

pub use json::json;
pub use text::text;

pub use super::json::SCHEMA;

/// Exit code: everything that was asked for can be measured.
pub const EXIT_FULL: u8 = 0;
/// Exit code: something is missing or incomplete. Not 1 or 2, which are errors of the run and of usage.
pub const EXIT_DEGRADED: u8 = 3;
/// Exit code: nothing can be measured here.
pub const EXIT_NOTHING: u8 = 4;

/// The exit code that goes with a verdict.
pub const fn exit_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Full => EXIT_FULL,
        Verdict::Degraded => EXIT_DEGRADED,
        Verdict::Nothing => EXIT_NOTHING,
    }
}

/// How the process stands with one capability.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Held.
    Held,
    /// Not held; CAP_SYS_ADMIN, which is held, includes it.
    Included,
    /// Not held and not needed for this plan.
    NotNeeded,
    /// Not held, and what that costs.
    Missing(String),
    /// It cannot be told, and why.
    Unknown(String),
}

/// The capabilities that play a part, and what for.
const CAPABILITIES: [(&str, &str); 4] = [
    ("CAP_BPF", "loads programs and maps"),
    ("CAP_PERFMON", "loads and attaches tracing programs"),
    ("CAP_SYS_ADMIN", "kprobes where perf_event_paranoid is above 2"),
    ("CAP_SYS_RESOURCE", "raises the memlock limit, before 5.11"),
];

fn standing(facts: &Facts, plan: &Plan, capability: &str) -> Standing {
    let missing = plan.errors.iter().find_map(|error| match error {
        PlanError::Privilege(missing) if missing.capability == capability => Some(missing.cost.clone()),
        _ => None,
    });
    let own = &facts.privileges;
    match (missing, &own.capabilities) {
        (Some(cost), _) => Standing::Missing(cost),
        (None, _) if own.user_namespace => {
            Standing::Missing("what is held in a user namespace loads no program".to_owned())
        }
        (None, Err(unknown)) => Standing::Unknown(unknown.to_string()),
        (None, Ok(_)) if own.holds(capability) => Standing::Held,
        (None, Ok(_)) if matches!(capability, "CAP_BPF" | "CAP_PERFMON") => Standing::Included,
        (None, Ok(_)) => Standing::NotNeeded,
    }
}

/// The verdict in one line.
fn verdict(plan: &Plan) -> String {
    match plan.verdict() {
        Verdict::Full => "all that was asked for can be measured here".to_owned(),
        Verdict::Degraded => match plan.figures.lacks().len() {
            0 => "works, but see the warnings above".to_owned(),
            1 => "works, but 1 figure is missing or incomplete".to_owned(),
            n => format!("works, but {n} figures are missing or incomplete"),
        },
        Verdict::Nothing => match plan.errors.iter().filter(|error| error.is_fatal()).count() {
            0 => "nothing can be measured here: no function that is needed can be hooked".to_owned(),
            1 => "nothing can be measured here: see the error above".to_owned(),
            n => format!("nothing can be measured here: see the {n} errors above"),
        },
    }
}

#[cfg(test)]
mod tests;
