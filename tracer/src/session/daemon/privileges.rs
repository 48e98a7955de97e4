//! Capabilities are for attaching. Once the probes are there they go, as far as the kernel lets the maps be read without.
//!
//! bpf(2) was for CAP_BPF as a whole before 5.19, where `kernel.unprivileged_bpf_disabled` is set: there even a look-up in
//! a map that is open takes it. That is found out by trying.

use std::fs;

use caps::{CapSet, Capability, CapsHashSet};

/// What became of the capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There were none.
    HadNone,
    /// All are gone.
    Dropped,
    /// These are still there, since the figures cannot be read without, and what the kernel said.
    Kept(Vec<String>, String),
    /// It could not be done.
    Failed(String),
}

/// Drops what this thread can do without. Threads that it starts later have no more than it has then.
///
/// `read` is what the service will do from now on.
pub fn drop_unneeded(read: impl Fn() -> anyhow::Result<()>) -> Outcome {
    match try_without(&read) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn try_without(read: &impl Fn() -> anyhow::Result<()>) -> Result<Outcome, caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    if permitted.is_empty() {
        return Ok(Outcome::HadNone);
    }
    empty_bounding_set(&permitted)?;
    caps::clear(None, CapSet::Effective)?;
    let Err(refusal) = read() else {
        keep(&CapsHashSet::new())?;
        return Ok(Outcome::Dropped);
    };
    let bpf: CapsHashSet = permitted.intersection(&[Capability::CAP_BPF].into()).copied().collect();
    caps::set(None, CapSet::Effective, &bpf)?;
    let kept = if !bpf.is_empty() && read().is_ok() { bpf } else { permitted };
    keep(&kept)?;
    let mut names: Vec<_> = kept.iter().map(Capability::to_string).collect();
    names.sort();
    Ok(Outcome::Kept(names, format!("{refusal:#}")))
}

/// Nothing that is executed from here may get any again. Only CAP_SETPCAP may do that; without it there is no way to get
/// one either, since systemd's `NoNewPrivileges` is set here too.
fn empty_bounding_set(permitted: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::debug!("no_new_privs stays as it is: {error}");
    }
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    Ok(())
}

/// Leaves these and no others, for good.
fn keep(capabilities: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, capabilities)?;
    caps::set(None, CapSet::Permitted, capabilities)?;
    caps::clear(None, CapSet::Inheritable)
}

/// Threads of this process that hold any capability: they are a thread's own, and not the process's.
pub fn threads_that_hold_any() -> usize {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ids = threads.filter_map(|thread| thread.file_name().to_str()?.parse::<i32>().ok());
    ids.filter(|id| caps::read(Some(*id), CapSet::Permitted).is_ok_and(|held| !held.is_empty())).count()
}

/// Says what became of them.
pub fn log(outcome: &Outcome) {
    match outcome {
        Outcome::HadNone => {}
        Outcome::Dropped => tracing::info!("all capabilities are dropped"),
        Outcome::Kept(names, why) => {
            tracing::info!("{} stays: without it the figures cannot be read here ({why})", names.join(", "));
        }
        Outcome::Failed(error) => tracing::warn!("the capabilities could not be dropped: {error}"),
    }
    let holders = threads_that_hold_any();
    if *outcome == Outcome::Dropped && holders > 0 {
        tracing::warn!("{holders} threads of the daemon still hold capabilities");
    }
}
