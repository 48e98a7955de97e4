//! Buffers of more than 1 GiB on kernels before 7.2, which refuse them before any hook of ours: the call fails, and none of
//! the buffers that were seen did. The iovec at which the kernel stopped is then read from the task's memory.

use aya_ebpf::helpers::bpf_probe_read_user;
use tracer_ebpf::{
    operation::Operation,
    policy::Traits,
    record::{Frame, JudgedKey, ProcessKey},
};

use crate::program::{
    by_traits,
    kernel::{self, Iovec},
    verifier::apart,
};

/// `EFAULT` of `include/uapi/asm-generic/errno-base.h`.
const EFAULT: i64 = -14;

/// Counts the buffer that made the call fail where its length was the reason.
#[inline(always)]
pub fn refused(frame: &mut Frame, operation: Operation, ret: i64) {
    if ret == EFAULT && frame.registration.failed_buffers == 0 {
        too_long(frame, operation as u32);
    }
}

apart! {
fn too_long([frame: Frame], operation: u32) {
    let iovecs = if operation == Operation::Update as u32 {
        // `struct io_uring_rsrc_update2.data`.
        let Some(data) = read(frame.request.wrapping_add(8)) else { return 0 };
        data
    } else {
        frame.request
    };
    // Empty slots among the iovecs reach no hook either. Then this is one before, which was accepted, and not too long.
    let at = iovecs.wrapping_add(u64::from(frame.registration.buffers) * size_of::<Iovec>() as u64);
    let Some(length) = read(at.wrapping_add(8)) else { return 0 };
    let traits = Traits::of_length(length);
    if traits.0 != 0 {
        let ProcessKey { began_ns, pid, .. } = kernel::process_kept_apart();
        by_traits::count_as(&JudgedKey { pid, began_ns, ..JudgedKey::of_length(traits, 14) }, 1, length);
    }
}
}

/// A word of the task's memory, which the kernel has just read itself.
#[inline(always)]
fn read(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}
