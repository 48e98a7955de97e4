//! From facts and a wish to a plan.

use tracer_ebpf::{
    operation::Operation,
    policy::Policy,
    settings::{self, Features, Settings},
};

use super::{Choice, Hook, Kind, OLDEST, Outcome, Plan, PlanError, Wish, detail, tables};
use crate::{
    figure::{Figure, Figures},
    kernel::{Facts, Types},
    probe::{
        mode::{AttachMode, Mechanism, Obstacles, locked_down, missing_privileges, no_perf_events},
        offsets,
        select::{self, Selected},
        table::{self, Effect, FUNCTION_ROLES, FunctionRole, Role, TracepointRole},
    },
};

/// How the VMAs of a buffer are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// `bpf_loop` over `bpf_find_vma`, at the entry of the per-buffer function.
    FindVma,
    /// Not at all, and why.
    None(String),
}

/// Makes the plan.
pub fn plan(facts: &Facts, wish: &Wish) -> Plan {
    let mut plan = empty(facts, wish, facts.preemption.possible);
    match &facts.types {
        Ok(types) => fill(&mut plan, facts, types, wish),
        Err(unknown) => plan.errors.insert(0, PlanError::NoTypes(unknown.to_string())),
    }
    if plan.errors.iter().any(PlanError::is_fatal) {
        let known = plan.mechanism.is_some() && facts.types.is_ok();
        let hooks = std::mem::take(&mut plan.hooks);
        plan.withheld = if known { hooks } else { presumed(plan.mechanism, wish) };
    }
    plan
}

/// Where it is not known what this kernel's functions are, or how they are hooked: what a current kernel would have, so
/// that a service can name what it does without.
fn presumed(mechanism: Option<Mechanism>, wish: &Wish) -> Vec<Hook> {
    let (kind, _) = mechanism.unwrap_or(Mechanism::Fentry).kinds();
    let roles = FUNCTION_ROLES.iter().filter(|role| detail::is_wanted(wish, role.role));
    let functions = roles.filter_map(|role| {
        let function = role.candidates.last()?.function.to_owned();
        let program = format!("{}_enter_{}", role.handler, kind.program());
        Some(Hook { role: role.role, program, function, kind, figures: role.figures })
    });
    let ledger = Hook {
        role: Role::Ledger,
        program: table::LEDGER.program.to_owned(),
        function: table::LEDGER.tracepoint.to_owned(),
        kind: Kind::RawTracepoint,
        figures: table::LEDGER.figures,
    };
    functions.chain([ledger]).collect()
}

/// A plan without hooks, and what stands in the way of any. `preempted` is whether programs that are preempted are to be
/// avoided.
pub(super) fn empty(facts: &Facts, wish: &Wish, preempted: bool) -> Plan {
    let obstacles = Obstacles::of(facts);
    let mechanism = obstacles.choose(wish.attach, preempted, no_perf_events(facts).is_none());
    let mut plan = Plan {
        mechanism,
        obstacles,
        hooks: Vec::new(),
        withheld: Vec::new(),
        settings: Settings::default(),
        choices: Vec::new(),
        figures: Figures::default(),
        errors: Vec::new(),
        legacy_frames: false,
        ring_exits: facts.types.as_ref().is_ok_and(|types| types.offsets.contains_key(offsets::NODE)),
        ring_tables: facts.types.as_ref().is_ok_and(|types| {
            !types.offsets.contains_key(offsets::NODE) || offsets::missing(types, &offsets::TABLE_OF_RING).is_none()
        }),
        policy: (None, "the kernel's types are not to be had".to_owned()),
    };
    stand_in_the_way(&mut plan, facts, wish);
    plan
}

fn stand_in_the_way(plan: &mut Plan, facts: &Facts, wish: &Wish) {
    if plan.mechanism.is_none() {
        plan.errors.push(PlanError::NoMechanism(wish.attach, plan.obstacles.clone()));
    }
    if locked_down(facts) {
        plan.errors.push(PlanError::Lockdown);
    }
    if facts.privileges.user_namespace {
        plan.errors.push(PlanError::UserNamespace);
    }
    plan.errors.extend(missing_privileges(facts, plan.mechanism).into_iter().map(PlanError::Privilege));
}

fn fill(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    plan.figures.leave_out(detail::unasked(wish));
    settings(plan, facts, types, wish);
    plan.settings.kernel.registration_returns = wish.registration_returns.into();
    let selected = FUNCTION_ROLES.map(|role| select_role(plan, facts, types, wish, &role));
    let walk = walk(types);
    let pin_tells = wish.lean && walk == Walk::FindVma && selected.iter().flatten().any(|s| s.function == TELLING_PIN);
    plan.settings.kernel.pin_is_buffer = pin_tells.into();
    plan.settings.kernel.buffers = selected.iter().flatten().any(|s| s.role == Role::Buffer).into();
    plan.settings.kernel.walks = (walk == Walk::FindVma).into();
    plan.settings.kernel.pins = selected.iter().flatten().any(|s| s.role == Role::Pin).into();
    plan.settings.kernel.calls = selected.iter().flatten().any(|s| s.role == Role::Call).into();
    plan.settings.kernel.pin_is_slow = selected.iter().flatten().any(|s| s.function == SLOW_PIN).into();
    for (role, selected) in FUNCTION_ROLES.iter().zip(&selected) {
        if pin_tells && role.role == Role::Buffer {
            not_needed(plan, role.role);
        } else if let Some(selected) = selected {
            hook(plan, wish, role, selected, &walk);
        }
    }
    skipped_where_preempted(plan, facts, wish);
    cgroups(plan, types, wish);
    tables::tables(plan, facts, types, wish);
    tracepoints(plan, facts, types, wish);
    note_huge_pages(plan, &walk);
    note_the_walk(plan, &walk, selected.iter().flatten().any(|s| s.role == Role::Buffer));
    note_members(plan, facts, types, &walk);
    too_old(plan, facts);
}

/// The last choice where the kernel preempts. Whoever asks for it is told what was skipped when it was.
fn skipped_where_preempted(plan: &mut Plan, facts: &Facts, wish: &Wish) {
    if plan.mechanism != Some(Mechanism::Fentry) || !facts.preemption.possible || wish.attach != AttachMode::Auto {
        return;
    }
    let obstacle = |of: &Option<String>| of.clone().or_else(|| no_perf_events(facts)).unwrap_or_default();
    let (multi, kprobe) = (obstacle(&plan.obstacles.multi), obstacle(&plan.obstacles.kprobe));
    let why = &facts.preemption.why;
    plan.figures.narrow(
        &[Figure::EveryPart],
        &format!("the kernel preempts itself ({why}), and skips programs of fentry and fexit then; kprobe.multi: {multi}; kprobes: {kprobe}"),
    );
}

/// What every program reads by.
pub(super) fn settings(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    let has = |helper: &str| types.helpers.contains(helper);
    let task_storage =
        has("task_storage_get") && has("get_current_task_btf") && types.offsets.contains_key(offsets::TASK_STORAGE);
    plan.policy = policy(types);
    plan.legacy_frames = !task_storage;
    plan.settings.offset = offsets::resolve(types);
    plan.settings.kernel = Features {
        task_storage: task_storage.into(),
        func_ret: has("get_func_ret").into(),
        folio_shift: types.offsets.contains_key("io_mapped_ubuf.folio_shift").into(),
        ring_requests: offsets::missing(types, &offsets::REQUESTS).is_none().into(),
        slots: slots(types),
        file_names: offsets::missing(types, &offsets::NAMES).is_none().into(),
        file_paths: offsets::missing(types, &offsets::PATHS).is_none().into(),
        backing_files: offsets::missing(types, &offsets::BACKING_FILES).is_none().into(),
        vma_tree: offsets::tree_is_known(types).into(),
        ..Features::default()
    };
    processes(plan, facts, types, wish);
}

/// What a slot of a ring's table is.
fn slots(types: &Types) -> u8 {
    let has = |members: &[&'static str]| offsets::missing(types, members).is_none();
    if has(&offsets::SLOTS_OF_NODES) {
        settings::SLOTS_OF_NODES
    } else if has(&offsets::SLOTS_OF_BUFFERS) {
        settings::SLOTS_OF_BUFFERS
    } else {
        settings::SLOTS_UNTOLD
    }
}

/// By which PID namespace processes are numbered.
fn processes(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    let missing =
        |members: &[&'static str]| offsets::missing(types, members).map(|member| format!("BTF has no {member}"));
    let unnumbered = match &facts.pid_namespace {
        Ok(0) => None,
        Ok(namespace) => {
            plan.settings.kernel.pid_namespace = *namespace;
            missing(&offsets::NUMBERS)
        }
        Err(unknown) => Some(unknown.to_string()),
    };
    if let Some(reason) = missing(&offsets::BEGINNING) {
        plan.figures
            .narrow(&[Figure::Processes], &format!("those that had one number after each other are one: {reason}"));
    }
    let untold = unnumbered.clone().or_else(|| missing(&offsets::DESCENT)).filter(|_| wish.filters.descent);
    let untold = untold.or_else(|| unnumbered.clone().filter(|_| wish.filters.pid.is_some()));
    if let Some(reason) = untold {
        plan.errors.push(PlanError::Processes(reason));
    } else if let Some(reason) = unnumbered {
        plan.settings.kernel.pid_namespace = 0;
        plan.figures.narrow(&[Figure::ProcessNumbers], &format!("they are the initial PID namespace's: {reason}"));
    }
}

/// How the cgroup of a task is told.
fn cgroups(plan: &mut Plan, types: &Types, wish: &Wish) {
    let missing = offsets::missing_for_cgroups(types);
    plan.settings.kernel.cgroup_names = missing.is_none().into();
    let Some(controller) = wish.controller() else { return };
    let number = types.subsystems.get(controller).and_then(|number| u8::try_from(number + 1).ok());
    let reason = match (missing.or(offsets::missing(types, &offsets::CONTROLLER)), number) {
        (None, Some(number)) => {
            plan.settings.kernel.cgroup_subsystem = number;
            return;
        }
        (Some(member), _) => format!("BTF has no {member}"),
        (None, None) => format!("BTF has no number of the controller {controller}"),
    };
    plan.figures.lose(&[Figure::WorkloadsV1], &reason);
}

/// The pin whose arguments are the buffer's own range, and which nothing but a buffer reaches inside a registration.
const TELLING_PIN: &str = "io_pin_pages";

/// The pin that looks up the VMAs of every page (chosen up to 6.4 only).
const SLOW_PIN: &str = "pin_user_pages";

fn not_needed(plan: &mut Plan, role: Role) {
    if let Some(choice) = plan.choices.iter_mut().find(|choice| choice.role == role) {
        choice.chosen = Outcome::NotWanted;
        "the pin's entry tells the buffer's range, at half the cost".clone_into(&mut choice.why);
    }
}

/// Fills one role; `None` where nothing is to be hooked for it.
fn select_role(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish, role: &FunctionRole) -> Option<Selected> {
    if !detail::is_wanted(wish, role.role) {
        plan.chose(role.role, Outcome::NotWanted, "not asked for");
        return None;
    }
    if matches!(role.role, Role::Lookup | Role::Fault) && lost(plan, Role::Pin) {
        plan.chose(
            role.role,
            Outcome::Lost,
            format!("{}s are counted inside pins, and those are not hooked", role.role.name()),
        );
        return None;
    }
    if role.role == Role::Accounting && !types.offsets.contains_key(offsets::CHARGED_PAGES) {
        plan.chose(role.role, Outcome::NotApplicable, detail::NO_ACCOUNTING);
        return None;
    }
    if role.role == Role::Call
        && let Some(member) = offsets::missing(types, &offsets::CALL)
    {
        let reason = format!("BTF has no {member}");
        plan.figures.lose(role.figures, &reason);
        plan.chose(role.role, Outcome::Lost, reason);
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
            plan.figures.lose(role.figures, &reasons.join("; "));
            plan.errors.extend(selection.mismatches);
        }
    }
    plan.choices.push(choice);
    selection.selected
}

fn lost(plan: &Plan, role: Role) -> bool {
    plan.choices.iter().any(|choice| choice.role == role && choice.chosen == Outcome::Lost)
}

pub(super) fn walk(types: &Types) -> Walk {
    if let Some(member) = offsets::missing(types, &offsets::WALK) {
        Walk::None(format!("BTF has no {member}"))
    } else if ["find_vma", "loop"].iter().all(|&helper| types.helpers.contains(helper)) {
        Walk::FindVma
    } else {
        Walk::None("the kernel has no bpf_find_vma (since 5.17) to walk them by".to_owned())
    }
}

fn hook(plan: &mut Plan, wish: &Wish, role: &FunctionRole, selected: &Selected, walk: &Walk) {
    let kernel = &mut plan.settings.kernel;
    match selected.effect {
        Effect::ReturnsNode => kernel.buffer_returns_node = 1,
        Effect::Plain | Effect::Declined(_) => {}
    }
    let Some(mechanism) = plan.mechanism else {
        return;
    };
    let (enter, exit) = mechanism.kinds();
    let stands_for_buffer = role.role == Role::Pin && kernel.pin_is_buffer != 0;
    let variant = match (role.role, walk) {
        (Role::Buffer, Walk::None(_)) => "_plain",
        (Role::Pin, Walk::FindVma) if stands_for_buffer => "_buffer",
        _ => "",
    };
    let figures = if stands_for_buffer { table::PIN_AS_BUFFER } else { role.figures };
    let mut push = |program: String, kind| {
        let function = selected.function.to_owned();
        plan.hooks.push(Hook { role: role.role, program, function, kind, figures });
    };
    push(format!("{}_enter{variant}_{}", role.handler, enter.program()), enter);
    let is_registration = matches!(role.role, Role::Registration(_));
    if role.returns && (wish.registration_returns || !is_registration) {
        push(format!("{}_exit{variant}_{}", role.handler, exit.program()), exit);
    }
    if role.role == Role::Lookup && wish.phases {
        detail::time_lookups(plan, selected, exit);
    }
}

fn tracepoints(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    if tracepoint(plan, types, wish, &table::LEDGER, true) {
        match ledger_ret(types) {
            Ok(position) => {
                plan.settings.kernel.ledger = 1;
                plan.settings.kernel.ledger_ret = position;
                keep_from_preemption(plan, facts, types, wish, &table::LEDGER);
            }
            Err(error) => {
                plan.hooks.retain(|hook| hook.role != Role::Ledger);
                plan.figures.lose(table::LEDGER.figures, "the tracepoint io_uring_register has no argument `ret`");
                plan.errors.push(error);
            }
        }
    }
    if tracepoint(plan, types, wish, &table::RING, wish.ring) {
        keep_from_preemption(plan, facts, types, wish, &table::RING);
    }
    detail::locks(plan, types, wish);
}

/// The kernel whose raw tracepoints run their programs with preemption on: a program that is preempted is skipped for
/// whoever comes next on that CPU.
const PREEMPTIBLE_TRACEPOINTS: (u32, u32) = (7, 0);

/// Makes a raw tracepoint a perf event where it could miss something.
fn keep_from_preemption(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish, role: &TracepointRole) {
    let Some(classic) = role.classic.filter(|_| facts.release.is_from(PREEMPTIBLE_TRACEPOINTS)) else { return };
    let obstacle = match &facts.ledger_event {
        _ if !offsets::event_is_known(types, &classic.event) => {
            Some("its perf event is not laid out as the probe reads it".to_owned())
        }
        Ok(true) => no_perf_events(facts),
        Ok(false) => Some("tracefs does not have it".to_owned()),
        Err(unknown) => Some(unknown.to_string()),
    };
    let by_return = if role.role == Role::Ledger { ledger_returns(plan.mechanism, types, wish) } else { Vec::new() };
    let choice = plan.choices.iter_mut().find(|choice| choice.role == role.role);
    let hook = plan.hooks.iter_mut().find(|hook| hook.role == role.role);
    let (Some(hook), Some(choice)) = (hook, choice) else { return };
    match obstacle {
        Some(obstacle) if !by_return.is_empty() => {
            choice.why = format!(
                "at the return of the system call: since 7.0 a raw tracepoint's program can be preempted, and a perf event is not to be had: {obstacle}"
            );
            // The ledger closes every call there; another program at the same return could come before it.
            plan.hooks
                .retain(|hook| hook.role != role.role && !(hook.role == Role::Call && hook.kind == Kind::MultiReturn));
            plan.hooks.extend(by_return);
        }
        None => {
            hook.kind = Kind::Tracepoint;
            classic.program.clone_into(&mut hook.program);
            choice.why = format!(
                "as a perf event: since 7.0 a raw tracepoint's program can be preempted and then misses {}",
                classic.misses
            );
        }
        Some(obstacle) => {
            choice.why = format!("as a raw tracepoint, which can miss {}", classic.misses);
            plan.figures.narrow(
                classic.figure.as_slice(),
                &format!(
                    "since 7.0 a raw tracepoint misses {}, and a perf event is not to be had: {obstacle}",
                    classic.misses
                ),
            );
        }
    }
}

/// The ledger by programs of kprobe.multi, where the plan has such.
fn ledger_returns(mechanism: Option<Mechanism>, types: &Types, wish: &Wish) -> Vec<Hook> {
    let avoided = |function: &str| wish.avoid.iter().any(|name| name == function);
    if mechanism != Some(Mechanism::Multi)
        || !types.helpers.contains("task_pt_regs")
        || table::LEDGER_RETURNS.iter().any(|(function, _)| avoided(function))
    {
        return Vec::new();
    }
    let known = |function: &str| {
        let forms = types.functions.get(function);
        forms.is_some_and(|forms| forms.iter().any(|form| form.to_string() == table::SYSTEM_CALL))
    };
    let hooks = table::LEDGER_RETURNS.into_iter().filter(|(function, _)| known(function));
    let hook = |(function, program): (&str, &str)| Hook {
        role: Role::Ledger,
        program: program.to_owned(),
        function: function.to_owned(),
        kind: Kind::MultiReturn,
        figures: table::LEDGER.figures,
    };
    hooks.map(hook).collect()
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

pub(super) fn mismatch(function: &str, found: &str, relied_on: &str) -> PlanError {
    PlanError::Prototype {
        function: function.to_owned(),
        found: found.to_owned(),
        relied_on: vec![relied_on.to_owned()],
    }
}

/// Plans a raw tracepoint; whether it is hooked.
pub(super) fn tracepoint(plan: &mut Plan, types: &Types, wish: &Wish, role: &TracepointRole, wanted: bool) -> bool {
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
        plan.figures.lose(role.figures, &format!("tracepoint {}: {reason}", role.tracepoint));
        plan.chose(role.role, Outcome::Lost, reason);
        return false;
    }
    plan.chose(role.role, Outcome::Hooked(role.tracepoint.to_owned()), "its arguments are those relied on");
    plan.hooks.push(Hook {
        role: role.role,
        program: role.program.to_owned(),
        function: role.tracepoint.to_owned(),
        kind: Kind::RawTracepoint,
        figures: role.figures,
    });
    true
}

/// The rule that this kernel itself is under. The prototype of `pin_user_pages` tells which side of 6.5 it is on, whatever
/// its version says; the width of a buffer's length on which side of 7.2.
fn policy(types: &Types) -> (Option<Policy>, String) {
    let found = types.functions.get("pin_user_pages").map(|prototypes| prototypes.iter().map(|p| p.parameters.len()));
    match found.and_then(|mut counts| counts.next()) {
        Some(5) => (
            Some(Policy::SingleSource),
            "pin_user_pages gives VMAs: before 6.5; 6.3, 6.4 and stable kernels since February 2023 want one source"
                .to_owned(),
        ),
        Some(4) if offsets::length_is_untold(types) => (None, "BTF has no io_mapped_ubuf.len".to_owned()),
        Some(4) if offsets::has_wide_length(types) == Some(true) => {
            (Some(Policy::Since72), "a buffer's length has eight bytes (io_mapped_ubuf.len): 7.2 or later".to_owned())
        }
        Some(4) => (Some(Policy::Since65), "pin_user_pages gives no VMAs: 6.5 or later".to_owned()),
        _ => (None, "the prototype of pin_user_pages is not known here".to_owned()),
    }
}

/// The slow pin brings in hugetlb's pages without a page fault; a walk tells which buffers have such.
fn note_huge_pages(plan: &mut Plan, walk: &Walk) {
    if let Walk::None(_) = walk
        && plan.settings.kernel.pin_is_slow != 0
    {
        plan.figures.lose(
            &[Figure::HugePageFaults],
            "before 6.5 the pin brings those in without one, and without VMAs it is not known which buffers have such",
        );
    }
}

fn note_the_walk(plan: &mut Plan, walk: &Walk, buffers: bool) {
    if let Walk::None(reason) = walk
        && buffers
    {
        plan.figures.lose(&[Figure::Vmas, Figure::Backings, Figure::Files], reason);
    }
}

/// What the programs leave out where BTF lacks a member, without a hook being lost.
fn note_members(plan: &mut Plan, facts: &Facts, types: &Types, walk: &Walk) {
    let missing = |members: &[&'static str]| offsets::missing(types, members);
    let kernel = &plan.settings.kernel;
    let slots =
        if types.offsets.contains_key(offsets::NODE) { &offsets::SLOTS_OF_NODES } else { &offsets::SLOTS_OF_BUFFERS };
    let untold_slots = kernel.slots == settings::SLOTS_UNTOLD;
    let walks = *walk == Walk::FindVma;
    // Before 6.8 there is none.
    let backing_files = facts.release.is_from(BACKING_FILES).then(|| missing(&offsets::BACKING_FILES)).flatten();
    let lost = [
        (Figure::Requests, missing(&offsets::REQUESTS)),
        (Figure::UnderWay, missing(&offsets::UNDER_WAY)),
        (Figure::UpdateKinds, missing(slots).filter(|_| untold_slots)),
        (Figure::FileNames, missing(&offsets::NAMES).filter(|_| walks)),
        (Figure::Overlays, missing(&offsets::PATHS).or(backing_files).filter(|_| walks)),
    ];
    for (figure, member) in lost {
        if let Some(member) = member {
            plan.figures.lose(&[figure], &format!("BTF has no {member}"));
        }
    }
    if plan.policy.0.is_none() {
        let reason = plan.policy.1.clone();
        plan.figures.lose(&[Figure::KernelRule], &reason);
    }
}

/// The kernel since which overlayfs maps its files by a `backing_file`.
const BACKING_FILES: (u32, u32) = (6, 8);

/// A version alone refuses nothing; it explains what is missing.
fn too_old(plan: &mut Plan, facts: &Facts) {
    if facts.release.is_before(OLDEST) && lost(plan, Role::Registration(Operation::Register)) {
        plan.errors.insert(0, PlanError::TooOld(facts.release.text.clone()));
    }
}
