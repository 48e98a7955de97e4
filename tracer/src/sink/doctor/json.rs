//! The doctor's findings as one JSON object.
//!
//! A fact is `{"value": ...}` or `{"unknown": "why"}`, so that what is not known is never read as zero.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{CAPABILITIES, SCHEMA, Standing, exit_code, standing, verdict};
use crate::{
    kernel::{self, Facts, Traceable, Trial, Unknown},
    probe::{
        mode::Mechanism,
        plan::{self, Choice, Plan},
    },
};

/// What `pinscope doctor --json` prints: what this kernel offers, which hooks are planned and why, and what is missing.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Doctor<'a> {
    /// Number of the schema.
    schema: u32,
    /// What this kernel offers.
    kernel: Kernel<'a>,
    /// What this process may do.
    privileges: Privileges,
    /// What is hooked, and why.
    plan: Planned<'a>,
    /// Figures that are unavailable or incomplete.
    degraded: Vec<Degraded<'a>>,
    /// What stands in the way.
    errors: Vec<Obstacle>,
    /// How much of what was asked for can be measured.
    verdict: Verdict,
    /// The same in words.
    summary: String,
    /// The exit code of `pinscope doctor`.
    exit_code: u8,
}

/// How much of what was asked for can be measured.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// All of it.
    Full,
    /// Something is missing or incomplete.
    Degraded,
    /// Nothing.
    Nothing,
}

/// Something that is known, or why it is not.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fact<T> {
    /// What it is.
    Value(T),
    /// Why that is not known.
    Unknown(String),
}

/// What the kernel offers.
#[derive(Serialize, JsonSchema)]
struct Kernel<'a> {
    /// Its release (`uname -r`).
    release: &'a str,
    /// The machine's architecture.
    machine: &'a str,
    /// Its types (BTF) are there.
    btf: Fact<bool>,
    /// Its symbols are there.
    kallsyms: Fact<bool>,
    /// The symbols' addresses are hidden from this process.
    addresses_hidden: Fact<bool>,
    /// Functions can be traced (ftrace).
    function_tracing: Fact<bool>,
    /// Hooks by trampolines.
    fentry: Possible<'a>,
    /// That was tried, and works.
    fentry_tried: bool,
    /// Hooks by kprobes.
    kprobe: Possible<'a>,
    /// Hooks by fprobe.
    #[serde(rename = "kprobe.multi")]
    multi: Possible<'a>,
    /// The kernel may preempt itself.
    preempts: bool,
    /// How that is known.
    preempts_why: &'a str,
    /// Kernel lockdown.
    lockdown: Fact<&'a str>,
}

/// Whether something can be used.
#[derive(Serialize, JsonSchema)]
struct Possible<'a> {
    /// It can.
    possible: bool,
    /// Why not; null where it can.
    why_not: Option<&'a str>,
}

/// What this process may do.
#[derive(Serialize, JsonSchema)]
struct Privileges {
    /// Effective user.
    euid: u32,
    /// The capabilities that play a part.
    capabilities: Vec<Capability>,
    /// `kernel.perf_event_paranoid`.
    perf_event_paranoid: Fact<i32>,
    /// `kernel.unprivileged_bpf_disabled`.
    unprivileged_bpf_disabled: Fact<i32>,
    /// `kernel.kptr_restrict`.
    kptr_restrict: Fact<i32>,
    /// Limit of locked memory (`RLIMIT_MEMLOCK`); null where there is none.
    memlock_bytes: Option<u64>,
    /// There is no such limit.
    memlock_unlimited: bool,
}

/// One capability.
#[derive(Serialize, JsonSchema)]
struct Capability {
    /// Its name, `CAP_...`.
    name: &'static str,
    /// What for.
    purpose: &'static str,
    /// How the process stands with it.
    state: CapabilityState,
    /// What its absence costs, or why it cannot be told; null where neither applies.
    why: Option<String>,
}

/// How the process stands with a capability.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CapabilityState {
    /// Held.
    Held,
    /// Not held; CAP_SYS_ADMIN, which is held, includes it.
    BySysAdmin,
    /// Not held and not needed for this plan.
    NotNeeded,
    /// Not held, and needed.
    Missing,
    /// It cannot be told.
    Unknown,
}

/// What is hooked, and why.
#[derive(Serialize, JsonSchema)]
struct Planned<'a> {
    /// How functions are hooked: `fentry` or `kprobe`; null where they cannot be.
    mechanism: Option<&'static str>,
    /// Every role.
    roles: Vec<RoleChoice<'a>>,
    /// Where the state of a task is kept.
    frames: Frames,
}

/// Where the state of a task is kept.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Frames {
    /// In the task itself (since 5.12).
    TaskStorage,
    /// In a hash map by thread.
    Hash,
}

/// One role's choice, and its reasons.
#[derive(Serialize, JsonSchema)]
struct RoleChoice<'a> {
    /// Its name.
    role: &'static str,
    /// What its hooks give.
    gives: &'static str,
    /// What became of it.
    outcome: Outcome,
    /// The kernel function or tracepoint that fills it; null where nothing does.
    function: Option<&'a str>,
    /// Why, in one line.
    why: &'a str,
    /// Its hooks.
    hooks: Vec<Hook<'a>>,
    /// Candidates that were looked at before.
    passed_over: Vec<PassedOver<'a>>,
}

/// What became of a role.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It could be filled, but for what stands in the way of all hooks.
    Possible,
    /// It is filled.
    Hooked,
    /// Nobody asked for it.
    NotWanted,
    /// This kernel has nothing of the kind, so nothing is lost.
    NotApplicable,
    /// Nothing fills it.
    Lost,
}

/// One program to attach.
#[derive(Serialize, JsonSchema)]
struct Hook<'a> {
    /// Name of the program.
    program: &'a str,
    /// How it attaches.
    kind: &'static str,
}

/// A candidate that does not fill its role.
#[derive(Serialize, JsonSchema)]
struct PassedOver<'a> {
    /// The kernel function.
    function: &'a str,
    /// Why not.
    reason: &'a str,
}

/// Figures that lack something.
#[derive(Serialize, JsonSchema)]
struct Degraded<'a> {
    /// Their names.
    figure: String,
    /// Why.
    reason: &'a str,
}

/// Something that stands in the way.
#[derive(Serialize, JsonSchema)]
struct Obstacle {
    /// What.
    message: String,
    /// Nothing can be measured because of it.
    fatal: bool,
}

/// The object. The error is serde's, which these types do not raise.
pub fn json(facts: &Facts, plan: &Plan) -> serde_json::Result<Value> {
    let degraded =
        plan.figures.lacks().iter().map(|lack| Degraded { figure: lack.figures.names(), reason: &lack.reason });
    serde_json::to_value(Doctor {
        schema: SCHEMA,
        kernel: kernel(facts, plan),
        privileges: privileges(facts, plan),
        plan: Planned {
            mechanism: plan.mechanism.map(Mechanism::name),
            roles: plan.choices.iter().map(|choice| role(plan, choice)).collect(),
            frames: if plan.legacy_frames { Frames::Hash } else { Frames::TaskStorage },
        },
        degraded: degraded.collect(),
        errors: plan
            .errors
            .iter()
            .map(|error| Obstacle { message: error.to_string(), fatal: error.is_fatal() })
            .collect(),
        verdict: match plan.verdict() {
            plan::Verdict::Full => Verdict::Full,
            plan::Verdict::Degraded => Verdict::Degraded,
            plan::Verdict::Nothing => Verdict::Nothing,
        },
        summary: verdict(plan),
        exit_code: exit_code(plan.verdict()),
    })
}

fn fact<T>(known: Result<T, &Unknown>) -> Fact<T> {
    match known {
        Ok(value) => Fact::Value(value),
        Err(unknown) => Fact::Unknown(unknown.to_string()),
    }
}

fn kernel<'a>(facts: &'a Facts, plan: &'a Plan) -> Kernel<'a> {
    let can = |obstacle: &'a Option<String>| Possible { possible: obstacle.is_none(), why_not: obstacle.as_deref() };
    Kernel {
        release: &facts.release.text,
        machine: &facts.machine,
        btf: fact(facts.types.as_ref().map(|_| true)),
        kallsyms: fact(facts.symbols.as_ref().map(|_| true)),
        addresses_hidden: fact(facts.symbols.as_ref().map(|symbols| symbols.addresses_hidden)),
        function_tracing: match &facts.traceable {
            Traceable::List(_) => Fact::Value(true),
            Traceable::NoFtrace => Fact::Value(false),
            Traceable::Unknown(reason) => Fact::Unknown(reason.clone()),
        },
        fentry: can(&plan.obstacles.fentry),
        fentry_tried: facts.fentry == Trial::Works,
        kprobe: can(&plan.obstacles.kprobe),
        multi: can(&plan.obstacles.multi),
        preempts: facts.preemption.possible,
        preempts_why: &facts.preemption.why,
        lockdown: fact(facts.privileges.lockdown.as_ref().map(|lockdown| kernel::Lockdown::name(*lockdown))),
    }
}

fn privileges(facts: &Facts, plan: &Plan) -> Privileges {
    let own = &facts.privileges;
    let capabilities = CAPABILITIES.map(|(name, purpose)| {
        let (state, why) = match standing(facts, plan, name) {
            Standing::Held => (CapabilityState::Held, None),
            Standing::Included => (CapabilityState::BySysAdmin, None),
            Standing::NotNeeded => (CapabilityState::NotNeeded, None),
            Standing::Missing(cost) => (CapabilityState::Missing, Some(cost)),
            Standing::Unknown(reason) => (CapabilityState::Unknown, Some(reason)),
        };
        Capability { name, purpose, state, why }
    });
    Privileges {
        euid: own.euid,
        capabilities: capabilities.into(),
        perf_event_paranoid: fact(own.perf_event_paranoid.as_ref().copied()),
        unprivileged_bpf_disabled: fact(own.unprivileged_bpf_disabled.as_ref().copied()),
        kptr_restrict: fact(own.kptr_restrict.as_ref().copied()),
        memlock_bytes: own.memlock,
        memlock_unlimited: own.memlock.is_none(),
    }
}

fn role<'a>(plan: &'a Plan, choice: &'a Choice) -> RoleChoice<'a> {
    let (outcome, function) = match &choice.chosen {
        plan::Outcome::Hooked(function) if plan.hooks.is_empty() => (Outcome::Possible, Some(function.as_str())),
        plan::Outcome::Hooked(function) => (Outcome::Hooked, Some(function.as_str())),
        plan::Outcome::NotWanted => (Outcome::NotWanted, None),
        plan::Outcome::NotApplicable => (Outcome::NotApplicable, None),
        plan::Outcome::Lost => (Outcome::Lost, None),
    };
    let hooks = plan.hooks.iter().filter(|hook| hook.role == choice.role);
    RoleChoice {
        role: choice.role.name(),
        gives: choice.role.gives(),
        outcome,
        function,
        why: &choice.why,
        hooks: hooks.map(|hook| Hook { program: &hook.program, kind: hook.kind.name() }).collect(),
        passed_over: choice.passed_over.iter().map(|(function, reason)| PassedOver { function, reason }).collect(),
    }
}
