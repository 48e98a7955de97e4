//! Buffers by what lies behind them, and the names of the filesystems there.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_ebpf::{
    backing::{BackingKey, BackingSlice, BackingTotals, Kind},
    counter::Counter,
    record::{BACKING_SLICES, BufferRecord},
};

use crate::program::{
    kernel,
    maps::{BACKINGS, Counters, FILESYSTEMS, add, count},
    verifier::apart,
};

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
pub fn other_backings([buffer: BufferRecord], failed: u32) {
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

/// The first buffer with this backing: makes its entry, and notes the filesystem's name.
#[inline(always)]
fn new_backing(key: &BackingKey) -> Option<*mut BackingTotals> {
    name_filesystem(key.filesystem);
    // Another CPU may have made it meanwhile; then this fails and the look-up finds that one.
    let _ = BACKINGS.insert(key, BackingTotals { buffers: 0, vmas: 0, bytes: 0 }, BPF_NOEXIST.into());
    BACKINGS.get_ptr_mut(key)
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
