//! Loads the eBPF object and attaches what the plan says: the one file that touches aya's programs.

use std::collections::HashMap;

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint, TracePoint},
};
use rustix::process::{Resource, Rlimit};
use tracer_ebpf::settings::{Session, Settings};

use super::{
    mode::MEMLOCK_WANTED,
    object::{self, ObjectError},
    plan::{Hook, Kind, Plan},
    table::{LEDGER_GROUP, Role},
    tracefs,
};
use crate::{kernel::Hierarchy, source::workloads};

/// Threads that can be in a registration at once where the frames are in a hash map (before 5.12).
const HASH_FRAMES: u32 = 4096;

/// Bytes of the ring buffer where no session asks for records.
const NO_RECORDS: u32 = 4096;

/// Maps that only a session that keeps processes apart fills.
const OF_PROCESSES: [&str; 5] = ["PROCESSES", "PAST_RINGS", "COSTS", "LARGEST", "SHARED_FILES"];

/// Nothing is attached, and why.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no object, or it is not as expected.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The kernel's own types.
    #[error("cannot read the kernel's types from /sys/kernel/btf/vmlinux: {0}")]
    Btf(#[from] aya::BtfError),
    /// Maps or object refused as a whole.
    #[error("the kernel refused the eBPF object: {0}")]
    Load(String),
    /// A map could not be filled.
    #[error("the kernel refused to fill the eBPF map {0}: {1}")]
    Fill(&'static str, String),
}

/// How many of the session's maps must be large.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the eBPF side is to do.
    pub session: Session,
    /// Thread group whose descendants are followed, itself among them; see [`Session::by_descent`].
    pub ancestor: Option<u32>,
    /// Bytes of the ring buffer, a power of two; 0 for the default.
    pub ring_bytes: u32,
    /// Level of the probes' own log, as `aya_log::Level`; 0 for off.
    pub log_level: u8,
    /// How many workloads to keep apart, and by which cgroups; with [`Session::workloads`].
    pub workloads: Option<(u32, Hierarchy)>,
    /// An audit: its maps are large, and those of registrations small.
    pub audit: bool,
}

/// Programs in the kernel. Dropping it detaches them.
pub struct Attached {
    /// The loaded object.
    pub ebpf: Ebpf,
    /// For each hook of the plan, by the program's name, whether it is attached, and if not, why.
    pub results: Vec<(String, Result<(), String>)>,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct SettingsPod(Settings);

// SAFETY: `repr(C)` over integers and arrays of them, without padding.
unsafe impl aya::Pod for SettingsPod {}

/// Loads the object and attaches the plan's hooks. A hook that fails is no error here: `results` has it.
pub fn attach(plan: &Plan, options: &Options) -> Result<Attached, AttachError> {
    if plan.legacy_frames {
        raise_memlock();
    }
    let mut ebpf = load(plan, options)?;
    if let Some(ancestor) = options.ancestor {
        follow(&mut ebpf, ancestor)?;
    }
    if options.workloads.is_some() {
        workloads::prepare(&mut ebpf).map_err(|error| AttachError::Fill(workloads::MAP, chain(&error)))?;
    }
    let btf = if plan.hooks.iter().any(|hook| matches!(hook.kind, Kind::Fentry | Kind::Fexit)) {
        Some(Btf::from_sys_fs()?)
    } else {
        None
    };
    let mut results = HashMap::new();
    // Loading takes the verifier a while, attaching does not: all are loaded first, so that the hooks of one
    // registration come in within moments of each other.
    for hook in &plan.hooks {
        results.insert(hook.program.as_str(), load_program(&mut ebpf, hook, btf.as_ref()));
    }
    for hook in in_order(plan) {
        if results.get(hook.program.as_str()).is_some_and(Result::is_ok) {
            results.insert(&hook.program, attach_program(&mut ebpf, hook));
        }
    }
    let results = plan
        .hooks
        .iter()
        .filter_map(|hook| results.remove(hook.program.as_str()).map(|result| (hook.program.clone(), result)))
        .collect();
    Ok(Attached { ebpf, results })
}

/// What closes comes before what opens: a registration that is under way while pinscope attaches is then not seen at
/// all by the hooks, instead of half. The end of a table comes before all that could note one.
fn in_order(plan: &Plan) -> impl Iterator<Item = &Hook> {
    let opens = |hook: &&Hook| matches!(hook.kind, Kind::Kprobe | Kind::Fentry) && hook.role != Role::Release;
    let releases = plan.hooks.iter().filter(|hook| hook.role == Role::Release);
    let closes = releases.chain(plan.hooks.iter().filter(move |hook| !opens(hook) && hook.role != Role::Release));
    // The call chain from its end: look-up, pin, buffer, registration.
    closes.chain(plan.hooks.iter().rev().filter(opens))
}

fn load(plan: &Plan, options: &Options) -> Result<Ebpf, AttachError> {
    let object = object::object(plan.legacy_frames)?;
    let settings = SettingsPod(Settings { session: options.session.complete(), ..plan.settings });
    let mut loader = EbpfLoader::new();
    // The object has no CO-RE relocations: the kernel's types need not be parsed for it.
    loader.btf(None).allow_unsupported_maps();
    loader.override_global("SETTINGS", &settings, true);
    loader.override_global("AYA_LOG_LEVEL", &options.log_level, true);
    if plan.legacy_frames {
        loader.map_max_entries("FRAMES", HASH_FRAMES);
    }
    if options.session.records == 0 {
        loader.map_max_entries("RECORDS", NO_RECORDS);
    } else if options.ring_bytes != 0 {
        loader.map_max_entries("RECORDS", options.ring_bytes);
    }
    if options.log_level == 0 {
        loader.map_max_entries("AYA_LOGS", NO_RECORDS);
    }
    if options.session.processes == 0 {
        for map in OF_PROCESSES {
            loader.map_max_entries(map, 1);
        }
    }
    if options.session.rings == 0 && options.session.records == 0 {
        loader.map_max_entries("RINGS", 1);
    }
    if options.session.tables == 0 {
        loader.map_max_entries("TABLES", 1);
    }
    let entries = options.workloads.as_ref().map_or(1, |(cap, _)| workloads::entries(*cap));
    for map in [workloads::MAP, workloads::PATHS] {
        loader.map_max_entries(map, entries);
    }
    if options.session.by_descent == 0 {
        loader.map_max_entries("DESCENDANTS", 1);
    }
    if !options.audit {
        for map in ["AUDIT", "STACKS"] {
            loader.map_max_entries(map, 1);
        }
    }
    loader.load(&object).map_err(|error| AttachError::Load(chain(&error) + &memlock_hint(plan)))
}

/// Before 5.11 maps are charged to `RLIMIT_MEMLOCK`. Where it cannot be raised, creating them says so.
fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

/// The limit itself answers EPERM, which says nothing.
fn memlock_hint(plan: &Plan) -> String {
    let limit = rustix::process::getrlimit(Resource::Memlock).current;
    match limit.filter(|limit| plan.legacy_frames && *limit < MEMLOCK_WANTED) {
        Some(limit) => format!(
            "; before 5.11 maps count against RLIMIT_MEMLOCK, here {} KiB: raise it (ulimit -l) or grant CAP_SYS_RESOURCE",
            limit / 1024
        ),
        None => String::new(),
    }
}

fn follow(ebpf: &mut Ebpf, ancestor: u32) -> Result<(), AttachError> {
    const NAME: &str = "DESCENDANTS";
    let map = ebpf.map_mut(NAME).ok_or(ObjectError::Unexpected("it has no map DESCENDANTS"))?;
    aya::maps::HashMap::<_, u32, u8>::try_from(map)
        .and_then(|mut map| map.insert(ancestor, 1, 0))
        .map_err(|error| AttachError::Fill(NAME, chain(&error)))
}

fn load_program(ebpf: &mut Ebpf, hook: &Hook, btf: Option<&Btf>) -> Result<(), String> {
    let program = ebpf.program_mut(&hook.program).ok_or_else(|| missing(&hook.program))?;
    let no_btf = || "the kernel's types are missing".to_owned();
    let loaded = match hook.kind {
        Kind::Kprobe | Kind::Kretprobe => typed::<KProbe>(program).and_then(KProbe::load),
        Kind::Fentry => {
            let btf = btf.ok_or_else(no_btf)?;
            typed::<FEntry>(program).and_then(|program| program.load(&hook.function, btf))
        }
        Kind::Fexit => {
            let btf = btf.ok_or_else(no_btf)?;
            typed::<FExit>(program).and_then(|program| program.load(&hook.function, btf))
        }
        Kind::RawTracepoint => typed::<RawTracePoint>(program).and_then(RawTracePoint::load),
        Kind::Tracepoint => typed::<TracePoint>(program).and_then(TracePoint::load),
    };
    loaded.map_err(|error| explain(&hook.program, &error))
}

fn attach_program(ebpf: &mut Ebpf, hook: &Hook) -> Result<(), String> {
    let program = ebpf.program_mut(&hook.program).ok_or_else(|| missing(&hook.program))?;
    let attached = match hook.kind {
        Kind::Kprobe | Kind::Kretprobe => {
            typed::<KProbe>(program).and_then(|program| program.attach(&hook.function, 0).map(drop))
        }
        Kind::Fentry => typed::<FEntry>(program).and_then(|program| program.attach().map(drop)),
        Kind::Fexit => typed::<FExit>(program).and_then(|program| program.attach().map(drop)),
        Kind::RawTracepoint => {
            typed::<RawTracePoint>(program).and_then(|program| program.attach(&hook.function).map(drop))
        }
        Kind::Tracepoint => return attach_tracepoint(program, hook),
    };
    attached.map_err(|error| explain(&hook.program, &error))
}

fn attach_tracepoint(program: &mut Program, hook: &Hook) -> Result<(), String> {
    let mut attach = || {
        let program = typed::<TracePoint>(program)?;
        program.attach(LEDGER_GROUP, &hook.function).map(drop)
    };
    tracefs::mounted(&mut attach)?.map_err(|error| explain(&hook.program, &error))
}

fn typed<'a, T>(program: &'a mut Program) -> Result<&'a mut T, ProgramError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    program.try_into()
}

fn missing(program: &str) -> String {
    format!("the eBPF object has no program {program}")
}

/// One line for the user; the verifier's log, which runs to pages, goes to the debug log.
fn explain(program: &str, error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        tracing::debug!("{program}: {io_error}\n{verifier_log}");
        return format!("the verifier refused it ({io_error}; -vv shows its log)");
    }
    chain(error)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
