//! From a finished buffer or registration to the maps, and to the ring buffer where a session asks.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_uid_gid, bpf_ringbuf_output},
};
use aya_log_ebpf::debug;
use tracer_ebpf::{
    backing::{BackingKey, BackingSlice, BackingTotals, Kind},
    counter::Counter,
    histogram::Histogram,
    operation::Operation,
    policy::Traits,
    record::{BACKING_SLICES, BufferRecord, Frame, ProcessTotals, RegistrationRecord, Walk, flag},
};

use crate::program::{
    calls, cgroup, cost, gathered, habit, judge, kernel, length,
    maps::{
        BACKINGS, Counters, Distributions, FILESYSTEMS, PROCESSES, RECORDS, RINGS, add, add_field, count, observe,
        observe_duration, setting,
    },
    probe::zero,
    ring as rings, session, slots, tables,
    verifier::{apart, forgotten},
    walk,
};

/// A buffer that failed in an update which tells only how many it did: stands for its errno, which nothing shows.
const UNTOLD: i32 = -5;

/// The most bytes that any kernel takes in one buffer: 1 TiB, since 7.2.
const MOST_BYTES: u64 = 1 << 40;

/// In place of a buffer's result, while the return of the pin that stands for it was not seen.
pub const NOT_RETURNED: i32 = 1;

/// All that can befall a buffer once its pages are pinned: no memory for its table, or `RLIMIT_MEMLOCK`. `ENOMEM` of
/// `include/uapi/asm-generic/errno-base.h`.
pub const ENOMEM: i32 = -12;

/// A buffer whose function returned: into its registration, the maps, and the ring buffer. An accepted one counts as such
/// when its call has `ended` without being refused.
#[inline(always)]
pub fn buffer(frame: &mut Frame, counters: &Counters, ended: bool) {
    judge::judge(frame, counters, ended);
    if frame.buffer.ret < 0 && never_pinned(&frame.buffer) {
        nothing_touched(frame);
    } else {
        touched(frame, counters, ended);
    }
    if session::in_detail() {
        if setting!(session.processes) != 0 {
            of_process(frame);
        }
        if setting!(session.records) != 0 {
            emit(&raw const frame.buffer, Counter::LostBufferRecords);
        }
    }
}

/// What a buffer adds to its registration and to the backings.
#[inline(always)]
fn touched(frame: &mut Frame, counters: &Counters, ended: bool) {
    // What was not walked to its end may have huge pages behind it.
    let short = frame.buffer.walk == Walk::Busy as u8 || frame.buffer.walk == Walk::Cut as u8;
    if setting!(kernel.pin_is_slow) != 0 && short {
        frame.buffer.flags |= flag::FAULTS_UNTOLD;
    }
    let buffer = &frame.buffer;
    if buffer.vmas != 0 {
        let vmas = u64::from(buffer.vmas);
        frame.counts.vmas += vmas;
        // Buffers of one call often lie side by side, many of them in one VMA: then there is nothing new.
        if setting!(kernel.walks) != 0 && (frame.walker.address != frame.last_vma_end || vmas != 1) {
            distinct(frame, vmas as u32);
        }
        frame.last_vma_end = frame.walker.address;
    }
    let buffer = &frame.buffer;
    let registration = &mut frame.registration;
    registration.flags |= buffer.flags & (flag::BACKINGS_CAPPED | flag::PARTS_MISSED | flag::FAULTS_UNTOLD);
    if setting!(kernel.pin_is_slow) != 0 && buffer.flags & flag::FAULTS_UNTOLD != 0 {
        counters.add(Counter::UntoldFaults, 1);
    }
    if buffer.ret < 0 {
        registration.failed_buffers += 1;
    } else {
        frame.counts.bytes += buffer.length;
    }
    if buffer.walk != Walk::Complete as u8 {
        // An empty slot has no VMAs to be known, nor has what the kernel refuses as no range.
        if walk::has_range(buffer.address, buffer.length) {
            registration.flags |= flag::VMAS_PARTIAL;
            frame.counts.partial[usize::from(buffer.walk & 7)] += 1;
        }
    } else if buffer.vmas == 1 {
        frame.counts.single_vma += 1;
    } else {
        frame.counts.several_vmas += 1;
        observe(Histogram::VmasPerBuffer, u64::from(buffer.vmas));
    }
    if buffer.vm_files > 1 {
        frame.counts.multi_vm_file += 1;
        frame.counts.multi_file += u32::from(buffer.files > 1);
    }
    if buffer.flags & (flag::FILES_CAPPED | flag::VM_FILES_CAPPED | flag::BACKINGS_CAPPED) != 0 {
        frame.counts.short += 1;
    }
    backings(frame, counters, ended);
}

apart! {
/// Adds the VMAs of the frame's walk that the call's walks before it did not see. A walk sees all VMAs from its first to its
/// last, so that what they saw together is told by its ends as long as each begins or ends where others did; where one
/// comes back in between otherwise, how many it saw anew is not known.
fn distinct([frame: Frame], vmas: u32) {
    let (first, last) = (frame.walker.first_end, frame.walker.address);
    let mut new = u64::from(vmas);
    if frame.seen_to == 0 {
        frame.seen_from = first;
        frame.seen_to = last;
        frame.seen_with_gaps = 0;
    } else if first > frame.seen_to || last < frame.seen_from {
        frame.seen_with_gaps = 1;
    } else if frame.registration.flags & flag::VMAS_REPEATED != 0 {
        // It is an upper bound already.
    } else if first == frame.seen_to || last == frame.seen_from {
        new -= 1;
    } else if frame.seen_with_gaps == 0 && first >= frame.seen_from && last <= frame.seen_to {
        new = 0;
    } else if first <= frame.seen_from && last >= frame.seen_to {
        new = new.wrapping_sub(frame.registration.vmas);
        frame.seen_with_gaps = 0;
    } else {
        frame.registration.flags |= flag::VMAS_REPEATED;
    }
    frame.registration.vmas += new;
    if first < frame.seen_from {
        frame.seen_from = first;
    }
    if last > frame.seen_to {
        frame.seen_to = last;
    }
}
}

/// Whether a buffer was refused before its pin: for its size or its address. Where the pin stands for its buffer, no such
/// buffer is seen.
#[inline(always)]
fn never_pinned(buffer: &BufferRecord) -> bool {
    setting!(kernel.pin_is_buffer) == 0
        && setting!(kernel.pins) != 0
        && setting!(kernel.walks) != 0
        && buffer.flags & (flag::PINNED | flag::PARTS_MISSED) == 0
}

apart! {
/// Takes back what was walked for a buffer that the kernel refused without a look at its memory: it touched no VMA. The
/// call is in no distribution of VMAs, and nothing of it is unknown.
fn nothing_touched([frame: Frame]) {
    let registration = &mut frame.registration;
    registration.failed_buffers += 1;
    registration.flags |= flag::VMAS_PARTIAL;
    registration.vm_files = frame.files_before as u32;
    registration.files = (frame.files_before >> 32) as u8;
    let buffer = &mut frame.buffer;
    buffer.walk = Walk::None as u8;
    zero!(buffer.vmas, buffer.vm_files, buffer.files, buffer.traits.0, buffer.backings[0].vmas);
}
}

apart! {
/// What a session keeps of a buffer for its process.
fn of_process([frame: Frame]) {
    habit::buffer(frame);
    cost::buffer(frame);
}
}

/// A call's last pin, whose buffer's result is its own where it failed. What comes after the call's last pin may be
/// another buffer, refused before its own (a length of 0) or none at all (an emptied slot): its errno is no evidence.
#[inline(always)]
fn last(frame: &mut Frame, operation: Operation, counters: &Counters) {
    if frame.counts.pending == 0 {
        return;
    }
    let registration = &frame.registration;
    let short = operation as u8 == Operation::Update as u8
        && registration.ret >= 0
        && (registration.ret as u32) < registration.buffers;
    frame.buffer.ret = if frame.buffer.ret == NOT_RETURNED {
        frame.buffer.flags |= flag::PARTS_MISSED;
        // The call's result has to do.
        if short { UNTOLD } else { registration.ret.min(0) as i32 }
    } else if frame.buffer.ret != 0 {
        frame.buffer.ret
    } else if short || registration.ret == ENOMEM.into() {
        ENOMEM
    } else {
        0
    };
    // Read back, so that the verifier knows as little of the result as we do, and checks the rest once.
    frame.buffer.ret = forgotten(&frame.buffer.ret);
    pending(frame, counters, true);
}

/// A buffer that is known by its pin alone, once its result is: a negative errno, or 0.
#[inline(always)]
pub fn pending(frame: &mut Frame, counters: &Counters, ended: bool) {
    frame.counts.pending = 0;
    buffer(frame, counters, ended);
}

#[inline(always)]
fn backings(frame: &mut Frame, counters: &Counters, ended: bool) {
    if setting!(kernel.walks) == 0 || frame.buffer.backings[0].vmas == 0 {
        return;
    }
    if !ended && frame.buffer.ret == 0 {
        return gathered::backings(frame);
    }
    let failed = frame.buffer.ret < 0 || frame.registration.ret < 0;
    backing(&mut frame.buffer.backings[0], failed, counters);
    // Most buffers have one.
    if frame.buffer.backings[1].vmas != 0 {
        other_backings(&mut frame.buffer, u32::from(failed));
    }
}

apart! {
fn other_backings([buffer: BufferRecord], failed: u32) {
    let Some(counters) = Counters::get() else { return 0 };
    for index in 1..BACKING_SLICES {
        let slice = &mut buffer.backings[index];
        if slice.vmas == 0 {
            break;
        }
        backing(slice, failed != 0, &counters);
    }
}
}

#[inline(always)]
pub fn backing(slice: &mut BackingSlice, failed: bool, counters: &Counters) {
    let kind = if failed { slice.kind.failed() } else { slice.kind };
    if slice.filesystem == 0 && kind.0 < Kind::PLAIN {
        // No name to tell: an array saves the look-up in a hash map.
        add_slice(counters.kind(kind), slice, 1);
    } else {
        named_backing(slice, kind.0, 1);
    }
}

apart! {
/// So many buffers whose part that has the backing is `slice` together.
pub fn named_backing([slice: BackingSlice], kind: u32, buffers: u32) {
    let key = BackingKey { filesystem: slice.filesystem, kind: Kind(kind), reserved: 0 };
    if let Some(totals) = BACKINGS.get_ptr_mut(key).or_else(|| new_backing(&key)) {
        add_slice(totals, slice, buffers);
    } else {
        count(Counter::LostBackings);
    }
}
}

#[inline(always)]
pub fn add_slice(totals: *mut BackingTotals, slice: &BackingSlice, number: u32) {
    // SAFETY: a value of the map; only the addresses of its fields are taken.
    let (buffers, vmas, bytes) =
        unsafe { (&raw mut (*totals).buffers, &raw mut (*totals).vmas, &raw mut (*totals).bytes) };
    add(buffers, u64::from(number));
    add(vmas, u64::from(slice.vmas));
    add(bytes, slice.bytes);
}

/// Notes the name of a `file_system_type`.
#[inline(always)]
pub fn name_filesystem(filesystem: u64) {
    if filesystem != 0 && FILESYSTEMS.get_ptr(filesystem).is_none() {
        let mut name = [0; 16];
        if kernel::filesystem_name(filesystem, &mut name) {
            let _ = FILESYSTEMS.insert(filesystem, name, 0);
        }
    }
}

/// The first buffer with this backing: makes its entry, and notes the filesystem's name.
#[inline(always)]
fn new_backing(key: &BackingKey) -> Option<*mut BackingTotals> {
    name_filesystem(key.filesystem);
    // Another CPU may have made it meanwhile; then this fails and the look-up finds that one.
    let _ = BACKINGS.insert(key, BackingTotals { buffers: 0, vmas: 0, bytes: 0 }, BPF_NOEXIST.into());
    BACKINGS.get_ptr_mut(key)
}

/// A registration that ended with the frame in hand; `frame.end_ns` is its end, the tracepoint's time where the return
/// was not seen.
#[inline(always)]
pub fn registration(
    context: &impl EbpfContext,
    frame: &mut Frame,
    counters: &Counters,
    operation: Operation,
    ret: i64,
    returned: bool,
) {
    let registration = &mut frame.registration;
    registration.ret = ret;
    let walked = registration.walk_ns;
    registration.duration_ns = frame.end_ns.wrapping_sub(registration.header.start_ns).wrapping_sub(walked);
    if operation as u8 == Operation::Update as u8 && is_short(registration) {
        registration.flags |= flag::PARTIAL;
    }
    calls::ended(frame, counters, operation);
    let registration = &mut frame.registration;
    let ret = forgotten(&registration.ret);
    if returned {
        counters.add_of(Counter::Returns, operation, 1);
    } else if setting!(kernel.registration_returns) != 0 {
        registration.flags |= flag::RETURN_MISSED;
        counters.add_of(Counter::MissedReturns, operation, 1);
    }
    if is_plain(frame, ret) {
        plain(frame, counters, operation);
    } else {
        whole(frame, counters, operation);
    }
    if operation as u8 == Operation::Unregister as u8 {
        if setting!(session.rings) != 0 && ret >= 0 {
            rings::unregistered(frame.registration.ring);
        }
    } else if !returned {
        settle(frame, operation, ret);
    }
    if session::in_detail() {
        in_detail(frame, operation);
    }
    debug!(context, "{} buffers, {} VMAs, returned {}", frame.registration.buffers, frame.registration.vmas, ret);
}

/// Whether an update did fewer buffers than it was asked for, and some: the kernel tells of no errno then.
#[inline(always)]
fn is_short(registration: &RegistrationRecord) -> bool {
    let told = registration.requested != u32::MAX;
    told && registration.ret >= 0 && registration.ret < i64::from(registration.requested)
}

/// What a register, an update or a clone does to its ring and to what is registered: at its function's return, where the
/// kernel still holds the ring's `uring_lock`, so that calls of several threads come one after the other, and in their
/// order. The tracepoint, which takes the place of a return that was missed, comes after that lock up to 6.12.
#[inline(always)]
pub fn settle(frame: &Frame, operation: Operation, ret: i64) {
    if setting!(session.rings) != 0
        && let Some(counters) = Counters::get()
    {
        rings::ended(frame, operation, ret, &counters);
    }
    if setting!(session.tables) != 0 {
        tables::ended(frame.registration.ring, operation, ret);
    }
}

/// Whether a call that succeeded put a buffer into a table: not one that made empty slots, or emptied them.
#[inline(always)]
pub fn installs(frame: &Frame) -> bool {
    let registration = &frame.registration;
    let told = setting!(kernel.buffers) != 0 && registration.flags & flag::PARTS_MISSED == 0 && saw_all(frame);
    registration.operation == Operation::Clone as u8 || !told || accepted(frame) != 0
}

/// Bytes of the buffers that a call which succeeded put into the table. A register puts all of them there; an update stops
/// at the first that is refused.
#[inline(always)]
fn accepted(frame: &Frame) -> u64 {
    let registration = &frame.registration;
    if registration.operation != Operation::Update as u8 {
        return registration.bytes;
    }
    let last =
        frame.counts.pending != 0 && frame.buffer.ret == 0 && registration.ret >= i64::from(registration.buffers);
    frame.counts.bytes + if last { frame.buffer.length } else { 0 }
}

/// Whether entry and return of each buffer and each pin were seen.
#[inline(always)]
pub fn saw_all(frame: &Frame) -> bool {
    frame.counts.buffer_returns == frame.registration.buffers && frame.counts.pin_returns == frame.counts.pins
}

#[inline(always)]
fn in_detail(frame: &mut Frame, operation: Operation) {
    if setting!(session.processes) != 0 && operation as u8 != Operation::Unregister as u8 {
        process(frame, operation as u32);
    }
    if setting!(session.records) != 0 {
        name_process(&mut frame.registration);
        ring(&mut frame.registration);
        emit(&raw const frame.registration, Counter::LostRegistrationRecords);
    }
}

/// The most frequent kind of registration by far, which one counter tells whole: accepted, one buffer in one VMA, walked
/// to its end, pinned once, and nothing missed.
#[inline(always)]
fn is_plain(frame: &Frame, ret: i64) -> bool {
    setting!(kernel.pin_is_buffer) != 0
        && ret >= 0
        && frame.registration.buffers == 1
        && frame.counts.pin_returns == 1
        && frame.buffer.ret == 0
        && frame.registration.flags & !(flag::RING_USED | flag::CALL_TIMED) == flag::PINNED
        && frame.buffer.walk == Walk::Complete as u8
        && frame.buffer.vmas == 1
        && frame.buffer.traits.0 == 0
        && Traits::of_length(frame.registration.bytes).0 == 0
}

/// The same as [`whole`] for a registration that [`is_plain`], at two thirds of the cost.
#[inline(always)]
fn plain(frame: &mut Frame, counters: &Counters, operation: Operation) {
    let registration = &mut frame.registration;
    registration.vmas = 1;
    counters.succeeded(operation);
    let bucket = observe_duration(Histogram::DurationOk as u32 + operation as u32, registration.duration_ns);
    frame.bucket = bucket as u64;
    let bucket = forgotten(&frame.bucket) as usize;
    let registration = &mut frame.registration;
    registration.registered = registration.bytes;
    registration.refused = 0;
    if let Some(distributions) = Distributions::get() {
        distributions.observe(Histogram::BytesPerRegistration, registration.bytes);
        distributions.observe(Histogram::Pin, registration.pin_ns);
    }
    backing(&mut frame.buffer.backings[0], false, counters);
    let used = registration.flags & flag::RING_USED != 0;
    costs(registration, counters);
    let installation = slots::installation(frame, operation);
    counters.plain(installation, used);
    if setting!(session.workloads) != 0 {
        cgroup::plain(&frame.registration, bucket, installation);
    }
}

#[inline(always)]
fn whole(frame: &mut Frame, counters: &Counters, operation: Operation) {
    if setting!(kernel.pin_is_buffer) != 0 {
        last(frame, operation, counters);
    }
    length::refused(frame, operation, frame.registration.ret);
    frame.registration.flags |=
        if saw_all(frame) { flag::TIMED } else { flag::TIMED | flag::PARTS_MISSED | flag::VMAS_PARTIAL };
    end(frame, counters, operation);
    gathered::settle(frame, counters);
    bytes(frame, counters);
    distributions(&frame.registration, operation);
    parts(frame, counters);
    if operation as u8 != Operation::Unregister as u8 {
        if frame.registration.ret >= 0 {
            installed(frame, counters, operation);
        }
        if setting!(session.workloads) != 0 {
            cgroup::whole(frame, operation);
        }
    }
}

/// What a call that succeeded did to its ring's table.
#[inline(always)]
fn installed(frame: &Frame, counters: &Counters, operation: Operation) {
    let used = frame.registration.flags & flag::RING_USED != 0;
    if installs(frame) {
        counters.installation(slots::installation(frame, operation), used);
    } else if slots::emptied(frame, operation) {
        counters.emptied(used);
    }
}

/// Counts the call's result. An update that stopped at a buffer tells how many it had done before; what stopped it is that
/// buffer's own result, where it came as far as its function.
#[inline(always)]
fn end(frame: &mut Frame, counters: &Counters, operation: Operation) {
    let registration = &mut frame.registration;
    if operation as u8 == Operation::Update as u8 && registration.ret >= 0 && registration.failed_buffers != 0 {
        registration.flags |= flag::PARTIAL;
    }
    let told = registration.failed_buffers != 0 && frame.buffer.flags & flag::PARTS_MISSED == 0;
    if registration.flags & flag::PARTIAL != 0 {
        counters.partial(operation, if told { frame.buffer.ret } else { 0 });
    } else if registration.ret >= 0 {
        counters.succeeded(operation);
    } else {
        counters.failed(operation, registration.ret);
    }
}

/// What of the bytes asked for is registered, and what is not.
#[inline(always)]
fn bytes(frame: &mut Frame, counters: &Counters) {
    frame.registration.registered = if frame.registration.ret < 0 { 0 } else { accepted(frame) };
    let refused = frame.registration.bytes.wrapping_sub(forgotten(&frame.registration.registered));
    // An iovec may ask for 2^64: of a call no more counts than any kernel takes in one.
    frame.registration.refused = if refused < MOST_BYTES { refused } else { MOST_BYTES };
    counters.add(Counter::RefusedBytes, forgotten(&frame.registration.refused));
}

#[inline(always)]
fn distributions(registration: &RegistrationRecord, operation: Operation) {
    let histogram = if registration.flags & flag::PARTIAL != 0 {
        Histogram::DurationPartial as u32
    } else if registration.ret >= 0 {
        Histogram::DurationOk as u32 + operation as u32
    } else {
        Histogram::DurationFailed as u32 + operation as u32
    };
    observe_duration(histogram, registration.duration_ns);
    if registration.buffers == 0 {
        return;
    }
    let Some(distributions) = Distributions::get() else { return };
    if registration.ret >= 0 {
        distributions.observe(Histogram::BytesPerRegistration, registration.registered);
    }
    distributions.observe(Histogram::BuffersPerRegistration, u64::from(registration.buffers));
    if registration.flags & (flag::PINNED | flag::PARTS_MISSED) == flag::PINNED {
        distributions.observe(Histogram::Pin, registration.pin_ns);
    }
    if registration.flags & (flag::VMAS_PARTIAL | flag::VMAS_REPEATED) == 0 {
        distributions.observe(Histogram::VmasPerRegistration, registration.vmas);
    }
}

/// What was gathered over the registration's buffers, added once.
#[inline(always)]
fn parts(frame: &Frame, counters: &Counters) {
    let registration = &frame.registration;
    if registration.buffers == 0 {
        return;
    }
    costs(registration, counters);
    counters.add(Counter::BufferEntries, registration.buffers.into());
    counters.add(Counter::BufferReturns, frame.counts.buffer_returns.into());
    counters.add(Counter::PinEntries, frame.counts.pins.into());
    counters.add(Counter::PinReturns, frame.counts.pin_returns.into());
    if frame.counts.buffer_returns != registration.buffers || frame.counts.pin_returns != frame.counts.pins {
        counters.add(Counter::BufferMissedReturns, (registration.buffers - frame.counts.buffer_returns).into());
        counters.add(Counter::PinMissedReturns, (frame.counts.pins - frame.counts.pin_returns).into());
    }
    counters.add(Counter::SingleVmaBuffers, frame.counts.single_vma.into());
    counters.add(Counter::WalksComplete, (frame.counts.single_vma + frame.counts.several_vmas).into());
    counters.add(Counter::WalkVmas, frame.counts.vmas);
    if registration.flags & flag::VMAS_PARTIAL != 0 {
        counters.add(Counter::WalksNone, frame.counts.partial[Walk::None as usize].into());
        counters.add(Counter::WalksHole, frame.counts.partial[Walk::Hole as usize].into());
        counters.add(Counter::WalksBusy, frame.counts.partial[Walk::Busy as usize].into());
        counters.add(Counter::WalksCut, frame.counts.partial[Walk::Cut as usize].into());
    }
    if registration.flags & flag::VMAS_REPEATED != 0 {
        counters.add(Counter::ShortRecords, 1);
    }
    if frame.counts.multi_vm_file | frame.counts.short != 0 {
        counters.add(Counter::MultiVmFileBuffers, frame.counts.multi_vm_file.into());
        counters.add(Counter::MultiFileBuffers, frame.counts.multi_file.into());
        counters.add(Counter::ShortRecords, frame.counts.short.into());
    }
}

/// What a registration cost besides its time.
#[inline(always)]
fn costs(registration: &RegistrationRecord, counters: &Counters) {
    counters.add(Counter::WalkNanoseconds, registration.walk_ns);
    if registration.minor_faults | registration.major_faults != 0 {
        counters.add(Counter::MinorFaults, registration.minor_faults);
        counters.add(Counter::MajorFaults, registration.major_faults);
    }
    if registration.lookups != 0 {
        counters.add(Counter::Lookups, registration.lookups);
    }
}

/// Counts a call and its result for its process, whose totals it gives back.
#[inline(always)]
fn process_call(ret: i64, partial: bool) -> Option<*mut ProcessTotals> {
    let pid = kernel::pid_tid().0;
    let Some(totals) = PROCESSES.get_ptr_mut(pid).or_else(|| new_process(pid)) else {
        count(Counter::LostProcesses);
        return None;
    };
    add_field!(totals.registrations, 1);
    if ret < 0 {
        add_field!(totals.failed, 1);
    } else if partial {
        add_field!(totals.partial, 1);
    }
    Some(totals)
}

/// Counts a call of which no entry was seen for its process.
#[inline(always)]
pub fn unmeasured_call(ret: i64) {
    let Some(totals) = process_call(ret, false) else { return };
    add_field!(totals.unmeasured, 1);
    if ret >= 0 {
        add_field!(totals.missed, 1);
    }
}

apart! {
/// What a session keeps of a call for its process.
fn process([frame: Frame], operation: u32) {
    cost::registration(&frame.registration);
    let registration = &frame.registration;
    let Some(totals) = process_call(registration.ret, registration.flags & flag::PARTIAL != 0) else { return 0 };
    add_field!(totals.buffers, registration.buffers.into());
    add_field!(totals.bytes, registration.registered);
    add_field!(totals.refused_bytes, registration.refused);
    add_field!(totals.vmas, registration.vmas);
    add_field!(totals.duration_ns, registration.duration_ns);
    add_field!(totals.pin_ns, registration.pin_ns);
    habit::end(frame, operation == Operation::Register as u32, totals);
}
}

#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "by value it would lie on the stack")]
fn new_process(pid: u32) -> Option<*mut ProcessTotals> {
    // Its own copy in the read-only data: it is large for a program's stack.
    static BLANK: ProcessTotals = ProcessTotals::ZERO;
    let _ = PROCESSES.insert(pid, &BLANK, BPF_NOEXIST.into());
    let totals = PROCESSES.get_ptr_mut(pid)?;
    // SAFETY: a value of the map, of plain integers; another thread of the process writes the same.
    let known = unsafe { &mut *totals };
    known.cgroup = cgroup_id();
    known.uid = bpf_get_current_uid_gid() as u32;
    known.comm = bpf_get_current_comm().unwrap_or_default();
    Some(totals)
}

#[inline(always)]
fn cgroup_id() -> u64 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Fills in the process; also for calls of which no entry was seen.
#[inline(always)]
pub fn name_process(registration: &mut RegistrationRecord) {
    let (pid, tid) = kernel::pid_tid();
    registration.pid = pid;
    registration.header.tid = tid;
    registration.uid = bpf_get_current_uid_gid() as u32;
    registration.cgroup = cgroup_id();
    registration.comm = bpf_get_current_comm().unwrap_or_default();
}

/// Fills in what is known of the ring.
#[inline(always)]
pub fn ring(registration: &mut RegistrationRecord) {
    let Some(ring) = RINGS.get_ptr(registration.ring) else { return };
    // SAFETY: a value of the map, of plain integers.
    let ring = unsafe { &*ring };
    if ring.created_ns == 0 {
        return;
    }
    registration.flags |= flag::RING_KNOWN;
    registration.ring_created_ns = ring.created_ns;
    registration.ring_fd = ring.fd;
    registration.ring_flags = ring.flags;
}

/// Sends a record; one that finds no room is counted.
#[inline(always)]
pub fn emit<T>(record: *const T, lost: Counter) {
    let data = record.cast_mut().cast();
    // SAFETY: the record is a whole `T` in a map's value.
    let ret = unsafe { bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), data, size_of::<T>() as u64, 0) };
    if ret != 0 {
        count(lost);
    }
}
