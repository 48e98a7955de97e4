//! What was read of cgroups at one moment.

use tracer_ebpf::workload::WorkloadTotals;

use crate::decode::workload::Workload;

/// What was read of one cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The kernel's id.
    pub id: u64,
    /// What it counted.
    pub totals: WorkloadTotals,
    /// The workload, where its path is known. Looked at until it was known once.
    pub workload: Option<Workload>,
    /// Its folder is no longer there.
    pub gone: bool,
}
