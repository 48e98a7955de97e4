//! What user space runs itself: the search for rings that were there before, and the reading of a table.
//!
//! ```c
//! struct bpf_iter__task_file { struct bpf_iter_meta *meta; struct task_struct *task; u32 fd; struct file *file; };
//! struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; };
//! ```
//!
//! Nothing takes a lock of a ring: a search or a reading keeps nobody waiting.

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_loop, programs::RawTracePointContext};
use tracer_ebpf::table::{Listed, Range, SLOTS_AT_ONCE, Table, listed};

use crate::program::{
    kernel::{self, Slot},
    maps::{LISTED, TABLES},
    settings::setting,
    tables,
};

/// `IO_RINGFD_REG_MAX` of `include/linux/io_uring_types.h`.
const INDEXES: u32 = 16;

/// Every open file of every process, once for tasks that share them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn rings_of_files(context: *mut c_void) -> i32 {
    let file = kernel::read(context as u64, setting!(offset.file_found)).unwrap_or(0);
    look_at(file, kernel::read(context as u64, setting!(offset.file_found_task)).unwrap_or(0));
    0
}

/// Every task: a ring with an index (`IORING_REGISTER_RING_FDS`, `IORING_SETUP_REGISTERED_FD_ONLY`) needs no fd.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn rings_of_indexes(context: *mut c_void) -> i32 {
    let task: u64 = kernel::read(context as u64, setting!(offset.task_found)).unwrap_or(0);
    let own: u64 = if task == 0 { 0 } else { kernel::read(task, setting!(offset.task_rings)).unwrap_or(0) };
    if own != 0 {
        for index in 0..INDEXES {
            let place = setting!(offset.indexed_rings) + index * size_of::<u64>() as u32;
            look_at(kernel::read(own, place).unwrap_or(0), task);
        }
    }
    0
}

/// Notes the ring that a file is, if it is one. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look_at(file: u64, task: u64) -> u32 {
    if file != 0
        && kernel::is_ring(file)
        && let Some(ring) = kernel::read::<u64>(file, setting!(offset.file_private))
        && ring != 0
    {
        tables::found(ring, task);
    }
    0
}

/// Lists the buffers of a ring's table from a slot on, as many as find room: for `BPF_PROG_TEST_RUN`, attached nowhere. The
/// library's macro for such programs would drop what it says.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub extern "C" fn list_table(context: *mut c_void) -> u32 {
    let context = RawTracePointContext::new(context);
    let (ring, first): (u64, u64) = (context.arg(0), context.arg(1));
    let before = state(ring);
    if before == State::default() {
        return listed::GONE;
    }
    if before.changing != 0 {
        return listed::CHANGED;
    }
    let (slots, count) = kernel::table(ring);
    if slots != before.slots {
        // Its end was missed.
        tables::remove(ring);
        return listed::GONE;
    }
    let Some(listed) = LISTED.get_ptr_mut(0) else { return listed::UNREADABLE };
    let rest = u64::from(count).saturating_sub(first).min(SLOTS_AT_ONCE as u64);
    let mut part = Part {
        listed,
        slots: slots.wrapping_add(first.wrapping_mul(size_of::<u64>() as u64)),
        buffers: 0,
        unreadable: 0,
    };
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the call.
    unsafe { bpf_loop(rest as u32, slot as *mut _, (&raw mut part).cast(), 0) };
    // SAFETY: fields of a value of the map.
    unsafe {
        (&raw mut (*listed).slots).write_volatile(count.into());
        (&raw mut (*listed).buffers).write_volatile(part.buffers);
    }
    // What a change makes unreadable is no fault of the kernel's memory.
    if state(ring) != before {
        return listed::CHANGED;
    }
    if part.unreadable != 0 { listed::UNREADABLE } else { listed::WHOLE }
}

/// What tells whether a table stayed as it was.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct State {
    made_ns: u64,
    slots: u64,
    changes: u32,
    changing: u32,
}

#[inline(always)]
fn state(ring: u64) -> State {
    let Some(table) = TABLES.get_ptr(ring) else { return State::default() };
    // SAFETY: a value of the map, of plain integers.
    let Table { made_ns, slots, changes, changing, .. } = unsafe { table.read_volatile() };
    State { made_ns, slots, changes, changing }
}

/// What the callback is given. Lies on the stack.
#[repr(C)]
struct Part {
    listed: *mut Listed,
    slots: u64,
    buffers: u64,
    unreadable: u64,
}

/// Lists one slot.
unsafe extern "C" fn slot(index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `list_table` gives it, and nothing else has it meanwhile.
    let part = unsafe { &mut *context.cast::<Part>() };
    match kernel::slot(part.slots + index * size_of::<u64>() as u64) {
        Slot::Empty => {}
        Slot::Unreadable => part.unreadable = 1,
        Slot::Buffer(range) => {
            let place = part.buffers as usize & (SLOTS_AT_ONCE - 1);
            // SAFETY: a value of the map; the mask keeps the place inside.
            unsafe { (&raw mut (*part.listed).ranges).cast::<Range>().add(place).write(range) };
            part.buffers += 1;
        }
    }
    0
}
