//! Look-ups of a VMA that the kernel makes while it pins. The function is on every slow GUP, so sessions ask for it
//! and the daemon does not.
//!
//! ```c
//! struct vm_area_struct *gup_vma_lookup(struct mm_struct *, unsigned long addr);       // since 6.5
//! int check_vma_flags(struct vm_area_struct *, unsigned long gup_flags);               // before it
//! struct vm_area_struct *find_extend_vma(struct mm_struct *, unsigned long addr);      // 5.10
//! ```

use tracer_ebpf::record::Stage;

use super::{entry, exit, phase};
use crate::program::{frame, settings::setting};

entry!(lookup_enter_kprobe, lookup_enter_fentry, |_context| enter());
// Only at a function that is the look-up itself, and where a session asks for phases.
exit!(lookup_exit_kretprobe, lookup_exit_fexit, || phase::lookup_returned());

#[inline(always)]
fn enter() {
    let Some(frame) = frame::current() else { return };
    if frame.stage == Stage::Pin as u32 {
        frame.registration.lookups += 1;
        frame.buffer.lookups += 1;
        if setting!(kernel.lookup_returns) != 0 {
            phase::begin(&mut frame.times.lookup_ns, &mut frame.times.missed);
        }
    }
}
