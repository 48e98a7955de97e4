//! Buffers that a policy could object to, or that the kernel refused, counted by what the policies look at. All others are
//! accepted by every policy, and were: one count is enough for them.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_ebpf::{
    backing::BackingSlice,
    counter::Counter,
    policy::Traits,
    record::{BufferRecord, JudgedKey, JudgedTotals, ProcessKey},
};

use crate::program::{
    cgroup, kernel,
    maps::{JUDGED, add_field, count},
    settings::setting,
    verifier::apart,
};

apart! {
pub fn judged([buffer: BufferRecord], traits: u32) {
    let traits = Traits(traits);
    let slice = objected(buffer);
    let ProcessKey { began_ns, pid, .. } = kernel::process_kept_apart();
    let errno = buffer.ret.wrapping_neg().cast_unsigned();
    let key = JudgedKey { filesystem: slice.filesystem, kind: slice.kind, traits, errno, pid, began_ns };
    count_as(&key, 1, buffer.length);
    // What is refused here already has no more to lose.
    if setting!(session.workloads) != 0 && buffer.ret >= 0 {
        cgroup::judged(traits, 1);
    }
}
}

/// Counts buffers of `bytes` together under `key`.
#[inline(always)]
pub fn count_as(key: &JudgedKey, buffers: u32, bytes: u64) {
    let totals = JUDGED.get_ptr_mut(key).or_else(|| {
        // Another CPU may have made it meanwhile; then this fails and the look-up finds that one.
        let _ = JUDGED.insert(key, JudgedTotals { buffers: 0, bytes: 0 }, BPF_NOEXIST.into());
        JUDGED.get_ptr_mut(key)
    });
    let Some(totals) = totals else { return count(Counter::LostJudgements) };
    add_field!(totals.buffers, u64::from(buffers));
    add_field!(totals.bytes, bytes);
}

/// The first backing that adds a trait, or the first of all.
#[inline(always)]
pub fn objected(buffer: &BufferRecord) -> &BackingSlice {
    for slice in &buffer.backings {
        if slice.vmas == 0 {
            break;
        }
        if slice.kind.traits(true).0 != 0 {
            return slice;
        }
    }
    &buffer.backings[0]
}
