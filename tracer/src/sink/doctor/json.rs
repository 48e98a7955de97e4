//! The doctor's findings as one JSON object.
//!
//! A fact is `{"value": ...}` or `{"unknown": "why"}`, so that what is not known is never read as zero.

use serde::Serialize;
use serde_json::{Value, json as object};

use super::{CAPABILITIES, SCHEMA, Standing, exit_code, standing, verdict};
use crate::{
    kernel::{Facts, Lockdown, Traceable, Trial, Unknown},
    probe::{
        mode::Mechanism,
        plan::{Choice, Outcome, Plan, Verdict},
    },
};

/// The object.
pub fn json(facts: &Facts, plan: &Plan) -> Value {
    object!({
        "schema": SCHEMA,
        "kernel": kernel(facts, plan),
        "privileges": privileges(facts, plan),
        "plan": {
            "mechanism": plan.mechanism.map(Mechanism::name),
            "roles": plan.choices.iter().map(|choice| role(plan, choice)).collect::<Vec<_>>(),
            "frames": if plan.legacy_frames { "hash" } else { "task_storage" },
        },
        "degraded": plan.figures.lacks().iter().map(|lack| object!({"figure": lack.figures.names(), "reason": *lack.reason})).collect::<Vec<_>>(),
        "errors": plan.errors.iter().map(|error| object!({"message": error.to_string(), "fatal": error.is_fatal()}))
            .collect::<Vec<_>>(),
        "verdict": match plan.verdict() {
            Verdict::Full => "full",
            Verdict::Degraded => "degraded",
            Verdict::Nothing => "nothing",
        },
        "summary": verdict(plan),
        "exit_code": exit_code(plan.verdict()),
    })
}

fn fact<T: Serialize>(known: Result<T, &Unknown>) -> Value {
    match known {
        Ok(value) => object!({ "value": value }),
        Err(unknown) => object!({ "unknown": unknown.to_string() }),
    }
}

fn kernel(facts: &Facts, plan: &Plan) -> Value {
    let can = |obstacle: &Option<String>| object!({"possible": obstacle.is_none(), "why_not": obstacle});
    object!({
        "release": facts.release.text,
        "machine": facts.machine,
        "btf": fact(facts.types.as_ref().map(|_| true)),
        "kallsyms": fact(facts.symbols.as_ref().map(|_| true)),
        "addresses_hidden": fact(facts.symbols.as_ref().map(|symbols| symbols.addresses_hidden)),
        "function_tracing": match &facts.traceable {
            Traceable::List(_) => object!({"value": true}),
            Traceable::NoFtrace => object!({"value": false}),
            Traceable::Unknown(reason) => object!({"unknown": reason}),
        },
        "fentry": can(&plan.obstacles.fentry),
        "fentry_tried": facts.fentry == Trial::Works,
        "kprobe": can(&plan.obstacles.kprobe),
        "kprobe.multi": can(&plan.obstacles.multi),
        "preempts": facts.preemption.possible,
        "preempts_why": facts.preemption.why,
        "lockdown": fact(facts.privileges.lockdown.as_ref().map(|lockdown| Lockdown::name(*lockdown))),
    })
}

fn privileges(facts: &Facts, plan: &Plan) -> Value {
    let own = &facts.privileges;
    let capabilities = CAPABILITIES.map(|(capability, purpose)| {
        let (state, why) = match standing(facts, plan, capability) {
            Standing::Held => ("held", None),
            Standing::Included => ("by_sys_admin", None),
            Standing::NotNeeded => ("not_needed", None),
            Standing::Missing(cost) => ("missing", Some(cost)),
            Standing::Unknown(reason) => ("unknown", Some(reason)),
        };
        object!({"name": capability, "purpose": purpose, "state": state, "why": why})
    });
    object!({
        "euid": own.euid,
        "capabilities": capabilities,
        "perf_event_paranoid": fact(own.perf_event_paranoid.as_ref()),
        "unprivileged_bpf_disabled": fact(own.unprivileged_bpf_disabled.as_ref()),
        "kptr_restrict": fact(own.kptr_restrict.as_ref()),
        "memlock_bytes": own.memlock,
        "memlock_unlimited": own.memlock.is_none(),
    })
}

fn role(plan: &Plan, choice: &Choice) -> Value {
    let (outcome, function) = match &choice.chosen {
        Outcome::Hooked(function) if plan.hooks.is_empty() => ("possible", Some(function)),
        Outcome::Hooked(function) => ("hooked", Some(function)),
        Outcome::NotWanted => ("not_wanted", None),
        Outcome::NotApplicable => ("not_applicable", None),
        Outcome::Lost => ("lost", None),
    };
    let hooks = plan.hooks.iter().filter(|hook| hook.role == choice.role);
    let passed_over = choice.passed_over.iter();
    object!({
        "role": choice.role.name(),
        "gives": choice.role.gives(),
        "outcome": outcome,
        "function": function,
        "why": choice.why,
        "hooks": hooks.map(|hook| object!({"program": hook.program, "kind": hook.kind.name()})).collect::<Vec<_>>(),
        "passed_over": passed_over.map(|(f, why)| object!({"function": f, "reason": why})).collect::<Vec<_>>(),
    })
}
