//! Where a registration's time goes, in the parts that the kernel has functions for. All of them have other callers
//! (every page fault of the machine passes the first), so sessions ask for them and the daemon does not.
//!
//! ```c
//! vm_fault_t handle_mm_fault(struct vm_area_struct *, unsigned long address, unsigned int flags, struct pt_regs *);
//! int io_account_mem(struct user_struct *, struct mm_struct *, unsigned long nr_pages);    // since 6.19
//! int io_account_mem(struct io_ring_ctx *, unsigned long nr_pages);                        // since 6.16
//! int __io_account_mem(struct user_struct *, unsigned long nr_pages);                      // inlined in 5.10
//! ```
//!
//! Faults and look-ups (`lookup.rs`) are counted inside pins, the accounting beside them: the parts do not overlap, and
//! what is in none of them is the rest.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{
    detail::Detail,
    record::{Frame, Stage, Times, flag},
};

use super::{entry, exit, lock};
use crate::program::{frame, maps::Details, settings::setting, zero::zero};

entry!(fault_enter_kprobe, fault_enter_fentry, |_context| fault_entered());
exit!(fault_exit_kretprobe, fault_exit_fexit, || fault_returned());
entry!(accounting_enter_kprobe, accounting_enter_fentry, |_context| accounting_entered());
exit!(accounting_exit_kretprobe, accounting_exit_fexit, || accounting_returned());

/// A part was entered. One that is still open lost its return.
#[inline(always)]
pub fn begin(since: &mut u64, missed: &mut u32) {
    if *since != 0 {
        *missed += 1;
    }
    // SAFETY: takes nothing, cannot fail.
    *since = unsafe { bpf_ktime_get_ns() };
}

/// A part returned. One that was never entered lost its entry.
#[inline(always)]
fn finish(now: u64, since: &mut u64, sum: &mut u64, calls: &mut u32, missed: &mut u32) {
    if *since == 0 {
        *missed += 1;
        return;
    }
    *sum += now - *since;
    *calls += 1;
    *since = 0;
}

#[inline(always)]
fn in_pin() -> Option<&'static mut Frame> {
    frame::current().filter(|frame| frame.stage == Stage::Pin as u32)
}

#[inline(always)]
fn fault_entered() {
    let Some(frame) = in_pin() else { return };
    begin(&mut frame.times.fault_ns, &mut frame.times.missed);
}

#[inline(always)]
fn fault_returned() {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = in_pin() else { return };
    let times = &mut frame.times;
    finish(now, &mut times.fault_ns, &mut frame.registration.fault_ns, &mut times.faults, &mut times.missed);
}

#[inline(always)]
pub fn lookup_returned() {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = in_pin() else { return };
    let times = &mut frame.times;
    finish(now, &mut times.lookup_ns, &mut frame.registration.lookup_ns, &mut times.lookups, &mut times.missed);
}

#[inline(always)]
fn beside_pin() -> Option<&'static mut Frame> {
    frame::current().filter(|frame| lock::is_inside(frame) && frame.stage != Stage::Pin as u32)
}

#[inline(always)]
fn accounting_entered() {
    let Some(frame) = beside_pin() else { return };
    begin(&mut frame.times.accounting_ns, &mut frame.times.missed);
}

#[inline(always)]
fn accounting_returned() {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = beside_pin() else { return };
    let times = &mut frame.times;
    let sum = &mut frame.registration.accounting_ns;
    finish(now, &mut times.accounting_ns, sum, &mut times.accountings, &mut times.missed);
}

/// At a registration's entry.
#[inline(always)]
pub fn clear(times: &mut Times) {
    zero!(times.fault_ns, times.lookup_ns, times.accounting_ns, times.slow_ns);
    zero!(times.slow_pins, times.faults, times.lookups, times.accountings, times.missed);
}

/// At a pin's entry.
#[inline(always)]
pub fn pin_begins(frame: &mut Frame) {
    if setting!(session.phases) != 0 {
        frame.times.lookups_before = frame.registration.lookups;
        zero!(frame.times.fault_ns, frame.times.lookup_ns);
    }
}

/// At a pin's return. A pin that looked up a VMA took the slow path, at least for its last pages.
#[inline(always)]
pub fn pin_ends(frame: &mut Frame, pin_ns: u64) {
    if setting!(session.phases) == 0 {
        return;
    }
    let times = &mut frame.times;
    if times.fault_ns | times.lookup_ns != 0 {
        times.missed += 1;
        zero!(times.fault_ns, times.lookup_ns);
    }
    if setting!(kernel.pin_is_slow) != 0 || frame.registration.lookups != times.lookups_before {
        times.slow_pins += 1;
        times.slow_ns += pin_ns;
    }
}

/// A registration that ended.
#[inline(always)]
pub fn end(frame: &Frame) {
    if setting!(session.phases) == 0 || !lock::is_counted(frame) {
        return;
    }
    let Some(details) = Details::get() else { return };
    let (registration, times) = (&frame.registration, &frame.times);
    if times.missed != 0 {
        details.add(Detail::PartMissed, times.missed.into());
    }
    if registration.flags & flag::PARTS_MISSED != 0 {
        return details.add(Detail::PartLeftOut, 1);
    }
    details.add(Detail::PartRegistrations, 1);
    let in_parts = registration.fault_ns + registration.lookup_ns;
    details.add(Detail::PartPinOtherNs, registration.pin_ns.saturating_sub(in_parts));
    let in_parts = registration.pin_ns + registration.accounting_ns;
    details.add(Detail::PartRestOtherNs, registration.duration_ns.saturating_sub(in_parts));
    details.add(Detail::PartPins, frame.counts.pin_returns.into());
    details.add(Detail::PartFaults, times.faults.into());
    details.add(Detail::PartFaultNs, registration.fault_ns);
    details.add(Detail::PartLookups, times.lookups.into());
    details.add(Detail::PartLookupNs, registration.lookup_ns);
    details.add(Detail::PartAccountings, times.accountings.into());
    details.add(Detail::PartAccountingNs, registration.accounting_ns);
    details.add(Detail::PartSlowPins, times.slow_pins.into());
    details.add(Detail::PartSlowNs, times.slow_ns);
}
