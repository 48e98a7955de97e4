//! What every sink of the service is given besides a snapshot.

use std::sync::Arc;

use super::exports::Counts;
use crate::{aggregate::Snapshot, answer::Context, probe::health::Status};

/// Reads the maps and folds them: may block. Never called twice at once; requests that wait share what it returns.
pub type Read = Arc<dyn Fn() -> anyhow::Result<Snapshot> + Send + Sync>;

/// What a snapshot alone does not say about the service that serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What became of the plan, in one word.
    pub health: Status,
    /// The probes of the plan, attached or not.
    pub probes: Vec<Probe>,
    /// How the figures are made.
    pub context: Context,
    /// What became of the exports by OTLP, where there are any.
    pub exports: Option<Counts>,
}

/// One probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Name of the program in the eBPF object.
    pub program: String,
    /// The kernel's function, or the tracepoint.
    pub function: String,
    /// `fentry`, `fexit`, `kprobe`, `kretprobe` or `raw_tracepoint`.
    pub kind: String,
    /// Whether it is attached.
    pub attached: bool,
}
