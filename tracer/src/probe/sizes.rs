//! How many entries maps get, and the names of maps that loading and reading share.

use aya::{
    Ebpf,
    maps::{HashMap, MapError},
};
use tracer_ebpf::{
    counter::RESULT_ROWS,
    histogram::Histogram,
    record::{COST_PAGES, COST_VMAS},
    workload::{REST, WorkloadTotals},
};

/// Arrays with entries for each CPU: their names, and how many.
pub const OF_CPUS: [(&str, usize); 8] = [
    (TOTALS, 1),
    (RESULTS, RESULT_ROWS),
    (DURATIONS, Histogram::DURATIONS),
    (SIZES, 1),
    (DETAILS, 1),
    (COSTS, COST_VMAS * COST_PAGES),
    (LARGEST, 2),
    (AUDIT_COUNTERS, 1),
];
pub const TOTALS: &str = "TOTALS";
pub const RESULTS: &str = "RESULTS";
pub const DURATIONS: &str = "DURATIONS";
pub const SIZES: &str = "SIZES";
pub const DETAILS: &str = "DETAILS";
pub const COSTS: &str = "COSTS";
pub const LARGEST: &str = "LARGEST";
pub const AUDIT_COUNTERS: &str = "AUDIT_COUNTERS";

/// The map's name.
pub const WORKLOADS: &str = "WORKLOADS";
/// That of the map for cgroups that find no room in it.
pub const OWNERS: &str = "OWNERS";
/// That of the map of the cgroups' paths.
pub const PATHS: &str = "CGROUPS";

/// A value of the first two.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Counted(pub WorkloadTotals);

// SAFETY: `repr(transparent)` over integers, for which every bit pattern is a value.
unsafe impl aya::Pod for Counted {}

/// How many entries the map is to have so that `cap` workloads find room beside those that are gone and not yet read.
const fn entries(cap: u32) -> u32 {
    if cap < 256 { 1024 } else { cap.saturating_mul(4) }
}

/// How many entries each map is to have; `None` where nothing is counted by cgroup.
pub fn of_workloads(cap: Option<u32>) -> [(&'static str, u32); 3] {
    let (cgroups, owners) = cap.map_or((1, 1), |cap| (entries(cap), OWNER_ENTRIES));
    [(WORKLOADS, cgroups), (OWNERS, owners), (PATHS, cgroups.saturating_add(owners))]
}

const OWNER_ENTRIES: u32 = tracer_ebpf::workload::OWNERS as u32;

/// Makes the entry for calls whose cgroup finds no room; before any program runs.
///
/// # Errors
/// The kernel refuses.
pub fn prepare(ebpf: &mut Ebpf) -> Result<(), MapError> {
    let map = ebpf.map_mut(WORKLOADS).ok_or(MapError::ElementNotFound)?;
    HashMap::<_, u64, Counted>::try_from(map)?.insert(REST, Counted(WorkloadTotals::ZERO), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_more_than_have_series() {
        assert_eq!((entries(1), entries(200), entries(256), entries(1000)), (1024, 1024, 1024, 4000));
    }
}
