//! A session: facts, plan, attached probes, and what they count from the moment all of them were there.

mod audit;
mod capabilities;
pub mod command;
mod daemon;
mod end;
mod followed;
mod log;
mod report;
mod setup;
mod starting;
mod trace;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::Ebpf;
use tracer_ebpf::operation::Operation;

use self::followed::{ByWorkload, Tables};
pub use self::{audit::audit, daemon::daemon, report::report, trace::trace};
use crate::{
    aggregate::{
        self, Snapshot,
        registered::{Registered, Shares},
        workloads::{WorkloadFigures, Workloads},
    },
    answer::{Context, Hook, Origin},
    bpf::clock::KernelClock,
    cli::{args, config, config::Scope},
    decode::{Capabilities, Clock},
    figure::Figure,
    kernel::{Facts, Sources, Wanted},
    memory,
    probe::{
        attach, descriptors,
        health::{self, Health, HookState},
        mode::Mechanism,
        plan::{self, Filters, Plan, PlanError, Verdict, Wish},
        progress::{Progress, Step},
        table,
    },
    sample::{Sample, SelfUsage},
    sink::Meta,
    source::{
        maps::{self, Maps},
        probes::Probes,
        runs::Statistics,
        tables,
    },
};

/// By then most calls that were under way have ended.
const SETTLES: Duration = Duration::from_millis(20);

/// Probes at work.
pub struct Session {
    /// What is attached, or why nothing is.
    attached: Result<Probes, String>,
    plan: Plan,
    health: Health,
    capabilities: Capabilities,
    release: String,
    /// What was counted while the probes were being attached: not this session's.
    baseline: Sample,
    /// When it started, as the outputs say it.
    started: Option<String>,
    begun: Instant,
    /// Tells the records' times; `None` where the kernel does not let it be compared.
    kernel_clock: Option<KernelClock>,
    /// When this process began: by two clocks, which one look at gives one answer.
    began_seconds: Option<f64>,
    /// Where workloads are kept apart.
    workloads: Option<Mutex<ByWorkload>>,
    /// Where what is registered is followed.
    tables: Option<Mutex<Tables>>,
}

impl Session {
    /// Inspects the kernel, plans, attaches. Fails with one line where nothing can be measured.
    pub fn start(wish: &Wish) -> Result<Self> {
        let session = Self::open(wish, &Progress::begin())?;
        match session.obstacle() {
            Some(why) => bail!("{why}"),
            None => Ok(session),
        }
    }

    /// The same, but where nothing can be measured the session is there and says why: [`Session::obstacle`].
    pub fn open(wish: &Wish, progress: &Progress) -> Result<Self> {
        let Opened { facts, plan, mut attached, results, .. } =
            Opened::by(&table::wanted(), |facts| plan::plan(facts, wish), wish, progress);
        let mut health = health::health(&plan, &results);
        if let Err(why) = &attached {
            health.fail(why);
        }
        if let Some(why) = attached.as_ref().ok().and_then(|attached| attached.under_way.as_ref().err()) {
            health.lose(Figure::UnderWay, why);
        }
        let kernel_clock = match attached.as_ref().map(|_| KernelClock::compare()) {
            Ok(Ok(clock)) => Some(clock),
            Ok(Err(error)) => {
                health.lose(Figure::UnderWay, &format!("the kernel's clock cannot be read: {error}"));
                None
            }
            Err(_) => None,
        };
        let mut capabilities = capabilities::capabilities(&plan, &results, &health, wish);
        let baseline = match &attached {
            Ok(attached) => maps::read(attached).context("cannot read the figures")?,
            Err(_) => Sample::default(),
        };
        let workloads = match (&mut attached, &wish.workloads) {
            (Ok(attached), Some((cap, hierarchy))) => {
                let source = ByWorkload::start(&attached.ebpf, attached.iterators.entries, hierarchy, *cap);
                Some(Mutex::new(source.context("cannot read the figures")?))
            }
            _ => None,
        };
        if let Ok(attached) = &mut attached {
            attached.count(true);
        }
        // After it: a table that is made behind the search's back must be one that the hooks note.
        let tables = match &mut attached {
            Ok(attached) if capabilities.tables => {
                let before = capabilities::tables_before(&results, &health);
                Some(Mutex::new(follow_tables(attached, &results, before, &mut capabilities)?))
            }
            _ => None,
        };
        let release = facts.release.text;
        let (begun, started) = (Instant::now(), wall_clock());
        let began_seconds = SelfUsage::read().map(|own| own.started_seconds);
        Ok(Self {
            attached,
            plan,
            health,
            capabilities,
            release,
            baseline,
            started,
            begun,
            kernel_clock,
            began_seconds,
            workloads,
            tables,
        })
    }

    /// Why nothing is measured; `None` where something is.
    pub fn obstacle(&self) -> Option<&str> {
        self.attached.as_ref().err().map(String::as_str)
    }

    /// The programs and maps; an error where there are none.
    fn ebpf(&self) -> Result<&Ebpf> {
        self.attached.as_ref().map(|attached| &attached.ebpf).map_err(|why| anyhow!("{why}"))
    }

    fn maps(&self) -> Result<&Maps> {
        self.attached.as_ref().map(|attached| &attached.maps).map_err(|why| anyhow!("{why}"))
    }

    fn ebpf_mut(&mut self) -> Result<&mut Ebpf> {
        self.attached.as_mut().map(|attached| &mut attached.ebpf).map_err(|why| anyhow!("{why}"))
    }

    /// Counts no further calls, and waits a moment for those under way: what moves cannot be read as of one moment.
    pub fn stop_counting(&mut self) -> Result<()> {
        let Ok(attached) = &mut self.attached else { return Ok(()) };
        attached.count(false);
        std::thread::sleep(SETTLES);
        Ok(())
    }

    /// What was counted since the session started; nothing where nothing is attached.
    pub fn sample(&self) -> Result<Sample> {
        let Ok(attached) = &self.attached else { return Ok(Sample::default()) };
        let mut now = maps::read(attached).context("cannot read the figures")?.since(&self.baseline);
        now.now_ns = self.kernel_clock.map(|clock| nanoseconds(clock.now()));
        now.elapsed_ns = nanoseconds(self.begun.elapsed());
        Ok(now)
    }

    /// How the records' times are said now: the wall clock may be set, and the machine sleep.
    fn clock(&self) -> Clock {
        self.kernel_clock.map_or_else(Clock::default, |clock| Clock::new(SystemTime::now(), clock.now()))
    }

    /// The same, folded.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(aggregate::fold(&self.sample()?, &self.capabilities))
    }

    fn read_workloads(&self, source: &Mutex<ByWorkload>, shares: Option<&Shares>) -> Result<Workloads> {
        // A reading that panicked left what it had: the next goes on from there.
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        source
            .read(nanoseconds(self.begun.elapsed()), WorkloadFigures::of(&self.capabilities.figures), shares)
            .context("cannot read the figures")
    }

    fn read_tables(&self, source: &Mutex<Tables>, sample: &Sample) -> Result<Registered> {
        let ends = sample.skipped.iter().filter(|(program, _)| program.starts_with(table::RELEASES));
        let skipped = ends.map(|(_, runs)| *runs).reduce(u64::saturating_add);
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        source.read(self.ebpf()?, skipped).context("cannot read the figures")
    }

    /// The same with what a service says of itself.
    pub fn service_snapshot(&self, statistics: &Statistics) -> Result<Snapshot> {
        let own = SelfUsage::read()
            .map(|own| SelfUsage { started_seconds: self.began_seconds.unwrap_or(own.started_seconds), ..own });
        let runs = self.attached.as_ref().map(|attached| statistics.read(attached.programs())).unwrap_or_default();
        let sample = Sample { runs, own, ..self.sample()? };
        let registered = self.tables.as_ref().map(|source| self.read_tables(source, &sample)).transpose()?;
        let shares = registered.as_ref().map(|registered| &registered.cgroups);
        let workloads = self.workloads.as_ref().map(|source| self.read_workloads(source, shares)).transpose()?;
        let workloads = workloads.filter(|_| self.capabilities.figures.missing(Figure::WorkloadsV1).is_none());
        let sample = Sample { registered, ..sample };
        Ok(Snapshot { workloads, ..aggregate::fold(&sample, &self.capabilities) })
    }

    /// What the outputs say about the session as a whole.
    pub fn meta(&self, scope: &Scope) -> Meta {
        Meta { started: self.started.clone(), ..meta(Origin::new(&self.release, self.mode()), scope) }
    }

    /// How the figures were made, as the answers to the questions say it.
    pub fn context(&self) -> Context {
        let attached = self.plan.hooks.iter().zip(&self.health.hooks);
        let attached = attached.filter(|(_, health)| health.state == HookState::Attached);
        let mut hooks: Vec<Hook> = Vec::new();
        for (hook, _) in attached {
            let hook = Hook { role: hook.role.name(), function: hook.function.clone() };
            // Entry and return are two programs.
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
        Context {
            origin: Origin::new(&self.release, self.mode()),
            hooks,
            coalesces: self.plan.settings.kernel.folio_shift != 0,
            clones: self.plan.has(table::Role::Registration(Operation::Clone)),
        }
    }

    /// `fentry` or `kprobe`; `none` where nothing is attached.
    pub fn mode(&self) -> &'static str {
        self.plan.mechanism.filter(|_| self.attached.is_ok()).map_or("none", Mechanism::name)
    }
}

/// Looks for the tables that were there before, as far as it can. Where not `all` can be found, what is registered is a lower
/// bound.
fn follow_tables(
    attached: &mut Probes,
    results: &Results,
    mut all: bool,
    capabilities: &mut Capabilities,
) -> Result<Tables> {
    let loaded = |name: &str| results.iter().any(|(program, result)| program == name && result.is_ok());
    if let Err(why) = tables::search(&mut attached.ebpf, loaded) {
        all = false;
        capabilities.figures.narrow(&[Figure::RegisteredBefore], &why);
    }
    Tables::start(&attached.ebpf, attached.iterators.entries, all).context("cannot read the figures")
}

/// What became of each hook, by its program's name.
type Results = Vec<(String, Result<(), String>)>;

/// A plan that was carried out.
struct Opened {
    facts: Facts,
    plan: Plan,
    /// What is attached, or why nothing is.
    attached: Result<Probes, String>,
    results: Results,
    /// Nothing is attached, and more facts could change neither that nor the words for it.
    settled: bool,
}

impl Opened {
    /// Plans by a glance at the kernel and attaches. Where something cannot be hooked so, the rest of the facts may say why,
    /// or that something else can be: it begins anew with all of them.
    fn by(wanted: &Wanted<'_>, plan: impl Fn(&Facts) -> Plan, wish: &Wish, progress: &Progress) -> Self {
        let sources = Sources::default();
        progress.step(Step::Kernel);
        let first = Self::with(Facts::glance(&sources, wanted), &plan, wish, progress);
        if first.settled || is_whole(&first.plan, first.attached.is_ok(), &first.results) {
            return first;
        }
        progress.step(Step::WholeKernel);
        // What was made goes first: it may be what the kernel has no room for.
        let facts = first.facts.clone();
        drop(first);
        Self::with(facts.completed(&sources, wanted), &plan, wish, progress)
    }

    /// The same by all facts from the start, where they matter: for a plan that says of a function that the kernel has none.
    fn by_all(wanted: &Wanted<'_>, plan: impl Fn(&Facts) -> Plan, wish: &Wish, progress: &Progress) -> Self {
        let sources = Sources::default();
        progress.step(Step::Kernel);
        let glance = Facts::glance(&sources, wanted);
        let facts = if plan(&glance).is_settled() { glance } else { glance.completed(&sources, wanted) };
        Self::with(facts, &plan, wish, progress)
    }

    fn with(facts: Facts, plan: &impl Fn(&Facts) -> Plan, wish: &Wish, progress: &Progress) -> Self {
        let plan = plan(&facts);
        // What reading the facts took is not wanted for loading; the most that a start takes is what a limit on it must allow.
        memory::give_back();
        let few = descriptors::too_few(&plan);
        let settled = plan.is_settled() || few.is_some();
        let (attached, results) = match few {
            Some(why) => (Err(why), Vec::new()),
            None => attach_plan(&facts, &plan, wish, progress),
        };
        Self { facts, plan, attached, results, settled }
    }
}

/// Whether more facts could change nothing: all that was planned is attached, and nothing stands in the way.
fn is_whole(plan: &Plan, attached: bool, results: &Results) -> bool {
    attached && plan.errors.is_empty() && results.iter().all(|(_, result)| result.is_ok())
}

/// Attaches what the plan says: what is attached, or why nothing is; and what became of each hook.
fn attach_plan(facts: &Facts, plan: &Plan, wish: &Wish, progress: &Progress) -> (Result<Probes, String>, Results) {
    let types = match &facts.types {
        Ok(types) if plan.verdict() != Verdict::Nothing => types,
        _ => {
            return (
                Err(format!("cannot {} here: {}", if wish.audit { "audit" } else { "trace" }, fatal(plan))),
                Vec::new(),
            );
        }
    };
    let attached = attach::attach(plan, types, wish, progress).map_err(|error| error.to_string());
    let opened =
        attached.and_then(|attached| Probes::open(attached, wish.processes).map_err(|error| error.to_string()));
    match opened {
        Ok(attached) => {
            let results = attached.results.clone();
            if results.iter().any(|(_, result)| result.is_ok()) {
                (Ok(attached), results)
            } else {
                (Err(format!("no probe could be attached: {}", first_failure(&attached))), results)
            }
        }
        Err(why) => {
            let results = plan.hooks.iter().map(|hook| (hook.program.clone(), Err(why.clone()))).collect();
            (Err(why), results)
        }
    }
}

/// The facts and the plan for a report, the plan as it turned out: everything is attached and let go again. Whatever would keep
/// a session from it keeps this from it, known to the facts or not.
///
/// # Errors
/// Signals cannot be listened for.
pub fn tried(probes: &args::Probes) -> Result<(Facts, Plan)> {
    let wish = Wish { processes: true, ..config::wish(probes, true, &Filters::default()) };
    starting::begin([libc::SIGINT, libc::SIGTERM])?;
    let progress = Progress::begin();
    progress.step(Step::Kernel);
    let facts = Facts::gather(&Sources::default(), &table::wanted());
    let mut plan = plan::plan(&facts, &wish);
    if plan.verdict() != Verdict::Nothing {
        let (attached, results) = match descriptors::too_few(&plan) {
            Some(why) => (Err(why), Vec::new()),
            None => attach_plan(&facts, &plan, &wish, &progress),
        };
        match attached {
            Ok(_) => plan.figures = health::health(&plan, &results).figures,
            Err(why) => plan.errors.push(PlanError::Tried(why)),
        }
    }
    Ok((facts, plan))
}

/// What the outputs say of any session.
fn meta(origin: Origin, scope: &Scope) -> Meta {
    Meta {
        origin,
        scope: scope.shown(),
        command: scope.command.as_ref().map(|argv| {
            let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
            words.join(" ")
        }),
        ..Meta::default()
    }
}

/// All that stands in the way, in one line.
fn fatal(plan: &Plan) -> String {
    let fatal: Vec<_> = plan.errors.iter().filter(|error| error.is_fatal()).map(PlanError::to_string).collect();
    if fatal.is_empty() {
        "nothing on this kernel can be hooked; see pinscope doctor".to_owned()
    } else {
        fatal.join("; ")
    }
}

fn first_failure(attached: &attach::Attached) -> String {
    let failure = attached.results.iter().find_map(|(program, result)| Some((program, result.as_ref().err()?)));
    failure.map_or_else(|| "the plan is empty".to_owned(), |(program, error)| format!("{program}: {error}"))
}

/// Now, as the outputs say it.
fn wall_clock() -> Option<String> {
    Clock::new(SystemTime::now(), Duration::ZERO).rfc3339(0)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Traceable, Trial, Unknown, fixture};

    /// As [`Facts::glance`] has them.
    fn at_a_glance(facts: Facts) -> Facts {
        Facts {
            symbols: Err(Unknown(unread())),
            traceable: Traceable::Unknown(unread()),
            fentry: Trial::NotTried,
            ..facts
        }
    }

    #[test]
    fn a_glance_leads_to_the_same_hooks_on_every_kernel() {
        for facts in fixture::all() {
            let whole = plan::plan(&facts, &Wish::default());
            let release = facts.release.text.clone();
            let quick = plan::plan(&at_a_glance(facts), &Wish::default());
            assert_eq!((quick.hooks, quick.ring_exits), (whole.hooks, whole.ring_exits), "{release}");
            assert_eq!(quick.settings, whole.settings, "{release}");
        }
    }

    #[test]
    fn who_can_trace_nothing_whatever_the_kernel_has_does_not_wait_to_hear_more() {
        let settled = |change: fn(&mut Facts)| {
            let mut facts = at_a_glance(fixture::debian_6_12());
            change(&mut facts);
            plan::plan(&facts, &Wish::default()).is_settled()
        };
        assert!(settled(|facts| facts.types = Err(Unknown(unread()))));
        assert!(settled(|facts| facts.privileges.user_namespace = true));
        assert!(settled(|facts| facts.privileges.capabilities = Ok([].into())));
        assert!(!settled(|_| ()));
        // What keeps functions from being hooked may be more than a glance shows.
        assert!(!settled(|facts| facts.switches.ftrace_off = true));
    }

    fn unread() -> String {
        "not read".to_owned()
    }

    #[test]
    fn what_does_not_attach_or_stands_in_the_way_asks_for_another_look() {
        let facts = fixture::debian_6_12();
        let plan = plan::plan(&facts, &Wish::default());
        let ok = || vec![("ledger".to_owned(), Ok(()))];
        assert!(is_whole(&plan, true, &ok()));
        assert!(!is_whole(&plan, false, &ok()));
        assert!(!is_whole(&plan, true, &[ok(), vec![("pin".to_owned(), Err("no".to_owned()))]].concat()));
        let mut hindered = plan;
        hindered.errors.push(PlanError::Lockdown);
        assert!(!is_whole(&hindered, true, &ok()));
    }
}
