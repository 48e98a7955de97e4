//! The walk over the VMAs of a buffer on kernels before 5.17: down `mm_rb`, then along `vm_next`.
//!
//! Nothing there holds `mmap_lock` for us, so it runs where the kernel holds it itself: at the entry of
//! `pin_user_pages`, which `io_sqe_buffer_register` calls with the lock taken for reading. A program may run a
//! million instructions by the verifier's count, so a walk is done in legs, each a tail call of the next.

use aya_ebpf::EbpfContext;
use tracer_ebpf::record::{Frame, Walk};

use crate::{
    kernel::{self, Probed},
    maps::{WALKERS, setting},
    walk,
};

/// VMAs of one leg. A chain of tail calls has at most 33 programs, so a walk sees 16,896 VMAs; a longer leg would see
/// more, and would take the verifier seconds at every start.
const LEG: u32 = 512;

/// Twice the logarithm of the most VMAs: how deep a red-black tree can be.
const DEPTH: u32 = 48;

/// The first VMA that ends above `address`, 0 for none (`find_vma`).
#[inline(always)]
pub fn first(address: u64) -> u64 {
    let node_offset = u64::from(setting!(offset.vma_rb));
    // `rb_root.rb_node` is the root's only member; `rb_node` is { __rb_parent_color, rb_right, rb_left }.
    let mut node: u64 = kernel::read(kernel::mm(), setting!(offset.mm_rb)).unwrap_or(0);
    let mut found = 0;
    for _ in 0..DEPTH {
        if node == 0 {
            break;
        }
        let vma = node - node_offset;
        let end: u64 = kernel::read(vma, setting!(offset.vma_end)).unwrap_or(0);
        if end > address {
            found = vma;
            node = kernel::read(node, 16).unwrap_or(0);
        } else {
            node = kernel::read(node, 8).unwrap_or(0);
        }
    }
    found
}

/// Walks on from where the frame's walker stands, and into the next leg where one is not enough.
#[inline(always)]
pub fn leg(context: &impl EbpfContext, frame: &mut Frame) {
    for _ in 0..LEG {
        let vma = frame.walker.vma;
        if vma == 0
            || kernel::read::<u64>(vma, setting!(offset.vma_start)).is_none_or(|start| start > frame.walker.address)
        {
            frame.buffer.walk = Walk::Hole as u8;
            return;
        }
        walk::take(frame, &kernel::vma::<Probed>(vma));
        if frame.walker.address >= frame.walker.end {
            frame.buffer.walk = Walk::Complete as u8;
            return;
        }
        frame.walker.vma = kernel::read(vma, setting!(offset.vma_next)).unwrap_or(0);
    }
    // SAFETY: a program of the same type and hook. If the call fails, the walk stays marked as cut.
    unsafe { WALKERS.tail_call(context, 0) };
}
