//! The walk over the VMAs of a buffer: `bpf_loop` over `bpf_find_vma` (both since 5.17).
//!
//! The kernel may pin a whole buffer without looking up one VMA (`gup_fast`, since 6.10 for io_uring), so what a
//! buffer touches cannot be counted from its look-ups; the range has to be walked. What belongs together is gathered
//! in the walker and put into the frame only when the backing changes, so a VMA costs one look-up and a few loads.

use aya_ebpf::{
    bindings::task_struct,
    cty::c_void,
    helpers::{bpf_find_vma, bpf_loop},
};
use tracer_ebpf::{
    backing::Kind,
    record::{BACKING_SLICES, FILES, Frame, Walk, flag},
};

use crate::{
    frame,
    kernel::{self, Typed, Vma},
};

/// More VMAs than `vm.max_map_count` can be raised to in earnest; a walk that gets here says that it was cut.
const MOST_VMAS: u32 = 1 << 22;

const ENOENT: i64 = -2;

/// Where a walk stands. Lies on the stack, as `bpf_find_vma` demands of what it hands to its callback.
#[repr(C)]
pub struct Walker {
    /// Where the next VMA is looked for.
    pub address: u64,
    /// First byte behind the range.
    pub end: u64,
    /// Number of the [`Walk`]; `Cut` until it is known better.
    pub outcome: u64,
    /// VMAs seen.
    pub vmas: u64,
    /// VMAs of the present backing.
    pub slice_vmas: u64,
    /// Where the present backing began.
    pub slice_start: u64,
    /// Filesystem of the present backing.
    pub filesystem: u64,
    /// Kind of the present backing.
    pub kind: u64,
    /// The last file seen.
    pub file: u64,
}

impl Walker {
    #[inline(always)]
    pub fn new(address: u64, end: u64) -> Self {
        Self {
            address,
            end,
            outcome: Walk::Cut as u64,
            vmas: 0,
            slice_vmas: 0,
            slice_start: address,
            filesystem: 0,
            kind: 0,
            file: 0,
        }
    }
}

/// Walks the buffer of `frame` from `address` to `end`.
#[inline(always)]
pub fn walk(frame: &mut Frame, address: u64, end: u64) {
    let mut walker = Walker::new(address, end);
    // Most buffers lie in one VMA: it is looked up without setting up a loop.
    if step(0, &raw mut walker) == 0 {
        // SAFETY: the callback has the signature that the helper calls, and the context outlives the call.
        unsafe { bpf_loop(MOST_VMAS, step as *mut c_void, (&raw mut walker).cast(), 0) };
    }
    finish(frame, &walker);
}

/// Puts the last backing and the outcome into the frame.
#[inline(always)]
pub fn finish(frame: &mut Frame, walker: &Walker) {
    if walker.slice_vmas != 0 {
        put_slice(frame, walker);
    }
    frame.buffer.walk = walker.outcome as u8;
    frame.buffer.vmas = walker.vmas as u32;
}

/// One VMA; 0 to go on, 1 to stop.
extern "C" fn step(_index: u64, walker: *mut Walker) -> i64 {
    // SAFETY: always the walker of `walk`.
    let state = unsafe { &mut *walker };
    // SAFETY: the task is typed; the callback has the signature that the helper calls.
    let ret = unsafe { bpf_find_vma(kernel::task(), state.address, visit as *mut c_void, walker.cast(), 0) };
    if ret != 0 {
        state.outcome = if ret == ENOENT { Walk::Hole } else { Walk::Busy } as u64;
        return 1;
    }
    if state.address >= state.end {
        state.outcome = Walk::Complete as u64;
        return 1;
    }
    0
}

extern "C" fn visit(_task: *mut task_struct, vma: u64, walker: *mut Walker) -> i64 {
    // SAFETY: always the walker of `walk`.
    let walker = unsafe { &mut *walker };
    let vma = kernel::vma::<Typed>(vma);
    take(walker, &vma, frame::current);
    0
}

/// Counts a VMA. `frame` is asked for only when a file or a backing has to be put away.
#[inline(always)]
pub fn take(walker: &mut Walker, vma: &Vma, frame: impl Fn() -> Option<&'static mut Frame>) {
    let backing_changes = walker.kind != u64::from(vma.kind.0) || walker.filesystem != vma.filesystem;
    let file_changes = vma.file != 0 && walker.file != vma.file;
    if backing_changes || file_changes {
        if let Some(frame) = frame() {
            if backing_changes && walker.slice_vmas != 0 {
                put_slice(frame, walker);
            }
            if file_changes {
                put_file(frame, vma.file);
            }
        }
        if backing_changes {
            walker.slice_vmas = 0;
            walker.slice_start = walker.address;
            walker.kind = u64::from(vma.kind.0);
            walker.filesystem = vma.filesystem;
        }
        walker.file = vma.file;
    }
    walker.vmas += 1;
    walker.slice_vmas += 1;
    walker.address = vma.end;
}

/// Adds the present backing to the buffer's.
#[inline(always)]
pub fn put_slice(frame: &mut Frame, walker: &Walker) {
    let reached = if walker.address < walker.end { walker.address } else { walker.end };
    let bytes = reached - walker.slice_start;
    let kind = Kind(walker.kind as u32);
    for index in 0..BACKING_SLICES {
        let slice = &mut frame.buffer.backings[index];
        if slice.vmas == 0 {
            slice.filesystem = walker.filesystem;
            slice.kind = kind;
            slice.vmas = walker.slice_vmas as u32;
            slice.bytes = bytes;
            return;
        }
        if slice.kind.0 == kind.0 && slice.filesystem == walker.filesystem {
            slice.vmas += walker.slice_vmas as u32;
            slice.bytes += bytes;
            return;
        }
    }
    frame.buffer.flags |= flag::BACKINGS_CAPPED;
}

/// Adds a file to the buffer's and the registration's distinct ones.
#[inline(always)]
fn put_file(frame: &mut Frame, file: u64) {
    if !insert(&mut frame.buffer_files, &mut frame.buffer.files, file) {
        frame.buffer.flags |= flag::FILES_CAPPED;
    }
    if !insert(&mut frame.registration_files, &mut frame.registration.files, file) {
        frame.registration.flags |= flag::FILES_CAPPED;
    }
}

/// Adds to a set; `false` where it is full.
#[inline(always)]
fn insert(set: &mut [u64; FILES], length: &mut u32, file: u64) -> bool {
    for index in 0..FILES {
        if index as u32 >= *length {
            set[index] = file;
            *length = index as u32 + 1;
            return true;
        }
        if set[index] == file {
            return true;
        }
    }
    false
}
