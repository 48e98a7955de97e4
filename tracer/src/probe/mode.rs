//! How hooks attach on this kernel: through trampolines (fentry/fexit), fprobe (kprobe.multi) or kprobes, and what stands in
//! the way.

use crate::kernel::{Facts, Lockdown, Traceable, Trial, symbols};

/// What the user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// What misses nothing, and of that what costs least. Where the kernel does not preempt: fentry/fexit, else kprobes. A
    /// kretprobe loses returns when many registrations sleep at once, costs more, and wants CAP_SYS_ADMIN on Debian. Where
    /// it preempts, a trampoline's programs are skipped: there kprobe.multi, else kprobes, else fentry/fexit.
    #[default]
    Auto,
    /// Programs of kprobe.multi.
    Multi,
    /// Kprobes and kretprobes.
    Kprobe,
    /// fentry and fexit.
    Fentry,
}

/// How all function hooks of a plan attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Programs of kprobe.multi, called by fprobe.
    Multi,
    /// Kprobes and kretprobes.
    Kprobe,
    /// fentry and fexit.
    Fentry,
}

impl Mechanism {
    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multi => "kprobe.multi",
            Self::Kprobe => "kprobe",
            Self::Fentry => "fentry",
        }
    }
}

/// Why hooks of a kind cannot attach, in one clause each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// `None` where fentry and fexit can.
    pub fentry: Option<String>,
    /// `None` where kprobes can.
    pub kprobe: Option<String>,
    /// `None` where programs of kprobe.multi can.
    pub multi: Option<String>,
}

impl Obstacles {
    /// What the facts say about each kind. Missing privileges are no obstacle here: they can be granted.
    pub fn of(facts: &Facts) -> Self {
        Self { fentry: no_trampolines(facts), kprobe: no_kprobes(facts), multi: no_multi(facts) }
    }

    /// The mechanism that the wish leads to; `None` where it cannot be had.
    pub fn choose(&self, wish: AttachMode, preempted: bool, perf_events: bool) -> Option<Mechanism> {
        let fentry = self.fentry.is_none().then_some(Mechanism::Fentry);
        let kprobe = self.kprobe.is_none().then_some(Mechanism::Kprobe);
        let multi = self.multi.is_none().then_some(Mechanism::Multi);
        match wish {
            AttachMode::Auto if preempted => {
                let permitted = kprobe.filter(|_| perf_events);
                multi.or(permitted).or(fentry).or(kprobe)
            }
            AttachMode::Auto => fentry.or(kprobe),
            AttachMode::Multi => multi,
            AttachMode::Kprobe => kprobe,
            AttachMode::Fentry => fentry,
        }
    }
}

/// What an attachment made now would do no good by, and harm when it goes.
fn ftrace_off(facts: &Facts) -> Option<String> {
    facts
        .switches
        .ftrace_off
        .then(|| "kernel.ftrace_enabled is 0: hooks would attach and never fire; set it to 1".to_owned())
}

fn no_trampolines(facts: &Facts) -> Option<String> {
    if let Some(off) = ftrace_off(facts) {
        return Some(off);
    }
    if facts.symbols.as_ref().is_ok_and(|symbols| !symbols.has(symbols::TRAMPOLINES)) {
        return Some("the kernel has no BPF trampolines".to_owned());
    }
    if facts.traceable == Traceable::NoFtrace {
        return Some("the kernel is built without function tracing".to_owned());
    }
    match &facts.fentry {
        Trial::Works | Trial::NotTried => None,
        Trial::Absent => Some("the kernel has no fentry programs".to_owned()),
        // Without the privilege a refusal says nothing about the kernel.
        Trial::Refused(_) if !bpf_and_perfmon(facts) => None,
        Trial::Refused(error) if let Some(limit) = small_memlock(facts) => Some(format!(
            "a fentry program was refused ({error}), as before 5.11 it is where memlock is small: {} KiB here, raise it (ulimit -l)",
            limit / 1024
        )),
        Trial::Refused(error) => Some(format!("the system refuses fentry programs whatever the privileges ({error})")),
    }
}

fn no_kprobes(facts: &Facts) -> Option<String> {
    if let Some(off) = ftrace_off(facts) {
        return Some(off);
    }
    if facts.switches.kprobes_off {
        return Some("kprobes/enabled in debugfs is 0: kprobes would attach and never fire; write 1 to it".to_owned());
    }
    match &facts.kprobe_pmu {
        Ok(true) => None,
        Ok(false) => Some("the kernel has no kprobes".to_owned()),
        Err(unknown) => Some(format!("it cannot be told whether the kernel has kprobes ({unknown})")),
    }
}

fn no_multi(facts: &Facts) -> Option<String> {
    if let Some(off) = ftrace_off(facts) {
        return Some(off);
    }
    match &facts.multi {
        Trial::Works | Trial::NotTried => None,
        Trial::Absent => Some("the kernel has no links of kprobe.multi (since 5.18, with CONFIG_FPROBE)".to_owned()),
        // As for fentry.
        Trial::Refused(_) if !bpf_and_perfmon(facts) => None,
        Trial::Refused(error) => Some(format!("the system refuses programs of kprobe.multi ({error})")),
    }
}

fn bpf_and_perfmon(facts: &Facts) -> bool {
    facts.privileges.may("CAP_BPF") && facts.privileges.may("CAP_PERFMON")
}

/// A right that the process lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The capability.
    pub capability: &'static str,
    /// What cannot be done without it.
    pub cost: String,
    /// Whether nothing can be measured without it.
    pub fatal: bool,
}

/// What the process lacks to attach by `mechanism`.
pub fn missing_privileges(facts: &Facts, mechanism: Option<Mechanism>) -> Vec<Missing> {
    let own = &facts.privileges;
    let mut missing = Vec::new();
    // None of them would do.
    if own.user_namespace {
        return missing;
    }
    if !own.may("CAP_BPF") {
        missing.push(fatal("CAP_BPF", "no BPF program can be loaded"));
    }
    if !own.may("CAP_PERFMON") {
        missing.push(fatal("CAP_PERFMON", "no tracing program can be loaded or attached"));
    }
    if mechanism == Some(Mechanism::Kprobe)
        && let Some(level) = paranoid_level(facts)
    {
        missing.push(fatal(
            "CAP_SYS_ADMIN",
            format!("kprobes are refused while kernel.perf_event_paranoid is {level} (above 2)"),
        ));
    }
    if let Some(limit) = small_memlock(facts) {
        let cost = format!(
            "the limit of {} KiB (ulimit -l), which BPF maps are charged to before 5.11, cannot be raised",
            limit / 1024
        );
        missing.push(Missing { capability: "CAP_SYS_RESOURCE", cost, fatal: false });
    }
    missing
}

/// The limit that BPF programs and maps are charged to before 5.11, where it is too small and cannot be raised.
fn small_memlock(facts: &Facts) -> Option<u64> {
    let charged = facts.mentions(symbols::MEMLOCK);
    let own = &facts.privileges;
    own.memlock.filter(|&limit| charged && limit < MEMLOCK_WANTED && !own.holds("CAP_SYS_RESOURCE"))
}

/// The level of `kernel.perf_event_paranoid` that keeps this process from perf events: Debian and Ubuntu add levels
/// above 2, where `perf_event_open` wants CAP_SYS_ADMIN.
fn paranoid_level(facts: &Facts) -> Option<i32> {
    let level = facts.privileges.perf_event_paranoid.as_ref().copied().unwrap_or_default();
    (level > 2 && !facts.privileges.holds("CAP_SYS_ADMIN")).then_some(level)
}

/// Why programs cannot attach through perf events, in one clause.
pub fn no_perf_events(facts: &Facts) -> Option<String> {
    let level = paranoid_level(facts)?;
    Some(format!("without CAP_SYS_ADMIN they are refused while kernel.perf_event_paranoid is {level} (above 2)"))
}

/// Bytes of `RLIMIT_MEMLOCK` that all maps fit in with room to spare: per-CPU maps on a machine of 100 CPUs.
pub const MEMLOCK_WANTED: u64 = 64 << 20;

fn fatal(capability: &'static str, cost: impl Into<String>) -> Missing {
    Missing { capability, cost: cost.into(), fatal: true }
}

/// Whether lockdown keeps BPF from reading the kernel's memory.
pub fn locked_down(facts: &Facts) -> bool {
    facts.privileges.lockdown == Ok(Lockdown::Confidentiality)
}
