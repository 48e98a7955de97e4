//! What is registered now, by ring.
//!
//! The kernel refuses to register where there is a table, so a register that succeeds tells all that is in it. An update
//! or a clone changes slots of which it is not known what was in them: from then on that table is not in the sums, but
//! counted as unknown until it is let go.

use tracer_ebpf::{
    operation::Operation,
    record::{Frame, flag},
    table::Table,
};

use crate::{
    fold,
    maps::{REGISTERED, TABLES, add, add_field},
};

/// A register, an update or a clone that ended.
#[inline(always)]
pub fn ended(frame: &Frame, operation: Operation, ret: i64) {
    let registration = &frame.registration;
    if ret < 0 {
        return;
    }
    let whole = operation as u8 == Operation::Register as u8
        && registration.flags & flag::PARTS_MISSED == 0
        && fold::saw_all(frame);
    let table = if whole {
        // An empty slot reaches the per-buffer function, and no pin.
        Table { bytes: registration.bytes, buffers: frame.counts.pins, unknown: 0 }
    } else {
        Table::UNKNOWN
    };
    put(registration.ring, table);
}

/// An operation of which no entry was seen.
#[inline(always)]
pub fn without_entry(ring: u64, operation: Operation, ret: i64) {
    if ret >= 0 && operation as u8 != Operation::Unregister as u8 {
        put(ring, Table::UNKNOWN);
    }
}

/// The kernel lets a ring's table go, if it has one: for its user, at the ring's end, or when it cleans up a registration
/// that failed, of which there is no table here.
#[inline(always)]
pub fn released(ring: u64) {
    let Some(table) = TABLES.get_ptr(ring) else { return };
    // SAFETY: a value of the map, of plain integers.
    let table = unsafe { *table };
    // Whoever removes it takes it from the sums.
    if TABLES.remove(ring).is_ok() {
        change(&table, true);
    }
}

/// What was there, if anything was: a table that was changed, or one whose end was missed.
#[inline(never)]
fn put(ring: u64, table: Table) {
    released(ring);
    if TABLES.insert(ring, table, 0).is_ok() {
        change(&table, false);
    } else if let Some(registered) = REGISTERED.get_ptr_mut(0) {
        add_field!(registered.lost, 1);
    }
}

#[inline(always)]
fn change(table: &Table, less: bool) {
    let Some(registered) = REGISTERED.get_ptr_mut(0) else { return };
    let signed = |value: u64| if less { value.wrapping_neg() } else { value };
    // SAFETY: a value of the map; only the addresses of its fields are taken.
    let (bytes, buffers, unknown) =
        unsafe { (&raw mut (*registered).bytes, &raw mut (*registered).buffers, &raw mut (*registered).unknown) };
    add(bytes, signed(table.bytes));
    add(buffers, signed(table.buffers.into()));
    add(unknown, signed(table.unknown.into()));
}
