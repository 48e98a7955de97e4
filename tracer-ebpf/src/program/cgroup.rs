//! Counts calls by cgroup, for the service's figures by workload, and notes a cgroup's path when it is first seen: it may
//! be gone when somebody asks.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_ebpf::{
    histogram,
    installation::Installation,
    operation::Operation,
    policy::Traits,
    record::{Frame, RegistrationRecord, flag},
    workload::{self, OWNER, REFUSED, REST, SLOTS, Slot, WorkloadTotals},
};

use crate::program::{
    kernel,
    maps::{BLANK_CGROUP, CGROUPS, OWNERS, WORKLOADS, add},
    outcome::installs,
    settings::setting,
    slots,
};

/// What is counted of the current task's cgroup.
struct Totals(*mut u64);

impl Totals {
    /// `None` never happens: [`REST`] is there from the start.
    #[inline(always)]
    fn of_current() -> Option<Self> {
        let id = current();
        let found = WORKLOADS.get_ptr_mut(id).or_else(|| {
            first_seen(id);
            WORKLOADS.get_ptr_mut(id)
        });
        let found = found.or_else(|| OWNERS.get_ptr_mut(owner()));
        found.or_else(|| WORKLOADS.get_ptr_mut(REST)).map(|entry| Self(entry.cast()))
    }

    #[inline(always)]
    fn add(&self, slot: Slot, value: u64) {
        self.add_slot(slot as usize, value);
    }

    #[inline(always)]
    fn add_slot(&self, slot: usize, value: u64) {
        add(self.0.wrapping_add(slot & (SLOTS - 1)), value);
    }

    #[inline(always)]
    fn faults(&self, registration: &RegistrationRecord) {
        if registration.minor_faults | registration.major_faults != 0 {
            self.add(Slot::MinorFaults, registration.minor_faults);
            self.add(Slot::MajorFaults, registration.major_faults);
        }
    }

    #[inline(always)]
    fn duration(&self, nanoseconds: u64, bucket: usize) {
        self.add_slot(workload::duration_slot(bucket), 1);
        self.add(Slot::DurationSum, nanoseconds);
    }
}

/// The kernel's id of the current task's cgroup: in the default hierarchy, or where that holds no processes in the one of a
/// controller of version 1.
#[inline(always)]
pub fn current() -> u64 {
    if setting!(kernel.cgroup_subsystem) != 0 {
        kernel::cgroup_node(kernel::current_task()).and_then(kernel::node_id).unwrap_or(REST)
    } else {
        kernel::cgroup_id()
    }
}

/// The same of any task; its cgroup's entries are made, so that it is known though it calls nothing.
#[inline(always)]
pub fn of(task: u64) -> u64 {
    let node = if setting!(kernel.cgroup_names) != 0 { kernel::cgroup_node(task) } else { None };
    let Some((node, id)) = node.and_then(|node| Some((node, kernel::node_id(node)?))) else { return REST };
    if WORKLOADS.get_ptr(id).is_none() {
        make(id, node);
    }
    id
}

/// Makes the entries of the current task's cgroup. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn first_seen(id: u64) -> u32 {
    let node = if setting!(kernel.cgroup_names) != 0 { kernel::cgroup_node(kernel::current_task()) } else { None };
    make(id, node.unwrap_or(0));
    0
}

/// Makes the entries of a cgroup.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would lie on the stack")]
fn make(id: u64, node: u64) {
    // Its own copy in the read-only data: it is large for a program's stack.
    static BLANK: WorkloadTotals = WorkloadTotals::ZERO;
    // Another CPU may have made it meanwhile; then this fails.
    let _ = WORKLOADS.insert(id, &BLANK, BPF_NOEXIST.into());
    if node == 0 || id == REST || WORKLOADS.get_ptr(id).is_none() {
        return;
    }
    note_path(id, node);
}

/// Notes the path of the cgroup with this `kernfs_node`.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would lie on the stack")]
fn note_path(key: u64, node: u64) {
    let Some(blank) = BLANK_CGROUP.get_ptr(0) else { return };
    // SAFETY: a value of the map, which nothing writes to.
    let _ = CGROUPS.insert(key, unsafe { &*blank }, BPF_NOEXIST.into());
    if let Some(entry) = CGROUPS.get_ptr_mut(key) {
        // SAFETY: a value of the map. Whoever else is here writes the same, and user space reads it when it is whole.
        kernel::cgroup_path(node, unsafe { &mut *entry });
    }
}

/// The key in [`OWNERS`] for the current task's cgroup, whose entry is made where there is none; [`REST`] where it has none.
/// A global function, as above.
#[unsafe(no_mangle)]
#[inline(never)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would lie on the stack")]
extern "C" fn owner() -> u64 {
    static BLANK: WorkloadTotals = WorkloadTotals::ZERO;
    if setting!(kernel.cgroup_names) == 0 {
        return REST;
    }
    let Some((node, id)) = kernel::cgroup_node(kernel::current_task()).and_then(kernel::second_level) else {
        return REST;
    };
    if OWNERS.get_ptr(id).is_none() && OWNERS.insert(id, &BLANK, BPF_NOEXIST.into()).is_ok() {
        note_path(id | OWNER, node);
    }
    id
}

/// A call of which only the result is known.
#[inline(always)]
pub fn call(ret: i64) {
    let Some(totals) = Totals::of_current() else { return };
    totals.add(if ret < 0 { Slot::Failed } else { Slot::Succeeded }, 1);
}

/// A plain registration (see `fold`); `bucket` is its duration's.
#[inline(always)]
pub fn finish_fast(registration: &RegistrationRecord, bucket: usize, installation: Installation) {
    let Some(totals) = Totals::of_current() else { return };
    let used = registration.flags & flag::RING_USED != 0;
    totals.add_slot(Slot::Plain as usize + usize::from(used), 1);
    if used && installation.may_switch() {
        totals.add(Slot::Switches, 1);
    }
    totals.add(Slot::Bytes, registration.bytes);
    totals.add(Slot::PinNanoseconds, registration.pin_ns);
    totals.duration(registration.duration_ns, bucket);
    totals.faults(registration);
}

/// Any other one, its flags complete: what is counted is what the totals of the machine count.
#[inline(always)]
pub fn finish_full(frame: &Frame, operation: Operation) {
    let Some(totals) = Totals::of_current() else { return };
    let registration = &frame.registration;
    if registration.ret < 0 {
        totals.add(Slot::Failed, 1);
    } else {
        let partial = registration.flags & flag::PARTIAL != 0;
        totals.add(if partial { Slot::Partial } else { Slot::Succeeded }, 1);
        if installs(frame) {
            let used = registration.flags & flag::RING_USED != 0;
            totals.add(if used { Slot::AfterRequests } else { Slot::BeforeRequests }, 1);
            if used && slots::installation(frame, operation).may_switch() {
                totals.add(Slot::Switches, 1);
            }
        }
    }
    totals.duration(registration.duration_ns, histogram::index(registration.duration_ns));
    if registration.buffers == 0 {
        return;
    }
    totals.add(Slot::Buffers, registration.buffers.into());
    totals.add(Slot::Bytes, registration.registered);
    totals.add(Slot::RefusedBytes, registration.refused);
    if registration.flags & (flag::PINNED | flag::PARTS_MISSED) == flag::PINNED {
        totals.add(Slot::PinNanoseconds, registration.pin_ns);
    }
    if registration.flags & (flag::VMAS_PARTIAL | flag::VMAS_REPEATED) == 0 {
        totals.add_slot(workload::vma_slot(registration.vmas), 1);
        totals.add(Slot::VmasSum, registration.vmas);
    }
    totals.faults(registration);
}

/// Buffers with traits that a policy may refuse.
#[inline(always)]
pub fn judged(traits: Traits, buffers: u32) {
    let Some(totals) = Totals::of_current() else { return };
    for policy in REFUSED {
        if policy.is_sure_to_refuse(traits) {
            totals.add_slot(Slot::Refused as usize + policy as usize, buffers.into());
        }
    }
}
