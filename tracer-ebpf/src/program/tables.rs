//! Which rings have a table of buffers now.
//!
//! A table is noted when a call that made it returns, or when the search finds it; what is in it is read from the kernel
//! when user space asks (`probe/table.rs`). A change of its slots is marked from its function's entry to its return, both
//! under the ring's `uring_lock`, so that a reader can tell that it read across one.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use tracer_ebpf::{operation::Operation, table::Table};

use crate::program::{
    cgroup, kernel,
    maps::{FOLLOWED, SEARCHING, TABLES, add_field},
    settings::setting,
};

/// A change of a ring's slots begins.
#[inline(always)]
pub fn changing(ring: u64) {
    if let Some(table) = TABLES.get_ptr_mut(ring) {
        // SAFETY: a value of the map, of plain integers.
        unsafe { (&raw mut (*table).changing).write_volatile(1) };
    }
}

/// A register, an update or a clone that ended.
#[inline(always)]
pub fn ended(ring: u64, operation: Operation, ret: i64) {
    if operation as u8 == Operation::Unregister as u8 {
        return;
    }
    // Of what an update was refused, some may be done.
    if ret >= 0 || operation as u8 != Operation::Register as u8 {
        changed(ring, u32::from(operation as u8 != Operation::Register as u8));
    }
}

/// Notes what a ring's table is now. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn changed(ring: u64, slots_only: u32) -> u32 {
    let slots = kernel::table(ring).0;
    let (mm, maker) = (kernel::mm(kernel::task()), maker(ring));
    let others = u32::from(mm != maker);
    if slots_only != 0
        && let Some(table) = TABLES.get_ptr_mut(ring)
        // SAFETY: a value of the map, of plain integers.
        && unsafe { (&raw const (*table).gone).read_volatile() } == 0
    {
        // SAFETY: a value of the map, of plain integers; the ring's lock keeps other writers away.
        unsafe {
            let changes = (&raw const (*table).changes).read_volatile();
            (&raw mut (*table).slots).write_volatile(slots);
            (&raw mut (*table).changes).write_volatile(changes.wrapping_add(1));
            if others != 0 {
                (&raw mut (*table).others).write_volatile(others);
            }
            (&raw mut (*table).changing).write_volatile(0);
        }
        return 0;
    }
    if slots != 0 {
        let cgroup = if setting!(session.workloads) != 0 { cgroup::current() } else { 0 };
        put(ring, slots, mm, cgroup, others, 0);
    }
    0
}

/// A ring that the search came upon, in a file or an index of this task.
#[inline(always)]
pub fn found(ring: u64, task: u64) {
    let slots = kernel::table(ring).0;
    if slots == 0 {
        return;
    }
    let cgroup = if setting!(session.workloads) != 0 { cgroup::of(task) } else { 0 };
    put(ring, slots, maker(ring), cgroup, 0, BPF_NOEXIST.into());
}

/// Whose memory the kernel charges for a ring's buffers: that of its maker.
#[inline(always)]
fn maker(ring: u64) -> u64 {
    kernel::read(ring, setting!(offset.ring_mm)).unwrap_or(0)
}

#[inline(always)]
fn put(ring: u64, slots: u64, mm: u64, cgroup: u64, others: u32, flags: u64) {
    // SAFETY: takes nothing, cannot fail.
    let made_ns = unsafe { bpf_ktime_get_ns() };
    let table = Table { made_ns, slots, mm, cgroup, others, ..Table::default() };
    if TABLES.insert(ring, table, flags).is_err()
        && TABLES.get_ptr(ring).is_none()
        && let Some(followed) = FOLLOWED.get_ptr_mut(0)
    {
        add_field!(followed.lost, 1);
    }
}

/// Takes a table out of the map. A reader sees by the two counts whether any went while it read.
#[inline(always)]
pub fn remove(ring: u64) {
    let Some(followed) = FOLLOWED.get_ptr_mut(0) else { return };
    add_field!(followed.removing, 1);
    let _ = TABLES.remove(ring);
    add_field!(followed.removed, 1);
}

/// The kernel lets a ring's table go, if it has one: for its user, at the ring's end, or when it cleans up a registration
/// that failed, of which there is no table here.
#[inline(always)]
pub fn released(ring: u64) {
    let Some(searching) = SEARCHING.get_ptr(0) else { return };
    // SAFETY: a value of the map, an integer.
    if unsafe { searching.read_volatile() } != 0 {
        let _ = TABLES.insert(ring, Table { gone: 1, ..Table::default() }, 0);
    } else if TABLES.get_ptr(ring).is_some() {
        remove(ring);
    }
}
