//! What accepted buffers cost by VMAs and size, the largest ones, and the files that share a buffer: for sessions.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_comm};
use tracer_ebpf::{
    counter::Counter,
    histogram,
    record::{
        BufferRecord, COST_PAGES, COST_VMAS, FILES, Frame, Largest, ProcessKey, RegistrationRecord, SharedFile,
        SharedFileKey, Walk, flag,
    },
};

use crate::program::{
    by_backing, kernel,
    maps::{COSTS, LARGEST, SHARED_FILES, add_field, count, own},
    settings::setting,
};

/// Where the largest registration and buffer stand in the map.
const REGISTRATION: u32 = 0;
const BUFFER: u32 = 1;

/// Counts a buffer that returned.
#[inline(always)]
pub fn buffer(frame: &mut Frame) {
    if frame.buffer.walk == Walk::Complete as u8 {
        let buffer = &frame.buffer;
        if buffer.ret == 0 && buffer.flags & (flag::PINNED | flag::PARTS_MISSED) == flag::PINNED {
            cost(buffer, frame.walker.retries != 0);
        }
        largest(BUFFER, buffer.vmas.into(), buffer.length, buffer.pin_ns, 1);
    }
    if frame.buffer.vm_files > 1 {
        shared_files(frame);
    }
}

/// A registration that ended.
#[inline(always)]
pub fn registration(registration: &RegistrationRecord) {
    if registration.flags & (flag::VMAS_PARTIAL | flag::VMAS_REPEATED) == 0 {
        let RegistrationRecord { vmas, bytes, duration_ns, buffers, .. } = *registration;
        largest(REGISTRATION, vmas, bytes, duration_ns, buffers);
    }
}

#[inline(never)]
fn cost(buffer: &BufferRecord, waited: bool) {
    // Whole pages, the partial ones at both ends among them.
    let page_shift = setting!(kernel.page_shift);
    let first = buffer.address >> page_shift;
    let pages = ((buffer.address + buffer.length - 1) >> page_shift) - first + 1;
    let cell = log2_bucket::<COST_VMAS>(buffer.vmas.into()) * COST_PAGES as u32 + log2_bucket::<COST_PAGES>(pages);
    let Some(cost) = own(&COSTS, cell) else { return };
    add_field!(cost.buffers, 1);
    add_field!(cost.vmas, u64::from(buffer.vmas));
    add_field!(cost.bytes, buffer.length);
    add_field!(cost.pin_ns, buffer.pin_ns);
    // One that waited for a writer tells what the wait cost, and not the pass.
    if !waited {
        add_field!(cost.passes, 1);
        add_field!(cost.pass_vmas, u64::from(buffer.vmas));
        add_field!(cost.pass_ns, buffer.walk_ns);
    }
    add_field!(cost.faults, buffer.minor_faults + buffer.major_faults);
    if buffer.flags & flag::FAULTS_UNTOLD != 0 {
        add_field!(cost.untold_faults, 1);
    }
    if buffer.lookups != 0 {
        add_field!(cost.slow, 1);
        add_field!(cost.slow_ns, buffer.pin_ns);
    }
}

/// The number of the highest bit, at most the last of `BUCKETS`. From a table: of a comparison with each the verifier would
/// follow every number, together with every one of the other axis.
#[inline(always)]
fn log2_bucket<const BUCKETS: usize>(value: u64) -> u32 {
    let bucket = histogram::log2_bucket(value);
    if bucket < BUCKETS as u32 { bucket } else { BUCKETS as u32 - 1 }
}

/// Remembers what has more VMAs than any before on this CPU; the programs that come here do not interrupt each other.
#[inline(never)]
fn largest(which: u32, vmas: u64, bytes: u64, nanoseconds: u64, buffers: u32) {
    let Some(largest) = own(&LARGEST, which) else { return };
    // SAFETY: a value of the map, of plain integers.
    let largest: &mut Largest = unsafe { &mut *largest };
    if vmas > largest.vmas {
        largest.vmas = vmas;
        largest.bytes = bytes;
        largest.nanoseconds = nanoseconds;
        largest.buffers = buffers;
        let process = kernel::process();
        (largest.pid, largest.began_ns) = (process.pid, process.began_ns);
        largest.comm = bpf_get_current_comm().unwrap_or_default();
    }
}

#[inline(never)]
fn shared_files(frame: &mut Frame) {
    let process = kernel::process();
    for index in 0..FILES {
        if index as u32 >= frame.buffer.vm_files {
            break;
        }
        if let Some(file) = frame.buffer_vm_files.get(index)
            && shared_file(*file, &process, frame.buffer_ns).is_none()
        {
            count(Counter::LostFiles);
        }
    }
}

#[inline(never)]
fn shared_file(file: u64, process: &ProcessKey, buffer_ns: u64) -> Option<()> {
    let (superblock, inode) = kernel::identity(file)?;
    let ProcessKey { began_ns, pid, .. } = *process;
    let key = SharedFileKey { superblock, inode, began_ns, pid, reserved: 0 };
    if SHARED_FILES.get_ptr(key).is_none() {
        let mut described = SharedFile { buffers: 0, last_ns: 0, filesystem: 0, kind: 0, name: [0; 32] };
        kernel::describe(file, superblock, &mut described)?;
        by_backing::name_filesystem(described.filesystem);
        // Another CPU may have made it meanwhile; then this fails and the look-up finds that one.
        let _ = SHARED_FILES.insert(key, described, BPF_NOEXIST.into());
    }
    let described = SHARED_FILES.get_ptr_mut(key)?;
    // SAFETY: a value of the map, of plain integers.
    let last_ns = unsafe { &mut (*described).last_ns };
    if *last_ns != buffer_ns {
        *last_ns = buffer_ns;
        add_field!(described.buffers, 1);
    }
    Some(())
}
