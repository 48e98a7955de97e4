//! Entry and return of the functions that install and remove buffers.
//!
//! ```c
//! int io_sqe_buffers_register(struct io_ring_ctx *, void __user *iovecs, unsigned int nr_args, u64 *tags);
//! int io_register_rsrc_update(struct io_ring_ctx *, void __user *arg, unsigned int size, unsigned int type);
//! int io_register_clone_buffers(struct io_ring_ctx *, void __user *arg);      // since 6.12
//! int io_sqe_buffers_unregister(struct io_ring_ctx *);                        // inlined in 5.10
//! void __io_sqe_buffers_unregister(struct io_ring_ctx *);                     // to 6.12
//! ```

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{
    counter::Counter,
    operation::Operation,
    record::{Counts, Frame, KIND_REGISTRATION, RegistrationRecord, Stage, flag},
};

use super::{Arguments, entry, exit, lock, phase};
use crate::program::{
    calls, fold, frame, kernel,
    maps::{Counters, count},
    process_patterns, session,
    settings::setting,
    slots, tables,
    zero::zero,
};

/// `IORING_RSRC_BUFFER` of `include/uapi/linux/io_uring.h`: the other type is files.
const RSRC_BUFFER: u32 = 1;

/// How many buffers the call asks for is not known.
const UNTOLD: u32 = u32::MAX;

entry!(register_enter_kprobe, register_enter_fentry, |context| enter(
    Operation::Register,
    context.argument(0),
    context.argument(1),
    || context.argument(2) as u32,
    || was_used(&context),
    |_| ()
));
entry!(update_enter_kprobe, update_enter_fentry, |context| if context.argument(3) as u32 == RSRC_BUFFER {
    let requested = || slots::asked_for(context.argument(1)).unwrap_or(UNTOLD);
    enter(
        Operation::Update,
        context.argument(0),
        context.argument(1),
        requested,
        || was_used(&context),
        slots::of_update,
    );
});
entry!(clone_enter_kprobe, clone_enter_fentry, |context| enter(
    Operation::Clone,
    context.argument(0),
    context.argument(1),
    || UNTOLD,
    || was_used(&context),
    slots::of_clone
));
entry!(unregister_enter_kprobe, unregister_enter_fentry, |context| unregister(context.argument(0)));

entry!(release_enter_kprobe, release_enter_fentry, |context| {
    let_go_by_kernel();
    tables::released(context.argument(0));
});

exit!(register_exit_kretprobe, register_exit_fexit, 4, |ret| leave(Operation::Register, ret));
exit!(update_exit_kretprobe, update_exit_fexit, 4, |ret| leave(Operation::Update, ret));
exit!(clone_exit_kretprobe, clone_exit_fexit, 2, |ret| leave(Operation::Clone, ret));
exit!(unregister_exit_kretprobe, unregister_exit_fexit, 1, |ret| leave(Operation::Unregister, ret));

/// Whether the ring, which is the first argument, had been given a request: the kernel has taken an entry from its
/// submission queue, or made a request for one. Its completion queue tells nothing: a tagged buffer that is let go and a
/// message from another ring stand there as well.
#[inline(always)]
fn was_used(context: &impl Arguments) -> bool {
    if setting!(kernel.ring_requests) == 0 {
        return false;
    }
    let mut requests = context.member(0, setting!(offset.ring_sq_head));
    if setting!(offset.ring_allocated) != 0 {
        requests |= context.member(0, setting!(offset.ring_allocated));
    }
    requests != 0
}

/// Opens the task's frame; `look` sees what the call is going to change.
#[inline(always)]
fn enter(
    operation: Operation,
    ring: u64,
    request: u64,
    requested: impl Fn() -> u32,
    was_used: impl Fn() -> bool,
    look: impl Fn(&mut Frame),
) {
    // First, so that the hook's own work is not in the wait before it.
    let entered = calls::clock();
    if !session::wants_current() {
        return frame::note_early();
    }
    let Some(counters) = Counters::get() else { return };
    let Some(frame) = frame::open() else {
        return counters.add(Counter::LostFrames, 1);
    };
    // The system call was entered before calls were counted.
    if setting!(kernel.calls) != 0 && frame.early != 0 {
        return;
    }
    // Whose an unregistration was is certain only at the tracepoint; see `unregister`.
    if operation as u32 != Operation::Unregister as u32 {
        counters.add_of(Counter::Entries, operation, 1);
    }
    if frame.stage != Stage::Idle as u32 {
        counters.add(Counter::Reentries, 1);
    }
    frame.request = request;
    let called = calls::entered(frame, operation);
    if !called {
        calls::begin(frame, operation);
    }
    begin(frame, operation, ring, requested(), was_used);
    if called {
        calls::waited(frame, entered);
    }
    look(frame);
    // Last, so that the hook's own work stands before the registration's time.
    // SAFETY: takes nothing, cannot fail.
    frame.registration.header.start_ns = unsafe { bpf_ktime_get_ns() };
}

#[inline(always)]
fn begin(frame: &mut Frame, operation: Operation, ring: u64, requested: u32, was_used: impl Fn() -> bool) {
    let words = (&raw mut frame.counts).cast::<u64>();
    for word in 0..size_of::<Counts>() / size_of::<u64>() {
        // SAFETY: the struct is aligned to words and has as many; it holds integers only.
        unsafe { words.add(word).write_volatile(0) };
    }
    frame.last_vma_end = 0;
    zero!(frame.backings[0].buffers, frame.judged[0].buffers, frame.seen_to);
    let registration = &mut frame.registration;
    clear(registration);
    if setting!(session.timed) != 0 {
        lock::clear(&mut frame.times);
        phase::clear(&mut frame.times);
    }
    registration.operation = operation as u8;
    registration.ring = ring;
    registration.requested = requested;
    if was_used() {
        registration.flags = flag::RING_USED;
    }
    if session::in_detail() {
        if setting!(session.records) != 0 {
            registration.header.kind = KIND_REGISTRATION;
            registration.header.tid = kernel::pid_tid().1;
        }
        if setting!(session.processes) != 0 {
            process_patterns::begin(frame);
        }
    }
    if setting!(session.tables) != 0 && matches!(operation, Operation::Update | Operation::Clone) {
        tables::changing(frame.registration.ring);
    }
    frame.stage = Stage::Registration as u32;
}

/// Sets to zero what is added up; the rest is written when the registration ends.
#[inline(always)]
pub fn clear(registration: &mut RegistrationRecord) {
    zero!(registration.duration_ns, registration.pin_ns, registration.walk_ns, registration.bytes);
    zero!(registration.vmas, registration.lookups, registration.minor_faults, registration.major_faults);
    zero!(registration.flags, registration.buffers, registration.failed_buffers);
    zero!(registration.vm_files, registration.files);
    if setting!(session.timed) != 0 {
        zero!(registration.lock_wait_ns, registration.lock_reads, registration.lock_writes);
        zero!(registration.fault_ns, registration.lookup_ns, registration.accounting_ns);
    }
    if setting!(kernel.calls) != 0 {
        zero!(registration.call_ns, registration.wait_ns);
    }
}

/// Only the user's own call is one: a registration that fails calls it too, and a ring that goes away does so from a
/// kernel thread. Where the registration's own entry was skipped, its cleanup looks like the user's call: the ledger
/// then finds an unregistration open at the end of something else.
#[inline(always)]
fn unregister(ring: u64) {
    let task = kernel::task();
    if kernel::mm(task) == 0 {
        // Every ring comes here at its end, most without a table.
        if has_table(ring) {
            count(Counter::RingExitUnregisters);
        }
        return;
    }
    if frame::of(task).is_some_and(|frame| frame.stage != Stage::Idle as u32) {
        return count(Counter::InternalUnregisters);
    }
    enter(Operation::Unregister, ring, 0, || UNTOLD, || false, |_| ());
}

#[inline(always)]
fn has_table(ring: u64) -> bool {
    let table = ring.wrapping_add(setting!(offset.ring_table).into());
    kernel::read::<u32>(table, setting!(offset.table_count)).unwrap_or(0) != 0
}

/// Up to 6.12 neither the end of a ring nor the cleanup of a registration comes by the function of the user's call, but
/// both come here, and only with a table.
#[inline(always)]
fn let_go_by_kernel() {
    if setting!(offset.ring_table) != 0 {
        return;
    }
    let task = kernel::task();
    if kernel::mm(task) == 0 {
        return count(Counter::RingExitUnregisters);
    }
    let cleans_up = |frame: &mut Frame| {
        frame.stage != Stage::Idle as u32 && frame.registration.operation != Operation::Unregister as u8
    };
    if frame::of(task).is_some_and(cleans_up) {
        count(Counter::InternalUnregisters);
    }
}

/// Stamps the end; the tracepoint closes the frame.
#[inline(always)]
fn leave(operation: Operation, ret: u64) {
    // SAFETY: takes nothing, cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = frame::current() else { return };
    let under_way = frame.stage != Stage::Idle as u32 && frame.stage != Stage::Returned as u32;
    if !under_way || frame.registration.operation != operation as u8 {
        return;
    }
    frame.end_ns = now;
    frame.stage = Stage::Returned as u32;
    let ret = i64::from(ret as i32);
    frame.registration.ret = ret;
    if operation as u8 != Operation::Unregister as u8 {
        fold::settle(frame, operation, ret);
    }
    if setting!(kernel.calls) != 0 {
        frame.left_ns = calls::clock();
    }
}
