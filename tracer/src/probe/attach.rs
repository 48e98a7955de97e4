//! Loads the eBPF object and attaches what the plan says: the one file that touches aya's programs.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{FEntry, FExit, Iter, KProbe, Program, ProgramError, RawTracePoint, TracePoint},
};
use aya_obj::btf::{BtfType, Func, FuncLinkage};
use rustix::process::{Resource, Rlimit};
use tracer_ebpf::settings::{Features, Settings};

use super::{
    constants, descriptors, loader,
    mode::MEMLOCK_WANTED,
    multi,
    object::{self, ObjectError},
    offsets,
    plan::{Hook, Kind, Plan, Wish},
    progress::{Progress, Step},
    sizes,
    table::{CLASSIC_GROUP, Role, SEARCHES, UNDER_WAY},
    tracefs,
};
use crate::{
    bpf::{
        MAP_ENTRIES, Place, TASKS, fdinfo,
        mapped::{self, Mapped},
        read::ReadError,
    },
    kernel::{self, Sources, Types},
    memory,
};

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
    /// Maps or object refused as a whole.
    #[error("the kernel refused the eBPF object: {0}")]
    Load(String),
    /// A map could not be filled.
    #[error("the kernel refused to fill the eBPF map {0}: {1}")]
    Fill(&'static str, String),
    /// The maps are not to be read.
    #[error(transparent)]
    Maps(#[from] ReadError),
    /// A kernel before 5.9, or one that was built without them.
    #[error("this kernel has no iterators over the entries of eBPF maps ({MAP_ENTRIES}, since 5.9)")]
    NoIterators,
    /// How many entries maps need is not known.
    #[error("cannot tell how many CPUs are possible: {0}")]
    Cpus(io::Error),
}

/// What the kernel's iterators are made by: numbers of functions among its types.
#[derive(Clone, Copy, Debug)]
pub struct Iterators {
    /// Of [`crate::bpf::MAP_ENTRIES`].
    pub entries: u32,
    /// Of [`crate::bpf::TASKS`], where it shows all tasks.
    pub tasks: Option<u32>,
}

/// What became of each hook, by its program's name.
pub type Results = Vec<(String, Result<(), String>)>;

/// Programs in the kernel. Dropping it detaches them.
pub struct Attached {
    /// The loaded object.
    pub ebpf: Ebpf,
    /// Its programs of kprobe.multi.
    multi: Vec<multi::Program>,
    /// By which the maps that they count in are read.
    pub iterators: Iterators,
    counting: Mapped,
    /// For each hook of the plan, by the program's name, whether it is attached, and if not, why.
    pub results: Results,
    /// Why calls under way cannot be told, if so.
    pub under_way: Result<(), String>,
}

/// The map that lets calls be counted.
const COUNTING: &str = "COUNTING";

impl Attached {
    /// From now on calls are counted, or not any more; those under way that are counted are so to their end.
    pub fn count(&self, counting: bool) {
        self.counting.set(u64::from(counting));
    }

    /// The programs that are loaded.
    pub fn programs(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        let library = self.ebpf.programs().filter_map(|(name, program)| Some((name, program.fd().ok()?.as_fd())));
        library.chain(self.multi.iter().map(|program| (program.name.as_str(), program.fd())))
    }
}

/// Loads the object and attaches the plan's hooks. A hook that fails is no error here: `results` has it.
pub fn attach(plan: &Plan, types: &Types, wish: &Wish, progress: &Progress) -> Result<Attached, AttachError> {
    progress.step(Step::Object);
    if plan.legacy_frames {
        raise_memlock();
    }
    let object = object_for(plan, wish)?;
    let mut ebpf = load(plan, wish, &object)?;
    if wish.workloads.is_some() {
        sizes::prepare(&mut ebpf).map_err(|error| AttachError::Fill(sizes::WORKLOADS, chain(&error)))?;
    }
    let iterators = Iterators {
        entries: *types.ids.get(MAP_ENTRIES).ok_or(AttachError::NoIterators)?,
        // Of tasks it shows those of our own PID namespace.
        tasks: types.ids.get(TASKS).copied().filter(|_| plan.settings.kernel.pid_namespace == 0),
    };
    let counting = Mapped::writable(&ebpf, COUNTING)?;
    let multi = multi_loader(plan, &object, &ebpf);
    // The most that a start takes is when the types below are there; all that is done with goes before.
    drop(object);
    memory::give_back();
    let loader = Loader { types: abridged(plan, types), multi };
    let mut work = Work::new(plan, &mut ebpf);
    // All are loaded before the first is attached, so that the hooks of one registration come in within moments of each other.
    // The verifier checks as many at a time as there are CPUs.
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    progress.step(Step::Verify(plan.hooks.len()));
    work.each(|_| true, cpus, |hook, program| loader.load(hook, program));
    // An attachment is mostly waiting, until no CPU can be in the code that was changed: all of a wave wait at the same time.
    progress.step(Step::Attach(plan.hooks.len()));
    for wave in Wave::ALL {
        let chosen = |hook: &Hook| Wave::of(hook) == wave;
        work.each(chosen, plan.hooks.len(), |hook, program| attach_program(program, hook));
    }
    let (results, multi) = work.end();
    let under_way = load_under_way(&mut ebpf, plan, types);
    Ok(Attached { ebpf, multi, iterators, counting, results, under_way })
}

/// What is attached at the same time; each wave after the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wave {
    /// What fills and closes a registration, and does nothing where none is open; and the end of a table, which comes before
    /// all that could note one.
    Fills,
    /// Tracepoints, which count without an open registration too.
    Counts,
    /// What opens one: none is seen by half of the hooks.
    Opens,
}

impl Wave {
    const ALL: [Self; 3] = [Self::Fills, Self::Counts, Self::Opens];

    fn of(hook: &Hook) -> Self {
        match (hook.role, hook.kind) {
            (Role::Ledger, _) | (_, Kind::RawTracepoint | Kind::Tracepoint) => Self::Counts,
            (Role::Registration(_) | Role::Call | Role::Audit(_), Kind::Kprobe | Kind::Multi | Kind::Fentry) => {
                Self::Opens
            }
            _ => Self::Fills,
        }
    }
}

/// The hooks with their programs, and what became of them.
struct Work<'a> {
    items: Vec<Item<'a>>,
}

struct Item<'a> {
    hook: &'a Hook,
    program: Loadable<'a>,
    result: Result<(), String>,
}

/// A program of the object.
enum Loadable<'a> {
    /// That the library loads and attaches.
    Library(&'a mut Program),
    /// Of kprobe.multi, once it is loaded.
    Multi(Option<multi::Program>),
    /// The object has none of that name.
    Missing,
}

impl<'a> Work<'a> {
    fn new(plan: &'a Plan, ebpf: &'a mut Ebpf) -> Self {
        let mut programs: BTreeMap<String, &mut Program> =
            ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
        let items = plan.hooks.iter().map(|hook| {
            let program = match (hook.kind, programs.remove(&hook.program)) {
                (Kind::Multi | Kind::MultiReturn, _) => Loadable::Multi(None),
                (_, Some(program)) => Loadable::Library(program),
                (_, None) => Loadable::Missing,
            };
            Item { hook, program, result: Ok(()) }
        });
        Self { items: items.collect() }
    }

    /// Does it to each hook that is chosen and had no failure yet, by at most so many threads.
    fn each(
        &mut self,
        chosen: impl Fn(&Hook) -> bool,
        threads: usize,
        work: impl Fn(&Hook, &mut Loadable<'a>) -> Result<(), String> + Sync,
    ) {
        let items: Vec<_> = self.items.iter_mut().filter(|item| item.result.is_ok() && chosen(item.hook)).collect();
        let threads = threads.min(items.len());
        let queue = Mutex::new(items);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let go_on = || {
            while let Some(Item { hook, program, result }) = next() {
                *result = work(hook, program);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                // Where the system gives no more threads, those that there are do it all.
                if thread::Builder::new().spawn_scoped(scope, go_on).is_err() {
                    break;
                }
            }
            go_on();
        });
    }

    fn end(self) -> (Results, Vec<multi::Program>) {
        let mut multi = Vec::new();
        let results = self.items.into_iter().map(|item| {
            if let Loadable::Multi(Some(program)) = item.program {
                multi.push(program);
            }
            (item.hook.program.clone(), item.result)
        });
        (results.collect(), multi)
    }
}

/// The kernel's types as the library asks for them: the functions of trampolines and iterators, each under its own id. Whole they are
/// some 120,000 types, which it would keep, and look through for each program.
fn abridged(plan: &Plan, types: &Types) -> Btf {
    let trampolines = plan.hooks.iter().filter(|hook| matches!(hook.kind, Kind::Fentry | Kind::Fexit | Kind::Iterator));
    let functions: BTreeMap<u32, &str> =
        trampolines.filter_map(|hook| types.ids.get(&hook.function).map(|&id| (id, hook.function.as_str()))).collect();
    let mut btf = Btf::new();
    // Id 0 is there.
    let mut next = 1;
    for (id, function) in functions {
        for _ in next..id {
            btf.add_type(BtfType::Unknown);
        }
        let name = btf.add_string(function);
        btf.add_type(BtfType::Func(Func::new(name, 0, FuncLinkage::Static)));
        next = id + 1;
    }
    btf
}

/// Whether the plan hooks where a call begins.
fn opens(plan: &Plan) -> bool {
    plan.hooks.iter().any(|hook| matches!(hook.role, Role::Registration(_) | Role::Call))
}

/// Loads the program that tells whether a call is under way still. It runs when it is asked to.
fn load_under_way(ebpf: &mut Ebpf, plan: &Plan, types: &Types) -> Result<(), String> {
    if !opens(plan) {
        return Ok(());
    }
    if let Some(member) = offsets::missing(types, &offsets::UNDER_WAY) {
        return Err(format!("BTF has no {member}"));
    }
    let program = ebpf.program_mut(UNDER_WAY).ok_or_else(|| missing(UNDER_WAY))?;
    typed::<RawTracePoint>(program).and_then(RawTracePoint::load).map_err(|error| explain(UNDER_WAY, &error))?;
    note_verified(UNDER_WAY, || program.info().ok()?.verified_instruction_count().map(u64::from));
    Ok(())
}

fn object_for(plan: &Plan, wish: &Wish) -> Result<Vec<u8>, ObjectError> {
    let hooks = plan.hooks.iter().map(|hook| hook.program.as_str());
    let programs: Vec<_> = hooks.chain(opens(plan).then_some(UNDER_WAY)).collect();
    let lines = tracing::enabled!(tracing::Level::DEBUG);
    let mut object = object::object(object::Wanted { legacy: plan.legacy_frames, programs: &programs, lines })?;
    let features = Features { page_shift: kernel::page_size().trailing_zeros() as u8, ..plan.settings.kernel };
    let settings = Settings { kernel: features, session: wish.session(), ..plan.settings };
    constants::put(&mut object, &settings)?;
    Ok(object)
}

/// Loads all kinds of programs.
struct Loader {
    /// The kernel's, of the hooked functions.
    types: Btf,
    /// `None` where no hook is of kprobe.multi.
    multi: Option<Result<multi::Loader, String>>,
}

fn multi_loader(plan: &Plan, object: &[u8], ebpf: &Ebpf) -> Option<Result<multi::Loader, String>> {
    let wanted = plan.hooks.iter().any(|hook| matches!(hook.kind, Kind::Multi | Kind::MultiReturn));
    wanted.then(|| multi::Loader::new(object, ebpf))
}

impl Loader {
    fn load(&self, hook: &Hook, program: &mut Loadable<'_>) -> Result<(), String> {
        match program {
            Loadable::Library(program) => load_program(program, hook, &self.types),
            Loadable::Multi(program) => {
                let loader = self.multi.as_ref().ok_or_else(|| missing(&hook.program))?.as_ref()?;
                let checked = loader.load(&hook.program)?;
                note_verified(&hook.program, || fdinfo::count(checked.fd(), "verified_insns"));
                *program = Some(checked);
                Ok(())
            }
            Loadable::Missing => Err(missing(&hook.program)),
        }
    }
}

fn note_verified(program: &str, count: impl Fn() -> Option<u64>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        // Known since 5.16.
        let count = count().map_or_else(String::new, |count| format!(": {count} instructions"));
        tracing::debug!("verified: {program}{count}");
    }
}

fn load(plan: &Plan, wish: &Wish, object: &[u8]) -> Result<Ebpf, AttachError> {
    let mut loader = loader::without_types();
    loader.allow_unsupported_maps();
    loader.override_global("AYA_LOG_LEVEL", &wish.log_level, true);
    if plan.legacy_frames {
        loader.map_max_entries("FRAMES", HASH_FRAMES);
    }
    if !wish.records {
        loader.map_max_entries("RECORDS", NO_RECORDS);
    } else if wish.ring_bytes != 0 {
        loader.map_max_entries("RECORDS", wish.ring_bytes);
    }
    if wish.log_level == 0 {
        loader.map_max_entries("AYA_LOGS", NO_RECORDS);
    }
    let cpus = mapped::cpus().map_err(AttachError::Cpus)?;
    for (map, entries) in sizes::OF_CPUS {
        loader.map_max_entries(map, cpus.saturating_mul(entries as u32));
    }
    if !wish.processes {
        for map in OF_PROCESSES {
            loader.map_max_entries(map, 1);
        }
    }
    if !wish.ring && !wish.records {
        loader.map_max_entries("RINGS", 1);
    }
    if !wish.tables {
        loader.map_max_entries("TABLES", 1);
    }
    let cap = wish.workloads.as_ref().map(|(cap, _)| *cap);
    for (map, entries) in sizes::of_workloads(cap) {
        loader.map_max_entries(map, entries);
    }
    if !wish.audit {
        for map in ["AUDIT", "STACKS"] {
            loader.map_max_entries(map, 1);
        }
    }
    loader.load(object).map_err(|error| AttachError::Load(chain(&error) + &hints(plan)))
}

/// Before 5.11 maps are charged to `RLIMIT_MEMLOCK`. Where it cannot be raised, creating them says so.
fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = rustix::process::setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

/// What the kernel's errno does not say of a load that was refused.
fn hints(plan: &Plan) -> String {
    let filter = kernel::seccomp(&Sources::default()).map(|filter| format!("; {filter}"));
    memlock_hint(plan) + &filter.unwrap_or_default()
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

fn load_program(program: &mut Program, hook: &Hook, btf: &Btf) -> Result<(), String> {
    let loaded = match hook.kind {
        Kind::Kprobe | Kind::Kretprobe => typed::<KProbe>(program).and_then(KProbe::load),
        Kind::Fentry => typed::<FEntry>(program).and_then(|program| program.load(&hook.function, btf)),
        Kind::Fexit => typed::<FExit>(program).and_then(|program| program.load(&hook.function, btf)),
        Kind::RawTracepoint | Kind::Call => typed::<RawTracePoint>(program).and_then(RawTracePoint::load),
        Kind::Iterator => typed::<Iter>(program).and_then(|program| program.load(target(hook), btf)),
        Kind::Tracepoint => typed::<TracePoint>(program).and_then(TracePoint::load),
        Kind::Multi | Kind::MultiReturn => return Err(missing(&hook.program)),
    };
    loaded.map_err(|error| explain(&hook.program, &error))?;
    note_verified(&hook.program, || program.info().ok()?.verified_instruction_count().map(u64::from));
    Ok(())
}

fn attach_program(program: &mut Loadable<'_>, hook: &Hook) -> Result<(), String> {
    let program = match program {
        Loadable::Library(program) => program,
        Loadable::Multi(Some(program)) => {
            let place = if hook.kind == Kind::Multi { Place::Entry } else { Place::Return };
            return program.attach(&hook.function, place);
        }
        Loadable::Multi(None) | Loadable::Missing => return Err(missing(&hook.program)),
    };
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
        // These run when they are asked to.
        Kind::Iterator | Kind::Call => return Ok(()),
        Kind::Multi | Kind::MultiReturn => return Err(missing(&hook.program)),
    };
    attached.map_err(|error| explain(&hook.program, &error))
}

fn attach_tracepoint(program: &mut Program, hook: &Hook) -> Result<(), String> {
    let mut attach = || {
        let program = typed::<TracePoint>(program)?;
        program.attach(CLASSIC_GROUP, &hook.function).map(drop)
    };
    tracefs::mounted(&mut attach)?.map_err(|error| explain(&hook.program, &error))
}

/// The name of an iterator, to which the library gives that of the function.
fn target(hook: &Hook) -> &'static str {
    SEARCHES.iter().find(|search| search.function == hook.function).map_or("", |search| search.target)
}

fn typed<'a, T>(program: &'a mut Program) -> Result<&'a mut T, ProgramError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    program.try_into()
}

pub(super) fn missing(program: &str) -> String {
    format!("the eBPF object has no program {program}")
}

/// One line for the user; the verifier's log, which runs to pages, goes to the debug log.
fn explain(program: &str, error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => refused(program, io_error, verifier_log),
        _ => chain(error),
    }
}

/// The verifier's refusal in one line.
pub(super) fn refused(program: &str, error: &io::Error, log: impl Display) -> String {
    tracing::debug!("{program}: {error}\n{log}");
    // The verifier has no part in these.
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EPERM | libc::EAGAIN | libc::EINTR) => {
            let hint = descriptors::hint(error).map(|hint| format!(": {hint}"));
            format!("the kernel did not load it ({error}){}", hint.unwrap_or_default())
        }
        _ => format!("the verifier refused it ({error}; -vv shows its log)"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::fixture, probe::plan};

    #[test]
    fn what_notes_comes_after_what_lets_go_and_what_opens_comes_last() {
        let plan = plan::plan(&fixture::debian_6_12(), &Wish::default());
        let of = |program: &str| plan.hooks.iter().find(|hook| hook.program == program).map(Wave::of).expect(program);
        for program in ["release_enter_fentry", "register_exit_fexit", "buffer_enter_fentry", "pin_exit_fexit"] {
            assert_eq!(of(program), Wave::Fills, "{program}");
        }
        assert_eq!([of("ledger"), of("ring_created")], [Wave::Counts; 2]);
        for program in ["register_enter_fentry", "update_enter_fentry", "clone_enter_fentry", "unregister_enter_fentry"]
        {
            assert_eq!(of(program), Wave::Opens, "{program}");
        }
    }

    #[test]
    fn a_limit_is_not_blamed_on_the_verifier() {
        let refused = |error| refused("ledger", &io::Error::from_raw_os_error(error), "");
        assert!(refused(libc::EINVAL).contains("verifier") && refused(libc::EACCES).contains("verifier"));
        for (error, hint) in [(libc::EMFILE, "ulimit -n"), (libc::ENFILE, "fs.file-max"), (libc::ENOMEM, "memory")] {
            let words = refused(error);
            assert!(!words.contains("verifier") && words.contains(hint), "{words}");
        }
    }

    #[test]
    fn the_library_finds_each_function_under_its_own_id() {
        let facts = fixture::debian_6_12();
        let plan = plan::plan(&facts, &Wish::default());
        let mut types = facts.types.expect("types");
        types.ids = (100..).step_by(7).zip(types.functions.keys()).map(|(id, name)| (name.clone(), id)).collect();
        let btf = abridged(&plan, &types);
        for hook in plan.hooks.iter().filter(|hook| matches!(hook.kind, Kind::Fentry | Kind::Fexit)) {
            let id = btf.id_by_type_name_kind(&hook.function, aya_obj::btf::BtfKind::Func).expect("an id");
            assert_eq!(Some(&id), types.ids.get(&hook.function), "{}", hook.function);
        }
    }
}
