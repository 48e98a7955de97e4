//! What stands in the way of a plan, one line each.

use std::fmt;

use crate::kernel::{NOT_MOUNTED, btf::NO_MEMORY};
use crate::probe::mode::{AttachMode, Missing, Obstacles};

/// The oldest kernel that the probes are tested on.
pub const OLDEST: (u32, u32) = (5, 10);

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
    /// No capability that is held in a user namespace lets a program be loaded.
    UserNamespace,
    /// All that was planned was tried, and nothing is attached; why.
    Tried(String),
    /// Which processes are asked for cannot be told, and why.
    Processes(String),
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
            Self::NoTypes(_)
            | Self::TooOld(_)
            | Self::NoMechanism(..)
            | Self::Lockdown
            | Self::UserNamespace
            | Self::Tried(_)
            | Self::Processes(_) => true,
            Self::Privilege(missing) => missing.fatal,
            Self::Prototype { .. } => false,
        }
    }
}

impl PlanError {
    /// Whether nothing can be measured, and neither kallsyms nor the traceable functions could say more about it.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::NoTypes(_) | Self::Lockdown | Self::UserNamespace | Self::Processes(_) => true,
            Self::Privilege(missing) => missing.fatal,
            Self::TooOld(_) | Self::NoMechanism(..) | Self::Tried(_) | Self::Prototype { .. } => false,
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTypes(reason) if reason.ends_with(NO_MEMORY) => {
                write!(f, "no kernel BTF ({reason}): raise the limit of its memory, or free some")
            }
            Self::NoTypes(reason) if reason.ends_with(NOT_MOUNTED) => write!(f, "no kernel BTF ({reason}): mount it"),
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
            Self::UserNamespace => write!(
                f,
                "this is a user namespace, and capabilities held in one load no BPF program; run pinscope in the initial one"
            ),
            Self::Tried(why) => write!(f, "it was tried, and failed: {why}"),
            Self::Processes(reason) => write!(
                f,
                "processes cannot be told apart as this PID namespace numbers them ({reason}); trace without --pid and command, or from the host"
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
    let multi = obstacles.multi.as_deref().unwrap_or("possible");
    match wish {
        AttachMode::Auto => write!(f, "no function can be hooked here: fentry: {fentry}; kprobe: {kprobe}")?,
        AttachMode::Multi => write!(f, "--attach kprobe.multi: {multi}")?,
        AttachMode::Fentry => write!(f, "--attach fentry: {fentry}")?,
        AttachMode::Kprobe => write!(f, "--attach kprobe: {kprobe}")?,
    }
    match (wish, &obstacles.fentry, &obstacles.kprobe) {
        (AttachMode::Fentry, _, None) => write!(f, "; take --attach kprobe"),
        (AttachMode::Kprobe | AttachMode::Multi, None, _) => write!(f, "; take --attach fentry"),
        _ => write!(f, "; it takes a kernel that allows either (CONFIG_FUNCTION_TRACER or CONFIG_KPROBE_EVENTS)"),
    }
}
