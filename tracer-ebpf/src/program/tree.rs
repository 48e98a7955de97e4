//! Finds a VMA in the process's tree (`mm_mt`, a maple tree since 6.1) while a writer holds `mmap_lock`.
//!
//! `bpf_find_vma` only tries the lock, and a thread that maps or protects memory without a pause leaves it free for a
//! microsecond in a thousand. The kernel itself reads the tree without the lock on its way to a page fault
//! (`lock_vma_under_rcu`): nodes are replaced, not rewritten, and freed after a grace period, which no program outlives.
//!
//! Nothing here is trusted: what is seen counts where the tree and the VMA agree on its range, the VMA is one of this
//! process, and a second look sees the same. A writer in the middle of a change, or another layout of the tree, only makes
//! the look vain.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel_buf};
use tracer_ebpf::record::{Frame, Look, NODE_WORDS, Sighted, Tree};

use crate::program::{
    kernel::{self, Probed, read},
    settings::setting,
    verifier::{apart, forgotten},
    zero::zero,
};

/// `enum maple_type` of `include/linux/maple_tree.h`: leaves and nodes of ranges, and nodes that know the gaps below them.
const LEAF: u64 = 1;
const RANGE: u64 = 2;
const GAPS: u64 = 3;

/// `MAPLE_NODE_MASK`: nodes are aligned to their size. `MAPLE_NODE_TYPE_SHIFT` and `_MASK`: the bits in which a pointer to one
/// carries its type.
const NODE_MASK: u64 = 0xff;
const TYPE_SHIFT: u64 = 3;
const TYPE_MASK: u64 = 0xf;
/// Levels from the root to the leaves: eight hold more VMAs than there can be.
const MOST_LEVELS: u32 = 8;
/// Pivots of a node: at most one less than slots.
const MOST_PIVOTS: u32 = 15;

const WORD: u32 = size_of::<u64>() as u32;

/// Looks for the VMA at the walker's address; what it came to stands in `frame.tree.look`.
#[inline(always)]
pub fn look(frame: &mut Frame) {
    look_twice(frame);
}

apart! {
fn look_twice([frame: Frame]) {
    frame.tree.look = Look::Unsure as u64;
    sight(frame);
    if forgotten(&frame.tree.whole) == 0 || !agrees(frame) {
        return 0;
    }
    keep(&mut frame.tree);
    sight(frame);
    if forgotten(&frame.tree.whole) == 0 || differs(&frame.tree) {
        return 0;
    }
    let found = if frame.tree.seen.vma == 0 { Look::Hole } else { Look::Found };
    frame.tree.look = found as u64;
}
}

/// Whether tree and VMA tell the same; of a hole there is no VMA to ask.
#[inline(always)]
fn agrees(frame: &Frame) -> bool {
    let seen = &frame.tree.seen;
    // SAFETY: takes nothing, cannot fail.
    let mm: u64 = read(unsafe { bpf_get_current_task() }, setting!(offset.task_mm)).unwrap_or(0);
    seen.vma == 0 || seen.mm == mm && seen.start == seen.first && seen.end == seen.last.wrapping_add(1)
}

/// Puts what was seen aside; word by word, since a copy of a struct becomes a call that goes byte by byte.
#[inline(always)]
fn keep(tree: &mut Tree) {
    let (seen, before) = ((&raw const tree.seen).cast::<u64>(), (&raw mut tree.before).cast::<u64>());
    for word in 0..Sighted::WORDS {
        // SAFETY: both are that many words.
        unsafe { before.add(word).write_volatile(seen.add(word).read_volatile()) };
    }
}

/// Whether the second look saw anything else.
#[inline(always)]
fn differs(tree: &Tree) -> bool {
    let (seen, before) = ((&raw const tree.seen).cast::<u64>(), (&raw const tree.before).cast::<u64>());
    let mut different = 0;
    for word in 0..Sighted::WORDS {
        // SAFETY: both are that many words.
        different |= unsafe { seen.add(word).read_volatile() ^ before.add(word).read_volatile() };
    }
    different != 0
}

apart! {
/// One look: the way down, and the VMA it leads to.
fn sight([frame: Frame]) {
    frame.tree.whole = 0;
    frame.tree.seen.first = 0;
    frame.tree.seen.last = u64::MAX;
    // SAFETY: takes nothing, cannot fail.
    let task = unsafe { bpf_get_current_task() };
    let Some(mm) = read::<u64>(task, setting!(offset.task_mm)) else { return 0 };
    let Some(root) = read::<u64>(mm, setting!(offset.mm_tree) + setting!(offset.tree_root)) else { return 0 };
    frame.tree.entry = root;
    for _ in 0..MOST_LEVELS {
        if frame.tree.whole == 0 {
            descend(frame);
        }
    }
    if forgotten(&frame.tree.whole) == 0 {
        return 0;
    }
    fill(frame);
}
}

apart! {
/// One level down; `whole` at a leaf.
fn descend([frame: Frame]) {
    let entry = frame.tree.entry;
    let node = entry & !NODE_MASK;
    // A slot that was emptied, or a way that failed on a level above.
    if node == 0 {
        return 0;
    }
    let bytes = (&raw mut frame.tree.node).cast::<[u8; NODE_WORDS * 8]>();
    // SAFETY: the field is that long, and any bytes make integers.
    if unsafe { bpf_probe_read_kernel_buf(node as *const u8, &mut *bytes) }.is_err() {
        frame.tree.entry = 0;
        return 0;
    }
    // `ma_dead_node`: one that was replaced is its own parent.
    if frame.tree.node[0] & !NODE_MASK == node {
        frame.tree.entry = 0;
        return 0;
    }
    let kind = (entry >> TYPE_SHIFT) & TYPE_MASK;
    if kind == GAPS {
        let (pivots, slots) = (setting!(offset.gaps_pivots) / WORD, setting!(offset.gaps_slots) / WORD);
        choose(frame, pivots, slots, setting!(offset.gaps_meta));
    } else if kind == RANGE || kind == LEAF {
        let (pivots, slots) = (setting!(offset.range_pivots) / WORD, setting!(offset.range_slots) / WORD);
        choose(frame, pivots, slots, setting!(offset.range_meta));
    } else {
        frame.tree.entry = 0;
    }
    frame.tree.whole = u64::from(kind == LEAF);
}
}

apart! {
/// The slot of the node that holds the address, as `mtree_range_walk` finds it: behind `pivots`, the last bytes of all slots but
/// the last one, stand `slots`; `meta` is where it says which of them is the last, unless all are in use.
fn choose([frame: Frame], pivots: u32, slots: u32, meta: u32) {
    let address = frame.walker.address;
    let count = slots - pivots;
    let full = word(frame, slots - 1);
    let mut end = count;
    if full == 0 {
        end = (word(frame, meta / WORD) >> (meta % WORD * 8)) as u32 & 0xff;
    } else if full == frame.tree.seen.last {
        end = count - 1;
    }
    let mut slot = 0;
    for pivot in 0..MOST_PIVOTS {
        if pivot >= end || pivot >= count {
            break;
        }
        let last = word(frame, pivots + pivot);
        if last >= address {
            frame.tree.seen.last = last;
            break;
        }
        frame.tree.seen.first = last.wrapping_add(1);
        slot = pivot + 1;
    }
    frame.tree.slot = slot.into();
    frame.tree.entry = word(frame, slots + forgotten(&frame.tree.slot) as u32);
}
}

#[inline(always)]
fn word(frame: &Frame, place: u32) -> u64 {
    frame.tree.node[place as usize % NODE_WORDS]
}

/// What the VMA itself says.
#[inline(always)]
fn fill(frame: &mut Frame) {
    let vma = frame.tree.entry;
    let seen = &mut frame.tree.seen;
    seen.vma = vma;
    zero!(seen.start, seen.end, seen.mm, seen.file, seen.filesystem, seen.kind);
    if vma == 0 {
        return;
    }
    seen.start = read(vma, setting!(offset.vma_start)).unwrap_or(0);
    seen.mm = read(vma, setting!(offset.vma_mm)).unwrap_or(0);
    // Last: the ways through it are many, and the verifier follows each to the end.
    let what = kernel::vma::<Probed>(vma);
    seen.end = what.end;
    seen.file = what.file;
    seen.filesystem = what.filesystem;
    seen.kind = what.kind.0.into();
}
