//! The state of a task between the hooks of its registration.
//!
//! Since 5.12 it lies in the task's own storage: found in some fifty instructions, it moves with the task over CPUs,
//! cannot be mixed with another's, and goes when the thread goes. Before that it stands in a hash map under the
//! thread's id, from the entry to the tracepoint that ends every registration.

use aya_ebpf::{
    bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, BPF_NOEXIST, task_struct},
    helpers::{bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem, bpf_task_storage_get},
};
use tracer_ebpf::record::{Frame, Stage};

use crate::program::{
    calls, kernel,
    maps::{BLANK, FRAMES},
    session,
    settings::setting,
};

/// The current task's frame, if it ever had one.
#[inline(always)]
pub fn current() -> Option<&'static mut Frame> {
    of(kernel::task())
}

/// The same; `task` is the current one.
#[inline(always)]
pub fn of(task: *mut task_struct) -> Option<&'static mut Frame> {
    get(task, 0)
}

/// The current task's frame, made where there is none. `None` where the kernel has no memory for it.
#[inline(always)]
pub fn open() -> Option<&'static mut Frame> {
    let task = kernel::task();
    if setting!(kernel.task_storage) != 0 {
        return get(task, BPF_LOCAL_STORAGE_GET_F_CREATE);
    }
    if let Some(frame) = get(task, 0) {
        return Some(frame);
    }
    let key = kernel::thread();
    let blank = BLANK.get_ptr(0)?;
    // SAFETY: key and value are valid for the sizes of the map's definition.
    unsafe {
        bpf_map_update_elem(
            FRAMES.as_ptr(),
            (&raw const key).cast_mut().cast(),
            blank.cast_mut().cast(),
            BPF_NOEXIST.into(),
        )
    };
    get(task, 0)
}

/// Marks a call that begins before calls are counted: it is none of the session's, though its end may come when they are.
/// Its end takes the mark away.
#[inline(always)]
pub fn note_early() {
    if !session::is_counting()
        && let Some(frame) = open()
    {
        frame.early = 1;
    }
}

/// Ends the frame's use; it is not to be touched afterwards.
#[inline(always)]
pub fn close(frame: &mut Frame) {
    frame.stage = Stage::Idle as u32;
    frame.early = 0;
    calls::end(frame);
    frame.call_ns = 0;
    if setting!(kernel.task_storage) == 0 {
        let key = kernel::thread();
        // SAFETY: the key is valid for the size of the map's definition.
        unsafe { bpf_map_delete_elem(FRAMES.as_ptr(), (&raw const key).cast_mut().cast()) };
    }
}

#[inline(always)]
fn get(task: *mut task_struct, flags: u32) -> Option<&'static mut Frame> {
    let found = if setting!(kernel.task_storage) != 0 {
        // SAFETY: the map is one of tasks and the task is typed; no value is handed in.
        unsafe { bpf_task_storage_get(FRAMES.as_ptr(), task, core::ptr::null_mut(), flags.into()) }
    } else {
        let key = kernel::thread();
        // SAFETY: the key is valid for the size of the map's definition.
        unsafe { bpf_map_lookup_elem(FRAMES.as_ptr(), (&raw const key).cast_mut().cast()) }
    };
    // SAFETY: a value of the map. Only the task itself comes here, in the order of its own calls, so nothing else
    // holds it meanwhile.
    unsafe { found.cast::<Frame>().as_mut() }
}
