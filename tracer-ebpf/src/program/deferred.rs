//! The accepted buffers of a call, until it is known whether they stay: when the kernel refuses a buffer of a register, it lets
//! go of those before it. They are gathered by backing and by what the rules look at, and counted when the call ends.

use tracer_ebpf::{
    backing::{BackingSlice, Kind},
    counter::Counter,
    policy::Traits,
    record::{BACKING_SLICES, DEFERRED, Deferred, Frame, JudgedKey, ProcessKey},
};

use crate::program::{
    by_backing, by_traits, cgroup, kernel,
    maps::{Counters, count},
    settings::setting,
    verifier::apart,
    zero::zero,
};

/// Gathers the backings of the frame's buffer.
#[inline(always)]
pub fn backings(frame: &mut Frame) {
    let slice = &frame.buffer.backings[0];
    let place = &mut frame.backings[0];
    // Most buffers have one backing, which is that of the buffer before.
    let same = place.buffers != 0 && place.kind.0 == slice.kind.0 && place.filesystem == slice.filesystem;
    if same && frame.buffer.backings[1].vmas == 0 {
        add(place, slice.vmas.into(), slice.bytes);
    } else {
        defer_backings(frame);
    }
}

#[inline(always)]
fn add(place: &mut Deferred, vmas: u64, bytes: u64) {
    place.buffers += 1;
    place.vmas += vmas;
    place.bytes += bytes;
}

apart! {
fn defer_backings([frame: Frame]) {
    for index in 0..BACKING_SLICES as u32 {
        if frame.buffer.backings[index as usize].vmas == 0 {
            break;
        }
        defer_backing(frame, index);
    }
}
}

apart! {
fn defer_backing([frame: Frame], index: u32) {
    const { assert!(BACKING_SLICES.is_power_of_two(), "the mask lets every place through, and nothing else") };
    let slice = &mut frame.buffer.backings[index as usize & (BACKING_SLICES - 1)];
    if !has_place(&mut frame.backings, slice, Traits::default()) {
        frame.counts.undeferred += 1;
        if let Some(counters) = Counters::get() {
            by_backing::backing(slice, false, &counters);
        }
    }
}
}

/// Adds to what has the same key, or to the first unused one; `false` where there is neither.
#[inline(always)]
fn has_place(places: &mut [Deferred; DEFERRED], slice: &BackingSlice, traits: Traits) -> bool {
    for index in 0..DEFERRED {
        if places[index].buffers == 0 {
            if index + 1 < DEFERRED {
                zero!(places[index + 1].buffers);
            }
            let place = &mut places[index];
            zero!(place.vmas, place.bytes);
            (place.filesystem, place.kind, place.traits) = (slice.filesystem, slice.kind, traits);
            add(place, slice.vmas.into(), slice.bytes);
            return true;
        }
        let place = &mut places[index];
        if place.kind.0 == slice.kind.0 && place.filesystem == slice.filesystem && place.traits.0 == traits.0 {
            add(place, slice.vmas.into(), slice.bytes);
            return true;
        }
    }
    false
}

/// Gathers the frame's buffer by its traits.
#[inline(always)]
pub fn judged(frame: &mut Frame, traits: Traits) {
    if traits.0 == 0 {
        frame.counts.clean += 1;
    } else {
        with_traits(frame, traits.0);
    }
}

apart! {
fn with_traits([frame: Frame], traits: u32) {
    let objected = by_traits::objected(&frame.buffer);
    let slice = BackingSlice {
        filesystem: objected.filesystem,
        kind: objected.kind,
        vmas: 0,
        bytes: frame.buffer.length,
    };
    if !has_place(&mut frame.judged, &slice, Traits(traits)) {
        frame.counts.undeferred += 1;
        by_traits::judged(&mut frame.buffer, traits);
    }
}
}

/// Counts what was deferred, now that the call has ended.
#[inline(always)]
pub fn settle(frame: &mut Frame, counters: &Counters) {
    if setting!(kernel.walks) == 0 {
        return;
    }
    let stay = frame.registration.ret >= 0;
    if frame.counts.clean != 0 {
        let counter = if stay { Counter::CleanBuffers } else { Counter::RolledBackBuffers };
        counters.add(counter, frame.counts.clean.into());
    }
    if frame.backings[0].buffers != 0 {
        settle_backings(frame);
    }
    if frame.judged[0].buffers != 0 {
        settle_judged(frame);
    }
}

apart! {
fn settle_backings([frame: Frame]) {
    let failed = frame.registration.ret < 0;
    if failed && frame.counts.undeferred != 0 {
        count(Counter::LostBackings);
    }
    let Some(counters) = Counters::get() else { return 0 };
    for place in &frame.backings {
        if place.buffers == 0 {
            break;
        }
        let kind = if failed { place.kind.failed() } else { place.kind };
        let mut slice =
            BackingSlice { filesystem: place.filesystem, bytes: place.bytes, vmas: place.vmas as u32, kind };
        if slice.filesystem == 0 && kind.0 < Kind::PLAIN {
            by_backing::add_slice(counters.kind(kind), &slice, place.buffers);
        } else {
            by_backing::named_backing(&mut slice, kind.0, place.buffers);
        }
    }
}
}

apart! {
fn settle_judged([frame: Frame]) {
    let stay = frame.registration.ret >= 0;
    let ProcessKey { began_ns, pid, .. } = kernel::process_kept_apart();
    let Some(counters) = Counters::get() else { return 0 };
    for place in &frame.judged {
        if place.buffers == 0 {
            break;
        }
        if !stay {
            counters.add(Counter::RolledBackBuffers, place.buffers.into());
            continue;
        }
        let Deferred { filesystem, kind, traits, .. } = *place;
        let key = JudgedKey { filesystem, kind, traits, errno: 0, pid, began_ns };
        by_traits::count_as(&key, place.buffers, place.bytes);
        if setting!(session.workloads) != 0 {
            cgroup::judged(traits, place.buffers);
        }
    }
}
}
