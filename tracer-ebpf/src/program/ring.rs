//! Registrations by ring: its age at each, the time since the one before, which one it is.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_comm};
use tracer_ebpf::{
    counter::Counter,
    histogram::Histogram,
    operation::Operation,
    record::{Frame, Ring, flag},
};

use crate::program::{
    kernel,
    maps::{Counters, Distributions, RINGS, add_field},
    outcome::installs,
    settings::setting,
    slots,
};

/// Counts a register, an update or a clone that ended.
#[inline(always)]
pub fn ended(frame: &Frame, operation: Operation, ret: i64, counters: &Counters) {
    let registration = &frame.registration;
    if ret >= 0 && !installs(frame) {
        if slots::emptied(frame, operation) {
            vacated(registration.ring);
        }
        return;
    }
    let Some(ring) = RINGS.get_ptr_mut(registration.ring).or_else(|| unseen(registration.ring)) else {
        return counters.add(Counter::LostRings, 1);
    };
    if ret < 0 {
        return add_field!(ring.failed, 1);
    }
    install(ring, frame, operation);
    match operation {
        Operation::Update => add_field!(ring.updates, 1),
        Operation::Clone => add_field!(ring.clones, 1),
        Operation::Register | Operation::Unregister => {}
    }
}

/// Counts an unregistration that succeeded.
#[inline(always)]
pub fn unregistered(ring: u64) {
    if let Some(ring) = RINGS.get_ptr_mut(ring) {
        add_field!(ring.unregisters, 1);
    }
    vacated(ring);
}

/// Buffers were taken out of a ring's table, or with it: the next installation comes in their place.
#[inline(always)]
fn vacated(ring: u64) {
    if let Some(ring) = RINGS.get_ptr_mut(ring) {
        // SAFETY: a value of the map, of plain integers.
        unsafe { (*ring).vacated = 1 };
    }
}

/// Notes that a ring has an index for its fd: from then on it may live on without that fd.
#[inline(always)]
pub fn fd_registered(ring: u64) {
    if let Some(ring) = RINGS.get_ptr_mut(ring) {
        // SAFETY: a value of the map, of plain integers.
        unsafe { (*ring).fd_registered = 1 };
    }
}

/// Counts an operation of which no entry was seen, by what the tracepoint tells: an unregistration where its function is
/// inlined, a refusal before the function was reached. An installation that was missed is in no figure of its ring.
#[inline(always)]
pub fn without_entry(ring: u64, operation: Operation, ret: i64) {
    let unregisters = operation as u8 == Operation::Unregister as u8;
    // Refused unregistrations are counted nowhere, and only they.
    if unregisters != (ret >= 0) {
        return;
    }
    if unregisters {
        unregistered(ring);
    } else if let Some(ring) = RINGS.get_ptr_mut(ring) {
        add_field!(ring.failed, 1);
    }
}

#[inline(always)]
fn install(totals: *mut Ring, frame: &Frame, operation: Operation) {
    let registration = &frame.registration;
    let now = registration.header.start_ns;
    let Some(distributions) = Distributions::get() else { return };
    // SAFETY: a value of the map, of plain integers.
    let ring = unsafe { &mut *totals };
    if ring.created_ns != 0 && now > ring.created_ns {
        distributions.observe(Histogram::RingAge, now - ring.created_ns);
    }
    let before = ring.installations;
    let used = registration.flags & flag::RING_USED != 0;
    if ring.vacated != 0 || slots::replaced(frame, operation) {
        ring.vacated = 0;
        // Where requests cannot be told every one counts.
        if used || setting!(kernel.ring_requests) == 0 {
            switch(totals, before, now);
        }
    } else if operation as u8 == Operation::Update as u8 {
        add_field!(totals.fills, 1);
        if used {
            add_field!(totals.fills_after_requests, 1);
        }
    }
    if before == 0 {
        first(ring, now);
    } else if now > ring.last_ns {
        gap(ring, now, &distributions);
    }
    if now > ring.last_ns {
        ring.last_ns = now;
    }
    add_field!(totals.installations, 1);
    distributions.observe(Histogram::RingOrdinal, before + 1);
    if used {
        add_field!(totals.after_requests, 1);
    }
}

/// An installation at `now` in the place of buffers that were there.
#[inline(always)]
fn switch(totals: *mut Ring, before: u64, now: u64) {
    // SAFETY: a value of the map, of plain integers.
    let ring = unsafe { &mut *totals };
    if ring.switches_from_ns == 0 {
        ring.switches_from_ns = if before == 0 { now } else { ring.last_ns };
    }
    if before != 0 {
        add_field!(totals.switch_gaps, 1);
    }
    if now > ring.last_switch_ns {
        ring.last_switch_ns = now;
    }
    add_field!(totals.switches, 1);
}

#[inline(always)]
fn first(ring: &mut Ring, now: u64) {
    ring.first_ns = now;
    if setting!(session.processes) != 0 {
        let process = kernel::process();
        (ring.pid, ring.began_ns) = (process.pid, process.began_ns);
        ring.comm = bpf_get_current_comm().unwrap_or_default();
    }
}

#[inline(always)]
fn gap(ring: &mut Ring, now: u64, distributions: &Distributions) {
    let gap = now - ring.last_ns;
    distributions.observe(Histogram::RingGap, gap);
    if ring.shortest_gap_ns == 0 || gap < ring.shortest_gap_ns {
        ring.shortest_gap_ns = gap;
    }
}

/// A ring that was there before the programs, or that the map had no room for.
#[inline(never)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would lie on the stack")]
fn unseen(ring: u64) -> Option<*mut Ring> {
    static BLANK: Ring = Ring::ZERO;
    let _ = RINGS.insert(ring, &BLANK, BPF_NOEXIST.into());
    RINGS.get_ptr_mut(ring)
}
