//! Which hooks this kernel gets, and why. Pure: facts and a wish in, a plan out.

use std::fmt;

use tracer_ebpf::{
    operation::Operation,
    settings::{Features, Settings},
};

use super::{
    mode::{AttachMode, Mechanism, Missing, Obstacles, locked_down, missing_privileges},
    offsets,
    select::{self, Selected},
    table::{self, BACKINGS, Effect, FILES, FUNCTION_ROLES, FunctionRole, Role, TracepointRole, VMAS},
};
use crate::kernel::{Facts, Types};

/// The oldest kernel that the probes are tested on.
pub const OLDEST: (u32, u32) = (5, 10);

/// What a session wants to be hooked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, set by name")]
pub struct Wish {
    /// How to attach.
    pub attach: AttachMode,
    /// Count the kernel's VMA look-ups: bystanders that fault through GUP pay for it.
    pub lookups: bool,
    /// Follow rings from their making.
    pub ring: bool,
    /// Follow the forks of a traced command.
    pub descent: bool,
    /// Hook the return of the registration functions; without it a duration ends at the ledger's tracepoint.
    pub registration_returns: bool,
    /// Send records: they have fields that the aggregates lack.
    pub records: bool,
    /// Kernel functions and tracepoints to leave alone.
    pub avoid: Vec<String>,
}

impl Default for Wish {
    /// All that a doctor would ask about.
    fn default() -> Self {
        Self {
            attach: AttachMode::Auto,
            lookups: true,
            ring: true,
            descent: true,
            registration_returns: true,
            records: true,
            avoid: Vec::new(),
        }
    }
}

/// How one program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// At a function's entry.
    Kprobe,
    /// At its return.
    Kretprobe,
    /// At a function's entry, through a trampoline.
    Fentry,
    /// At its return, through a trampoline.
    Fexit,
    /// At a tracepoint, with its raw arguments.
    RawTracepoint,
}

impl Kind {
    /// The name used in every output, and the end of the programs' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::RawTracepoint => "raw_tracepoint",
        }
    }
}

/// One program to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What for.
    pub role: Role,
    /// Name of the program in the eBPF object.
    pub program: String,
    /// The kernel function, or the tracepoint without its group.
    pub function: String,
    /// How.
    pub kind: Kind,
    /// The figures that are lost if it does not attach.
    pub figures: &'static [&'static str],
}

/// What became of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Filled by this function or tracepoint.
    Hooked(String),
    /// Not asked for.
    NotWanted,
    /// This kernel has nothing of the kind, so nothing is lost.
    NotApplicable,
    /// Nothing fills it.
    Lost,
}

/// One role's choice, and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The role.
    pub role: Role,
    /// What became of it.
    pub chosen: Outcome,
    /// Why, in one line.
    pub why: String,
    /// Candidates that were looked at before, and why they were passed over.
    pub passed_over: Vec<(String, String)>,
}

/// A figure that this plan does not give, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Degraded {
    /// The figure.
    pub figure: String,
    /// Why, in one line.
    pub reason: String,
}

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The kernel has no BTF: no prototype and no offset is known.
    NoTypes(String),
    /// The kernel is too old, and what the probes need is not there.
    TooOld(String),
    /// No function can be hooked in the way that is asked for.
    NoMechanism(AttachMode, Obstacles),
    /// Lockdown keeps BPF from reading kernel memory.
    Lockdown,
    /// A right is missing.
    Privilege(Missing),
    /// The only function for a role has a prototype that no probe knows.
    Prototype {
        /// The function or tracepoint.
        function: String,
        /// What this kernel has.
        found: String,
        /// What the probes know.
        relied_on: Vec<String>,
    },
}

impl PlanError {
    /// Whether nothing at all can be measured.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::NoTypes(_) | Self::TooOld(_) | Self::NoMechanism(..) | Self::Lockdown => true,
            Self::Privilege(missing) => missing.fatal,
            Self::Prototype { .. } => false,
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTypes(reason) => {
                write!(f, "no kernel BTF ({reason}): take a kernel built with CONFIG_DEBUG_INFO_BTF")
            }
            Self::TooOld(release) => {
                let (major, minor) = OLDEST;
                write!(f, "kernel {release} is too old: pinscope works from {major}.{minor} on")
            }
            Self::NoMechanism(wish, obstacles) => no_mechanism(f, *wish, obstacles),
            Self::Lockdown => write!(
                f,
                "lockdown is at confidentiality: no program may read kernel memory; boot with lockdown=integrity"
            ),
            Self::Privilege(Missing { capability, cost, .. }) => {
                write!(f, "{capability} is missing: {cost}; run as root or grant it")
            }
            Self::Prototype { function, found, relied_on } => write!(
                f,
                "{function} has another prototype than its probe relies on: this kernel `{found}`, the probe `{}`",
                relied_on.join("` or `")
            ),
        }
    }
}

fn no_mechanism(f: &mut fmt::Formatter<'_>, wish: AttachMode, obstacles: &Obstacles) -> fmt::Result {
    let fentry = obstacles.fentry.as_deref().unwrap_or("possible");
    let kprobe = obstacles.kprobe.as_deref().unwrap_or("possible");
    match wish {
        AttachMode::Auto => write!(f, "no function can be hooked here: fentry: {fentry}; kprobe: {kprobe}")?,
        AttachMode::Fentry => write!(f, "--attach fentry: {fentry}")?,
        AttachMode::Kprobe => write!(f, "--attach kprobe: {kprobe}")?,
    }
    match (wish, &obstacles.fentry, &obstacles.kprobe) {
        (AttachMode::Fentry, _, None) => write!(f, "; take --attach kprobe"),
        (AttachMode::Kprobe, None, _) => write!(f, "; take --attach fentry"),
        _ => write!(f, "; take another kernel"),
    }
}

/// How much of what was asked for can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it.
    Full,
    /// Some figures are missing or incomplete; [`Plan::degraded`] names them.
    Degraded,
    /// Nothing.
    Nothing,
}

/// What is hooked on this kernel, and why.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How functions are hooked; `None` where they cannot be.
    pub mechanism: Option<Mechanism>,
    /// What stands in the way of either mechanism.
    pub obstacles: Obstacles,
    /// The programs to attach. Empty where something fatal is among `errors`.
    pub hooks: Vec<Hook>,
    /// Offsets and kernel features for the eBPF side; `session` is left at its default.
    pub settings: Settings,
    /// Every role, with its reasons.
    pub choices: Vec<Choice>,
    /// Figures that are not given, or not wholly.
    pub degraded: Vec<Degraded>,
    /// What stands in the way.
    pub errors: Vec<PlanError>,
    /// There is no task storage: the map of the frames has to be a hash by thread id.
    pub legacy_frames: bool,
}

impl Plan {
    /// How much of what was asked for can be had.
    pub fn verdict(&self) -> Verdict {
        if self.errors.iter().any(PlanError::is_fatal) || self.hooks.is_empty() {
            Verdict::Nothing
        } else if self.errors.is_empty() && self.degraded.is_empty() {
            Verdict::Full
        } else {
            Verdict::Degraded
        }
    }

    fn lose(&mut self, figures: &[&str], reason: &str) {
        for &figure in figures {
            if !self.degraded.iter().any(|known| known.figure == figure) {
                self.degraded.push(Degraded { figure: figure.to_owned(), reason: reason.to_owned() });
            }
        }
    }

    fn chose(&mut self, role: Role, chosen: Outcome, why: impl Into<String>) {
        self.choices.push(Choice { role, chosen, why: why.into(), passed_over: Vec::new() });
    }
}

/// How the VMAs of a buffer are found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Walk {
    /// `bpf_loop` over `bpf_find_vma`, at the entry of the per-buffer function.
    FindVma,
    /// Over the VMA list, in the pin, where `mmap_lock` is held.
    List,
    /// Not at all, and why.
    None(String),
}

/// Makes the plan.
pub fn plan(facts: &Facts, wish: &Wish) -> Plan {
    let obstacles = Obstacles::of(facts);
    let mechanism = obstacles.choose(wish.attach);
    let mut plan = Plan {
        mechanism,
        obstacles,
        hooks: Vec::new(),
        settings: Settings::default(),
        choices: Vec::new(),
        degraded: Vec::new(),
        errors: Vec::new(),
        legacy_frames: false,
    };
    stand_in_the_way(&mut plan, facts, wish);
    match &facts.types {
        Ok(types) => fill(&mut plan, facts, types, wish),
        Err(unknown) => plan.errors.insert(0, PlanError::NoTypes(unknown.to_string())),
    }
    if plan.errors.iter().any(PlanError::is_fatal) {
        plan.hooks.clear();
    }
    plan
}

fn stand_in_the_way(plan: &mut Plan, facts: &Facts, wish: &Wish) {
    if plan.mechanism.is_none() {
        plan.errors.push(PlanError::NoMechanism(wish.attach, plan.obstacles.clone()));
    }
    if locked_down(facts) {
        plan.errors.push(PlanError::Lockdown);
    }
    plan.errors.extend(missing_privileges(facts, plan.mechanism).into_iter().map(PlanError::Privilege));
}

fn fill(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    let has = |helper: &str| types.helpers.contains(helper);
    let task_storage =
        has("task_storage_get") && has("get_current_task_btf") && types.offsets.contains_key(offsets::TASK_STORAGE);
    plan.legacy_frames = !task_storage;
    plan.settings.offset = offsets::resolve(types);
    plan.settings.kernel = Features {
        task_storage: task_storage.into(),
        func_ret: has("get_func_ret").into(),
        folio_shift: types.offsets.contains_key("io_mapped_ubuf.folio_shift").into(),
        registration_returns: wish.registration_returns.into(),
        ..Features::default()
    };
    let selected = FUNCTION_ROLES.map(|role| select_role(plan, facts, types, wish, &role));
    let walk = walk(types, &selected);
    for (role, selected) in FUNCTION_ROLES.iter().zip(&selected) {
        if let Some(selected) = selected {
            hook(plan, wish, role, selected, &walk);
        }
    }
    tracepoints(plan, types, wish);
    note_the_walk(plan, &walk, selected.iter().flatten().any(|s| s.role == Role::Buffer));
    too_old(plan, facts);
}

/// Fills one role; `None` where nothing is to be hooked for it.
fn select_role(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish, role: &FunctionRole) -> Option<Selected> {
    if role.role == Role::Lookup && !wish.lookups {
        plan.chose(role.role, Outcome::NotWanted, "not asked for");
        return None;
    }
    if role.role == Role::Lookup && lost(plan, Role::Pin) {
        plan.chose(role.role, Outcome::Lost, "look-ups are counted inside pins, and those are not hooked");
        return None;
    }
    let selection = select::select(facts, types, role, &wish.avoid);
    let mut choice =
        Choice { role: role.role, chosen: Outcome::Lost, why: String::new(), passed_over: selection.passed_over };
    match &selection.selected {
        Some(selected) => {
            choice.chosen = Outcome::Hooked(selected.function.to_owned());
            selected.note.clone_into(&mut choice.why);
        }
        None if selection.not_applicable => {
            choice.chosen = Outcome::NotApplicable;
            "this kernel has no such operation".clone_into(&mut choice.why);
        }
        None => {
            "no candidate can be hooked".clone_into(&mut choice.why);
            let reasons: Vec<_> = choice.passed_over.iter().map(|(f, why)| format!("{f}: {why}")).collect();
            plan.lose(role.figures, &reasons.join("; "));
            plan.errors.extend(selection.mismatches);
        }
    }
    plan.choices.push(choice);
    selection.selected
}

fn lost(plan: &Plan, role: Role) -> bool {
    plan.choices.iter().any(|choice| choice.role == role && choice.chosen == Outcome::Lost)
}

fn walk(types: &Types, selected: &[Option<Selected>]) -> Walk {
    let pin = selected.iter().flatten().find(|s| s.role == Role::Pin);
    if let Some(member) = offsets::missing(types, &offsets::WALK) {
        Walk::None(format!("BTF has no {member}"))
    } else if ["find_vma", "loop"].iter().all(|&helper| types.helpers.contains(helper)) {
        Walk::FindVma
    } else if let Some(member) = offsets::missing(types, &offsets::LIST) {
        Walk::None(format!("the kernel has no bpf_find_vma (5.17), and BTF has no {member} to walk the list by"))
    } else if pin.is_none_or(|pin| pin.function != "pin_user_pages") {
        Walk::None("the kernel has no bpf_find_vma (5.17), and no function to hook where mmap_lock is held".to_owned())
    } else {
        Walk::List
    }
}

fn hook(plan: &mut Plan, wish: &Wish, role: &FunctionRole, selected: &Selected, walk: &Walk) {
    let kernel = &mut plan.settings.kernel;
    match selected.effect {
        Effect::ReturnsNode => kernel.buffer_returns_node = 1,
        Effect::ReturnsPages => kernel.pin_returns_pages = 1,
        Effect::Plain | Effect::Declined(_) => {}
    }
    let Some(mechanism) = plan.mechanism else {
        return;
    };
    let (enter, exit) = match mechanism {
        Mechanism::Kprobe => (Kind::Kprobe, Kind::Kretprobe),
        Mechanism::Fentry => (Kind::Fentry, Kind::Fexit),
    };
    let variant = match (role.role, walk) {
        (Role::Buffer, Walk::List | Walk::None(_)) => "_plain",
        (Role::Pin, Walk::List) => "_walk",
        _ => "",
    };
    let mut push = |program: String, kind| {
        let (function, figures) = (selected.function.to_owned(), role.figures);
        plan.hooks.push(Hook { role: role.role, program, function, kind, figures });
    };
    push(format!("{}_enter{variant}_{}", role.handler, enter.name()), enter);
    let is_registration = matches!(role.role, Role::Registration(_));
    if role.returns && (wish.registration_returns || !is_registration) {
        push(format!("{}_exit_{}", role.handler, exit.name()), exit);
    }
}

fn tracepoints(plan: &mut Plan, types: &Types, wish: &Wish) {
    if tracepoint(plan, types, wish, &table::LEDGER, true) {
        match ledger_ret(types) {
            Ok(position) => {
                plan.settings.kernel.ledger = 1;
                plan.settings.kernel.ledger_ret = position;
            }
            Err(error) => {
                plan.hooks.retain(|hook| hook.role != Role::Ledger);
                plan.lose(table::LEDGER.figures, "the tracepoint io_uring_register has no argument `ret`");
                plan.errors.push(error);
            }
        }
    }
    tracepoint(plan, types, wish, &table::RING, wish.ring);
    tracepoint(plan, types, wish, &table::DESCENT, wish.descent);
}

/// Position of the result among the ledger's arguments: by its name, or where names are lacking the only `long`.
fn ledger_ret(types: &Types) -> Result<u8, PlanError> {
    let tracepoint = table::LEDGER.tracepoint;
    let Some(prototype) = types.tracepoints.get(tracepoint) else {
        return Err(mismatch(tracepoint, "(absent)", "void (void *, unsigned int, ..., long ret)"));
    };
    let arguments = &prototype.parameters;
    let longs = || arguments.iter().enumerate().filter(|(_, argument)| argument.kind == "long");
    let position = longs()
        .find(|(_, argument)| argument.name == "ret")
        .or_else(|| longs().next().filter(|(_, argument)| argument.name.is_empty() && longs().count() == 1));
    position
        .and_then(|(position, _)| u8::try_from(position).ok())
        .ok_or_else(|| mismatch(tracepoint, &prototype.to_string(), "void (void *, unsigned int, ..., long ret)"))
}

fn mismatch(function: &str, found: &str, relied_on: &str) -> PlanError {
    PlanError::Prototype {
        function: function.to_owned(),
        found: found.to_owned(),
        relied_on: vec![relied_on.to_owned()],
    }
}

/// Plans a raw tracepoint; whether it is hooked.
fn tracepoint(plan: &mut Plan, types: &Types, wish: &Wish, role: &TracepointRole, wanted: bool) -> bool {
    if !wanted {
        plan.chose(role.role, Outcome::NotWanted, "not asked for");
        return false;
    }
    let refusal = if wish.avoid.iter().any(|name| name == role.tracepoint) {
        Some("avoided on request".to_owned())
    } else {
        match types.tracepoints.get(role.tracepoint) {
            None => Some("not in this kernel's BTF".to_owned()),
            Some(found)
                if !found
                    .parameters
                    .iter()
                    .map(|p| &p.kind[..])
                    .take(role.arguments.len())
                    .eq(role.arguments.iter().copied()) =>
            {
                let relied_on = format!("void ({}, ...)", role.arguments.join(", "));
                plan.errors.push(mismatch(role.tracepoint, &found.to_string(), &relied_on));
                Some("its arguments differ".to_owned())
            }
            Some(_) => None,
        }
    };
    if let Some(reason) = refusal {
        plan.lose(role.figures, &format!("tracepoint {}: {reason}", role.tracepoint));
        plan.chose(role.role, Outcome::Lost, reason);
        return false;
    }
    plan.chose(role.role, Outcome::Hooked(role.tracepoint.to_owned()), role.role.gives());
    plan.hooks.push(Hook {
        role: role.role,
        program: role.program.to_owned(),
        function: role.tracepoint.to_owned(),
        kind: Kind::RawTracepoint,
        figures: role.figures,
    });
    true
}

fn note_the_walk(plan: &mut Plan, walk: &Walk, buffers: bool) {
    match walk {
        Walk::None(reason) if buffers => plan.lose(&[VMAS, BACKINGS, FILES], reason),
        Walk::List => plan.lose(
            &["VMAs of a buffer with very many of them"],
            "without bpf_find_vma (5.17) a walk ends at the verifier's limit; such a buffer is marked cut",
        ),
        _ => {}
    }
}

/// A version alone refuses nothing; it explains what is missing.
fn too_old(plan: &mut Plan, facts: &Facts) {
    if facts.release.is_before(OLDEST) && lost(plan, Role::Registration(Operation::Register)) {
        plan.errors.insert(0, PlanError::TooOld(facts.release.text.clone()));
    }
}

#[cfg(test)]
mod tests;
