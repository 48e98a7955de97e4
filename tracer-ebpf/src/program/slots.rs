//! What the slots of a ring's table held before an update or a clone: to fill an empty one is set-up, to replace a buffer
//! is to switch. Both functions run under the ring's lock, so that at their entry the table is as they will find it.

use tracer_ebpf::{
    installation::Installation,
    operation::Operation,
    record::{Asked, Frame, HELD_UNTOLD, NONE_HELD},
    settings::{SLOTS_OF_BUFFERS, SLOTS_OF_NODES, SLOTS_UNTOLD},
};

use crate::program::{
    kernel,
    outcome::installs,
    settings::setting,
    verifier::{apart, forgotten},
};

/// Slots that are looked at: a loop without a bound came with 5.17. Of more, all empty, it is not known what they held.
const MOST: u32 = 256;

/// `struct io_uring_rsrc_update2` of `include/uapi/linux/io_uring.h`: the first slot, and how many.
const UPDATE_OFFSET: u32 = 0;
const UPDATE_COUNT: u32 = 24;

/// `struct io_uring_clone_buffers`: likewise, both 0 for all from the first on (and so before 6.13).
const CLONE_OFFSET: u32 = 12;
const CLONE_COUNT: u32 = 16;

/// `io_mapped_ubuf.ubuf` of the one that stands for an empty slot, up to 6.12.
const EMPTY: u64 = u64::MAX;

/// The slots that an update asks for, whose argument lies at this address of its user. `None` where the page is not there yet:
/// the kernel faults it in, a program cannot.
#[inline(always)]
pub fn asked_for(argument: u64) -> Option<u32> {
    kernel::read_user(argument, UPDATE_COUNT)
}

/// Looks at the slots of an update.
#[inline(always)]
pub fn of_update(frame: &mut Frame) {
    look(frame, UPDATE_OFFSET, UPDATE_COUNT);
}

/// The same of a clone.
#[inline(always)]
pub fn of_clone(frame: &mut Frame) {
    look(frame, CLONE_OFFSET, CLONE_COUNT);
}

apart! {
fn look([frame: Frame], offset: u32, count: u32) {
    frame.empty_slots = HELD_UNTOLD;
    let argument = frame.request;
    let (Some(first), Some(count)) = (kernel::read_user(argument, offset), kernel::read_user(argument, count)) else {
        return 0;
    };
    let (first, count): (u32, u32) = (first, count);
    let Some((slots, held)) = table(frame.registration.ring) else { return 0 };
    frame.asked = Asked { slots, held: held.into(), first: first.into(), count: count.into(), done: 0 };
    for place in 0..MOST {
        if forgotten(&frame.asked.done) != 0 {
            break;
        }
        look_into(frame, place);
    }
}
}

/// Where a ring's slots lie, and how many there are.
#[inline(always)]
fn table(ring: u64) -> Option<(u64, u32)> {
    match setting!(kernel.slots) {
        SLOTS_OF_BUFFERS => Some((
            kernel::read(ring, setting!(offset.ring_buffers))?,
            kernel::read(ring, setting!(offset.ring_buffer_count))?,
        )),
        SLOTS_OF_NODES => {
            let at = |member| setting!(offset.ring_table) + member;
            Some((
                kernel::read(ring, at(setting!(offset.table_nodes)))?,
                kernel::read(ring, at(setting!(offset.table_count)))?,
            ))
        }
        _ => None,
    }
}

apart! {
/// Looks at one of the slots that are asked for. By itself, so that the loop around it is not checked with all that a slot may be.
fn look_into([frame: Frame], place: u32) {
    let Asked { slots, held, first, count, .. } = frame.asked;
    // A count of 0 is a clone of all.
    if (count != 0 && u64::from(place) >= count) || first + u64::from(place) >= held {
        frame.empty_slots = NONE_HELD;
        frame.asked.done = 1;
        return 0;
    }
    let slot = kernel::read(slots + (first + u64::from(place)) * size_of::<u64>() as u64, 0);
    match slot.and_then(holds) {
        Some(false) => return 0,
        Some(true) => frame.empty_slots = place,
        None => {}
    }
    frame.asked.done = 1;
}
}

#[inline(always)]
fn holds(slot: u64) -> Option<bool> {
    if slot == 0 || setting!(kernel.slots) == SLOTS_OF_NODES {
        return Some(slot != 0);
    }
    Some(kernel::read::<u64>(slot, setting!(offset.imu_start))? != EMPTY)
}

/// Whether a call that succeeded took a buffer out of a slot. An update tells how many slots it did.
#[inline(always)]
pub fn replaced(frame: &Frame, operation: Operation) -> bool {
    match operation {
        Operation::Update => {
            frame.empty_slots == HELD_UNTOLD || u64::from(frame.empty_slots) < frame.registration.ret.cast_unsigned()
        }
        Operation::Clone => frame.empty_slots < HELD_UNTOLD,
        Operation::Register | Operation::Unregister => false,
    }
}

/// What a call that installed something did.
#[inline(always)]
pub fn installation(frame: &Frame, operation: Operation) -> Installation {
    match operation {
        Operation::Clone => Installation::Clone,
        Operation::Update if setting!(kernel.slots) == SLOTS_UNTOLD || frame.empty_slots == HELD_UNTOLD => {
            Installation::Update
        }
        Operation::Update if replaced(frame, operation) => Installation::Replacement,
        Operation::Update => Installation::Fill,
        Operation::Register | Operation::Unregister => Installation::Table,
    }
}

/// Whether a call that succeeded and installed nothing emptied a slot.
#[inline(always)]
pub fn emptied(frame: &Frame, operation: Operation) -> bool {
    operation as u8 == Operation::Update as u8
        && !installs(frame)
        && u64::from(frame.empty_slots) < frame.registration.ret.cast_unsigned()
}
