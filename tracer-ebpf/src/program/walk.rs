//! The walk over the VMAs of a buffer: `bpf_loop` over `bpf_find_vma` (both since 5.17).
//!
//! The kernel may pin a whole buffer without looking up one VMA (`gup_fast`, since 6.10 for io_uring), so what a
//! buffer touches cannot be counted from its look-ups; the range has to be walked. What belongs together is deferred
//! and put away only when the backing changes, so a VMA costs one look-up and a few loads.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_find_vma, bpf_ktime_get_ns, bpf_loop},
};
use tracer_ebpf::{
    backing::{BackingSlice, Class, Kind},
    policy::Traits,
    record::{BACKING_SLICES, FILES, Frame, Look, Walk, Walker, flag},
};

use crate::program::{
    kernel::{self, Typed, Vma},
    session,
    settings::setting,
    tree,
    verifier::{apart, forgotten},
    zero::zero,
};

/// More VMAs than `vm.max_map_count` can be raised to in earnest; a walk that gets here says that it was cut.
const MOST_VMAS: u32 = 1 << 22;

/// Looks in vain, where a writer holds `mmap_lock`, after which a walk ends: some tens of microseconds, in which most writers are
/// done. One that sleeps with the lock is not waited for.
const MOST_VAIN: u64 = 1024;
/// The same where a look reads the tree of VMAs without the lock: it is vain only in the moment of a change.
const MOST_VAIN_IN_TREE: u64 = 64;

const ENOENT: i64 = -2;
const EBUSY: i64 = -16;

/// What the callbacks are given. Lies on the stack, as `bpf_find_vma` demands.
#[repr(C)]
struct Context {
    frame: *mut Frame,
}

/// Whether there is anything to walk.
#[inline(always)]
pub fn has_range(address: u64, length: u64) -> bool {
    address != 0 && length != 0 && !address.overflowing_add(length).1
}

/// Walks the buffer of `frame`, from `address` to `end`, in the memory of `task`, the current one.
#[inline(always)]
pub fn walk(frame: &mut Frame, task: *mut task_struct, address: u64, end: u64) {
    ours(frame, true);
    walk_range(frame, task, address, end);
    ours(frame, false);
}

#[inline(always)]
fn walk_range(frame: &mut Frame, task: *mut task_struct, address: u64, end: u64) {
    frame.walker.address = address;
    frame.walker.slice_start = address;
    frame.walker.end = end;
    if session::in_detail() {
        zero!(frame.walker.retries);
    }
    let mut context = Context { frame };
    // Most buffers lie in one VMA: there is nothing to gather, and no loop to be set up.
    // SAFETY: the task is typed; the callback has the signature that the helper calls, and the context outlives the call.
    let ret = unsafe { bpf_find_vma(task, address, visit_first as *mut _, (&raw mut context).cast(), 0) };
    // SAFETY: the frame that was borrowed; the callback is done with it.
    let frame = unsafe { &mut *context.frame };
    if ret == 0 && frame.walker.address >= end {
        frame.buffer.walk = Walk::Complete as u8;
        zero!(frame.buffer.backings[1].vmas);
        frame.buffer.backings[0] = BackingSlice {
            filesystem: frame.walker.filesystem,
            bytes: end - address,
            vmas: 1,
            kind: Kind(frame.walker.kind as u32),
        };
    } else if ret == ENOENT {
        frame.buffer.walk = Walk::Hole as u8;
    } else {
        go_on(frame, ret);
    }
}

apart! {
/// The rest of a walk whose first VMA did not hold the whole range, or was not to be had.
fn go_on([frame: Frame], ret: i64) {
    let walker = &mut frame.walker;
    zero!(walker.slice_first);
    walker.retries = u64::from(ret == EBUSY);
    walker.vain = 0;
    if ret != 0 {
        zero!(walker.filesystem, walker.file);
        // Of no VMA, so that the first one is taken for a change.
        walker.kind = u64::MAX;
    }
    // Until it is known better.
    frame.buffer.walk = Walk::Cut as u8;
    let mut context = Context { frame };
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the call.
    unsafe { bpf_loop(MOST_VMAS, step as *mut _, (&raw mut context).cast(), 0) };
    // SAFETY: the frame that was borrowed; the callbacks are done with it.
    finish(unsafe { &mut *context.frame });
}
}

/// Walks the frame's buffer anew where a writer held `mmap_lock` for longer than the first walk waited: at the return
/// of the function whose entry it was, after the pin, which the writer has let pass.
#[inline(always)]
pub fn again(frame: &mut Frame) {
    if frame.buffer.walk == Walk::Busy as u8 {
        anew(frame);
    }
}

apart! {
fn anew([frame: Frame]) {
    // SAFETY: takes nothing, cannot fail.
    let entered = unsafe { bpf_ktime_get_ns() };
    zero!(frame.buffer.vmas, frame.buffer.vm_files, frame.buffer.files, frame.buffer.traits.0, frame.buffer.backings[0].vmas);
    let address = frame.buffer.address;
    walk(frame, kernel::task(), address, address + frame.buffer.length);
    frame.walker.retries += 1;
    // SAFETY: as above.
    let walk_ns = unsafe { bpf_ktime_get_ns() } - entered;
    frame.buffer.walk_ns += walk_ns;
    frame.registration.walk_ns += walk_ns;
}
}

/// Puts the last backing away.
#[inline(always)]
fn finish(frame: &mut Frame) {
    if u64::from(frame.buffer.vmas) == frame.walker.slice_first {
        return;
    }
    // Most buffers have one backing: its slice is known without a search.
    if frame.buffer.backings[0].vmas == 0 {
        zero!(frame.buffer.backings[1].vmas);
        fill_slice(&mut frame.buffer.backings[0], &frame.walker, frame.buffer.vmas);
    } else {
        put_slice(frame);
    }
}

/// One VMA; 0 to go on, 1 to stop.
extern "C" fn step(_index: u64, context: *mut Context) -> i64 {
    // SAFETY: always the context of `walk`.
    let frame = unsafe { &mut *(*context).frame };
    // SAFETY: the task is typed; the callback has the signature that the helper calls.
    let ret = unsafe { bpf_find_vma(kernel::task(), frame.walker.address, visit as *mut _, context.cast(), 0) };
    let look = match ret {
        0 => Look::Found,
        ENOENT => Look::Hole,
        _ => past_the_lock(frame),
    };
    match look {
        Look::Found if frame.walker.address < frame.walker.end => return 0,
        Look::Unsure if has_patience(frame) => return 0,
        Look::Found => frame.buffer.walk = Walk::Complete as u8,
        Look::Hole => frame.buffer.walk = Walk::Hole as u8,
        Look::Unsure => frame.buffer.walk = Walk::Busy as u8,
    }
    1
}

/// A writer holds `mmap_lock`: the VMA is taken from the tree where that can be read without it.
#[inline(always)]
fn past_the_lock(frame: &mut Frame) -> Look {
    frame.walker.retries += 1;
    if setting!(kernel.vma_tree) == 0 {
        return Look::Unsure;
    }
    tree::look(frame);
    match forgotten(&frame.tree.look) {
        look if look == Look::Found as u64 => {
            take_seen(frame);
            Look::Found
        }
        look if look == Look::Hole as u64 => Look::Hole,
        _ => Look::Unsure,
    }
}

/// Whether a walk goes on after a look in vain.
#[inline(always)]
fn has_patience(frame: &mut Frame) -> bool {
    frame.walker.vain += 1;
    let most = if setting!(kernel.vma_tree) == 0 { MOST_VAIN } else { MOST_VAIN_IN_TREE };
    frame.walker.vain <= most
}

apart! {
/// Counts the VMA that was found in the tree.
fn take_seen([frame: Frame]) {
    let seen = &frame.tree.seen;
    let vma = Vma { end: seen.end, file: seen.file, filesystem: seen.filesystem, kind: Kind(seen.kind as u32) };
    take(frame, &vma);
}
}

extern "C" fn visit(_task: *mut task_struct, vma: u64, context: *mut Context) -> i64 {
    // SAFETY: always the context of `walk`.
    let frame = unsafe { &mut *(*context).frame };
    let vma = kernel::vma::<Typed>(vma);
    // Read back: each way to a kind leaves another constant, and all that follows would be checked for each.
    frame.walker.found = vma.kind.0.into();
    let kind = Kind(forgotten(&frame.walker.found) as u32);
    take(frame, &Vma { kind, ..vma });
    0
}

/// The walk's first VMA.
extern "C" fn visit_first(_task: *mut task_struct, vma: u64, context: *mut Context) -> i64 {
    // SAFETY: always the context of `walk`.
    let frame = unsafe { &mut *(*context).frame };
    let vma = kernel::vma::<Typed>(vma);
    frame.walker.address = vma.end;
    frame.walker.first_end = vma.end;
    frame.walker.filesystem = vma.filesystem;
    frame.walker.kind = vma.kind.0.into();
    frame.walker.file = vma.file;
    // Read back, as in `visit`.
    let kind = Kind(forgotten(&frame.walker.kind) as u32);
    if vma.file != 0 {
        put_file(frame);
    }
    // Most memory is this, which has none.
    if kind.0 != Kind::new(Class::Anon, false, true).0 {
        frame.buffer.traits = kind.traits(true);
        note_huge_pages(frame, kind);
    }
    frame.buffer.vmas = 1;
    0
}

/// Up to 6.4 the slow pin brings in hugetlb's pages by itself: no page fault is counted for them.
#[inline(always)]
fn note_huge_pages(frame: &mut Frame, kind: Kind) {
    if setting!(kernel.pin_is_slow) != 0 && kind.is(Class::Hugetlb) {
        frame.buffer.flags |= flag::FAULTS_UNTOLD;
    }
}

/// Counts a VMA.
#[inline(always)]
fn take(frame: &mut Frame, vma: &Vma) {
    let kind = u64::from(vma.kind.0);
    if frame.walker.kind != kind || frame.walker.filesystem != vma.filesystem {
        finish(frame);
        let first = frame.buffer.vmas == 0;
        let walker = &mut frame.walker;
        walker.slice_first = frame.buffer.vmas.into();
        walker.slice_start = walker.address;
        walker.kind = kind;
        walker.filesystem = vma.filesystem;
        if first {
            walker.first_end = vma.end;
            walker.file = vma.file;
            if vma.file != 0 {
                put_file(frame);
            }
        }
        frame.buffer.traits = frame.buffer.traits.with(vma.kind.traits(first));
        note_huge_pages(frame, vma.kind);
    }
    if frame.walker.file != vma.file {
        frame.walker.file = vma.file;
        frame.buffer.traits = frame.buffer.traits.with(Traits::SEVERAL_SOURCES);
        if vma.file != 0 {
            put_file(frame);
        }
    }
    frame.buffer.vmas += 1;
    frame.walker.address = vma.end;
}

apart! {
/// Adds the present backing to the buffer's. What finds no place is in no slice, and the flag says so.
fn put_slice([frame: Frame]) {
    let walker = frame.walker;
    for index in 0..BACKING_SLICES {
        if frame.buffer.backings[index].vmas == 0 {
            if index + 1 < BACKING_SLICES {
                zero!(frame.buffer.backings[index + 1].vmas);
            }
            fill_slice(&mut frame.buffer.backings[index], &walker, frame.buffer.vmas);
            return 0;
        }
        let slice = &mut frame.buffer.backings[index];
        if u64::from(slice.kind.0) == walker.kind && slice.filesystem == walker.filesystem {
            slice.vmas += frame.buffer.vmas - walker.slice_first as u32;
            slice.bytes += reached(&walker);
            return 0;
        }
    }
    frame.buffer.flags |= flag::BACKINGS_CAPPED;
}
}

/// Makes an unused slice that of the present backing.
#[inline(always)]
fn fill_slice(slice: &mut BackingSlice, walker: &Walker, vmas: u32) {
    slice.filesystem = walker.filesystem;
    slice.kind = Kind(walker.kind as u32);
    slice.vmas = vmas - walker.slice_first as u32;
    slice.bytes = reached(walker);
}

/// Bytes of the present backing up to where the walk stands.
#[inline(always)]
fn reached(walker: &Walker) -> u64 {
    let reached = if walker.address < walker.end { walker.address } else { walker.end };
    reached - walker.slice_start
}

apart! {
/// Adds the present file to the buffer's and the registration's distinct ones: by `vm_file`, which the kernel looks at, and by
/// inode, which is what a user takes for a file.
fn put_file([frame: Frame]) {
    let file = frame.walker.file;
    if !insert(&mut frame.buffer_vm_files, &mut frame.buffer.vm_files, file) {
        frame.buffer.flags |= flag::VM_FILES_CAPPED;
    }
    if !insert(&mut frame.registration_vm_files, &mut frame.registration.vm_files, file) {
        frame.registration.flags |= flag::VM_FILES_CAPPED;
    }
    let inode = kernel::inode(file);
    let mut files = frame.buffer.files.into();
    if !insert(&mut frame.buffer_inodes, &mut files, inode) {
        frame.buffer.flags |= flag::FILES_CAPPED;
    }
    frame.buffer.files = files as u8;
    let mut files = frame.registration.files.into();
    if !insert(&mut frame.registration_inodes, &mut files, inode) {
        frame.registration.flags |= flag::FILES_CAPPED;
    }
    frame.registration.files = files as u8;
}
}

/// Adds to a set; `false` where it is full.
#[inline(always)]
fn insert(set: &mut [u64; FILES], length: &mut u32, file: u64) -> bool {
    let known = *length;
    for (index, slot) in (0_u32..).zip(set) {
        if index >= known {
            *slot = file;
            *length = index + 1;
            return true;
        }
        if *slot == file {
            return true;
        }
    }
    false
}

/// Keeps what pinscope's own walk does to the lock (`mmap_read_trylock` in `bpf_find_vma`) out of the figures.
#[inline(always)]
fn ours(frame: &mut Frame, walking: bool) {
    if setting!(session.locks) != 0 {
        // SAFETY: a field of a value that is borrowed mutably. Volatile, since the helpers in between read it.
        unsafe { core::ptr::write_volatile(&raw mut frame.walking, walking.into()) };
    }
}
