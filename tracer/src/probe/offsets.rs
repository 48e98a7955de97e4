//! From the members that BTF resolved to the offsets that the eBPF programs read by.

use tracer_ebpf::{record::NODE_WORDS, settings::Offsets};

use super::table::{LEDGER, RING, TracepointRole};
use crate::kernel::Types;

/// Where an offset goes.
type Slot = fn(&mut Offsets) -> &mut u32;

/// Every member that is read, as `struct.member`, and its place in the settings.
const TABLE: [(&str, Slot); 86] = [
    ("task_struct.mm", |o| &mut o.task_mm),
    ("task_struct.pending", |o| &mut o.task_pending),
    ("sigpending.signal", |o| &mut o.pending_signals),
    ("task_struct.min_flt", |o| &mut o.task_min_flt),
    ("task_struct.maj_flt", |o| &mut o.task_maj_flt),
    ("task_struct.tgid", |o| &mut o.task_tgid),
    ("task_struct.pid", |o| &mut o.task_number),
    ("task_struct.comm", |o| &mut o.task_comm),
    ("task_struct.stack", |o| &mut o.task_stack),
    ("task_struct.group_leader", |o| &mut o.task_leader),
    ("task_struct.start_time", |o| &mut o.task_began),
    ("task_struct.real_parent", |o| &mut o.task_parent),
    ("task_struct.thread_pid", |o| &mut o.task_pid),
    ("pid.level", |o| &mut o.pid_level),
    ("pid.numbers", |o| &mut o.pid_numbers),
    ("upid.nr", |o| &mut o.number),
    ("upid.ns", |o| &mut o.number_namespace),
    ("pid_namespace.ns", |o| &mut o.namespace_common),
    ("pid_namespace.level", |o| &mut o.namespace_level),
    ("ns_common.inum", |o| &mut o.namespace_inode),
    ("vm_area_struct.vm_end", |o| &mut o.vma_end),
    ("vm_area_struct.vm_flags", |o| &mut o.vma_flags),
    ("vm_area_struct.vm_ops", |o| &mut o.vma_ops),
    ("vm_area_struct.vm_file", |o| &mut o.vma_file),
    ("file.f_inode", |o| &mut o.file_inode),
    ("inode.i_mode", |o| &mut o.inode_mode),
    ("inode.i_flags", |o| &mut o.inode_flags),
    ("inode.i_sb", |o| &mut o.inode_sb),
    ("super_block.s_type", |o| &mut o.sb_type),
    ("super_block.s_magic", |o| &mut o.sb_magic),
    ("file_system_type.name", |o| &mut o.fs_name),
    (NODE, |o| &mut o.node_buf),
    ("io_mapped_ubuf.nr_bvecs", |o| &mut o.imu_bvecs),
    ("io_mapped_ubuf.folio_shift", |o| &mut o.imu_folio_shift),
    ("vm_operations_struct.page_mkwrite", |o| &mut o.ops_page_mkwrite),
    ("vm_operations_struct.pfn_mkwrite", |o| &mut o.ops_pfn_mkwrite),
    ("vm_operations_struct.close", |o| &mut o.ops_close),
    ("super_block.s_bdi", |o| &mut o.sb_bdi),
    ("backing_dev_info.capabilities", |o| &mut o.bdi_capabilities),
    ("io_ring_ctx.cached_sq_head", |o| &mut o.ring_sq_head),
    ("io_ring_ctx.nr_req_allocated", |o| &mut o.ring_allocated),
    ("pt_regs.si", |o| &mut o.second_argument),
    ("file.f_path", |o| &mut o.file_path),
    ("path.dentry", |o| &mut o.path_dentry),
    ("dentry.d_name", |o| &mut o.dentry_name),
    ("qstr.name", |o| &mut o.qstr_name),
    ("inode.i_ino", |o| &mut o.inode_number),
    ("task_struct.cgroups", |o| &mut o.task_cgroups),
    ("css_set.dfl_cgrp", |o| &mut o.css_set_default),
    ("css_set.subsys", |o| &mut o.css_set_subsystems),
    ("cgroup_subsys_state.cgroup", |o| &mut o.css_cgroup),
    ("cgroup.kn", |o| &mut o.cgroup_node),
    ("kernfs_node.id", |o| &mut o.node_id),
    ("kernfs_node.name", |o| &mut o.node_name),
    ("kernfs_node.parent", |o| &mut o.node_parent),
    ("file.private_data", |o| &mut o.file_private),
    ("io_ring_ctx.user_bufs", |o| &mut o.ring_buffers),
    ("io_ring_ctx.nr_user_bufs", |o| &mut o.ring_buffer_count),
    ("io_ring_ctx.buf_table", |o| &mut o.ring_table),
    ("io_rsrc_data.nodes", |o| &mut o.table_nodes),
    ("io_rsrc_data.nr", |o| &mut o.table_count),
    ("io_ring_ctx.mm_account", |o| &mut o.ring_mm),
    ("io_mapped_ubuf.ubuf", |o| &mut o.imu_start),
    ("io_mapped_ubuf.ubuf_end", |o| &mut o.imu_end),
    ("io_mapped_ubuf.len", |o| &mut o.imu_length),
    ("io_mapped_ubuf.is_kbuf", |o| &mut o.imu_is_kernel),
    ("io_mapped_ubuf.flags", |o| &mut o.imu_flags),
    ("io_mapped_ubuf.bvec", |o| &mut o.imu_bvec),
    ("task_struct.io_uring", |o| &mut o.task_rings),
    ("io_uring_task.registered_rings", |o| &mut o.indexed_rings),
    ("bpf_iter__task_file.task", |o| &mut o.file_found_task),
    ("bpf_iter__task_file.file", |o| &mut o.file_found),
    ("bpf_iter__task.task", |o| &mut o.task_found),
    ("mm_struct.mm_mt", |o| &mut o.mm_tree),
    ("maple_tree.ma_root", |o| &mut o.tree_root),
    ("maple_range_64.pivot", |o| &mut o.range_pivots),
    ("maple_range_64.slot", |o| &mut o.range_slots),
    ("maple_range_64.meta", |o| &mut o.range_meta),
    ("maple_arange_64.pivot", |o| &mut o.gaps_pivots),
    ("maple_arange_64.slot", |o| &mut o.gaps_slots),
    ("maple_arange_64.meta", |o| &mut o.gaps_meta),
    ("vm_area_struct.vm_start", |o| &mut o.vma_start),
    ("vm_area_struct.vm_mm", |o| &mut o.vma_mm),
    ("file.f_mode", |o| &mut o.file_mode),
    ("backing_file.user_path", |o| &mut o.backing_path),
    ("dentry.d_sb", |o| &mut o.dentry_superblock),
];

/// A member that is there where a slot of a table is a node of its own (since 6.13).
pub const NODE: &str = "io_rsrc_node.buf";

/// What tells whether a ring has a table of buffers (since 6.13).
pub const TABLE_OF_RING: [&str; 2] = ["io_ring_ctx.buf_table", "io_rsrc_data.nr"];

/// A member of `task_struct` that is there where tracing programs may use task storage (since 5.12; before it,
/// the storage hung off the security blob and only LSM programs could).
pub const TASK_STORAGE: &str = "task_struct.bpf_storage";

/// A member that is there where the pages of a buffer are charged through the function of the role accounting. Where it
/// is gone (since 7.2) the charge is inlined.
pub const CHARGED_PAGES: &str = "io_mapped_ubuf.acct_pages";

/// A member and the one behind it: since 7.2 a buffer's length has eight bytes, as it has to where more than 4 GiB can be
/// registered.
pub const LENGTH: [&str; 2] = ["io_mapped_ubuf.len", "io_mapped_ubuf.nr_bvecs"];

/// Where the programs for perf events read.
pub const EVENTS: [(&str, u32); 6] = {
    let (ledger, ring) = (event(&LEDGER), event(&RING));
    [ledger[0], ledger[1], ledger[2], ring[0], ring[1], ring[2]]
};

const fn event(role: &TracepointRole) -> [(&'static str, u32); 3] {
    match role.classic {
        Some(classic) => classic.event,
        None => panic!("a role that has an event"),
    }
}

/// `kernfs_node.parent` since 6.15.
const NODE_PARENT: &str = "kernfs_node.__parent";

/// Every member that the facts are asked about.
pub const MEMBERS: [&str; TABLE.len() + EVENTS.len() + 4] = {
    let mut members = [TASK_STORAGE; TABLE.len() + EVENTS.len() + 4];
    members[TABLE.len() + EVENTS.len() + 3] = LENGTH[0];
    members[TABLE.len() + EVENTS.len() + 2] = NODE_PARENT;
    members[TABLE.len() + EVENTS.len() + 1] = CHARGED_PAGES;
    let mut i = 0;
    while i < TABLE.len() {
        members[i] = TABLE[i].0;
        i += 1;
    }
    let mut j = 0;
    while j < EVENTS.len() {
        members[i + j] = EVENTS[j].0;
        j += 1;
    }
    members
};

/// Bytes of a node of the tree, and of a word in it.
const NODE_SIZE: u32 = size_of::<[u64; NODE_WORDS]>() as u32;
const WORD: u32 = size_of::<u64>() as u32;

/// What the walk over the VMAs reads.
pub const WALK: [&str; 16] = [
    "vm_area_struct.vm_end",
    "vm_area_struct.vm_flags",
    "vm_area_struct.vm_ops",
    "vm_area_struct.vm_file",
    "file.f_inode",
    "inode.i_mode",
    "inode.i_flags",
    "inode.i_sb",
    "super_block.s_type",
    "super_block.s_magic",
    "file_system_type.name",
    "vm_operations_struct.page_mkwrite",
    "vm_operations_struct.pfn_mkwrite",
    "vm_operations_struct.close",
    "super_block.s_bdi",
    "backing_dev_info.capabilities",
];

/// What finds a VMA in the process's tree without a lock.
const TREE: [&str; 10] = [
    "mm_struct.mm_mt",
    "maple_tree.ma_root",
    "maple_range_64.pivot",
    "maple_range_64.slot",
    "maple_range_64.meta",
    "maple_arange_64.pivot",
    "maple_arange_64.slot",
    "maple_arange_64.meta",
    "vm_area_struct.vm_start",
    "vm_area_struct.vm_mm",
];

/// What finds the parent of a task.
pub const DESCENT: [&str; 2] = ["task_struct.real_parent", "task_struct.tgid"];

/// What finds rings by files and by their tasks' indexes.
pub const SEARCH: [&str; 13] = [
    "bpf_iter__task_file.task",
    "bpf_iter__task_file.file",
    "bpf_iter__task.task",
    "task_struct.io_uring",
    "io_uring_task.registered_rings",
    "file.private_data",
    "file.f_inode",
    "inode.i_sb",
    "super_block.s_magic",
    "file.f_path",
    "path.dentry",
    "dentry.d_name",
    "qstr.name",
];

/// What a table is read by: since 6.13, and before.
const TABLE_OF_NODES: [&str; 5] =
    ["io_ring_ctx.buf_table", "io_rsrc_data.nodes", "io_rsrc_data.nr", NODE, "io_mapped_ubuf.len"];
const TABLE_OF_BUFFERS: [&str; 2] = ["io_ring_ctx.user_bufs", "io_ring_ctx.nr_user_bufs"];
const TABLE_OF_ANY: [&str; 3] = ["io_ring_ctx.mm_account", "io_mapped_ubuf.ubuf", "io_mapped_ubuf.bvec"];

/// What numbers a task by a PID namespace that is not the initial one.
pub const NUMBERS: [&str; 9] = [
    "task_struct.group_leader",
    "task_struct.thread_pid",
    "pid.level",
    "pid.numbers",
    "upid.nr",
    "upid.ns",
    "pid_namespace.ns",
    "pid_namespace.level",
    "ns_common.inum",
];

/// What tells the waits of a task for its own lock, and those that a fatal signal ends.
pub const LOCK: [&str; 3] = ["task_struct.mm", "task_struct.pending", "sigpending.signal"];

/// What tells a ring's end, which is no task's of a process, from a user's call.
pub const OWNER: [&str; 1] = ["task_struct.mm"];

/// What tells the opcode of a system call.
pub const CALL: [&str; 1] = ["pt_regs.si"];

/// What tells a process from one that had its number before.
pub const BEGINNING: [&str; 2] = ["task_struct.group_leader", "task_struct.start_time"];

/// What tells whether a call is under way still.
pub const UNDER_WAY: [&str; 5] =
    ["task_struct.tgid", "task_struct.pid", "task_struct.comm", "task_struct.start_time", "task_struct.stack"];

/// What tells whether a ring was given requests.
pub const REQUESTS: [&str; 1] = ["io_ring_ctx.cached_sq_head"];

/// What tells what a ring's slots hold, up to 6.12.
pub const SLOTS_OF_BUFFERS: [&str; 3] = ["io_ring_ctx.user_bufs", "io_ring_ctx.nr_user_bufs", "io_mapped_ubuf.ubuf"];

/// The same since 6.13.
pub const SLOTS_OF_NODES: [&str; 3] = ["io_ring_ctx.buf_table", "io_rsrc_data.nodes", "io_rsrc_data.nr"];

/// What names a file.
pub const NAMES: [&str; 5] = ["file.f_path", "path.dentry", "dentry.d_name", "qstr.name", "inode.i_ino"];

/// What tells the filesystem under whose name a file is found.
pub const PATHS: [&str; 3] = ["file.f_path", "path.dentry", "dentry.d_sb"];

/// What tells it where that is another's than the file's own, since 6.8.
pub const BACKING_FILES: [&str; 2] = ["file.f_mode", "backing_file.user_path"];

/// What names the cgroup of a task in the default hierarchy, besides the link to the parent.
pub const CGROUP: [&str; 5] =
    ["task_struct.cgroups", "css_set.dfl_cgrp", "cgroup.kn", "kernfs_node.id", "kernfs_node.name"];

/// What finds it in the hierarchy of one controller.
pub const CONTROLLER: [&str; 2] = ["css_set.subsys", "cgroup_subsys_state.cgroup"];

/// What the count of page faults reads.
pub const FAULTS: [&str; 2] = ["task_struct.min_flt", "task_struct.maj_flt"];

/// The offsets that this kernel has; the others stay 0, and the plan sees to it that nothing reads by them.
pub fn resolve(types: &Types) -> Offsets {
    let mut offsets = Offsets::default();
    for (member, slot) in TABLE {
        if let Some(&offset) = types.offsets.get(member) {
            *slot(&mut offsets) = offset;
        }
    }
    if let Some(&offset) = types.offsets.get(NODE_PARENT) {
        offsets.node_parent = offset;
    }
    offsets
}

/// The first member that the path of a task's cgroup is not to be had without.
pub fn missing_for_cgroups(types: &Types) -> Option<&'static str> {
    let parent = types.offsets.contains_key("kernfs_node.parent") || types.offsets.contains_key(NODE_PARENT);
    missing(types, &CGROUP).or((!parent).then_some("kernfs_node.parent"))
}

/// The first member that a ring's table cannot be read without.
pub fn missing_for_tables(types: &Types) -> Option<&'static str> {
    let end = || length_of_buffer(types) == 0 && !types.offsets.contains_key("io_mapped_ubuf.ubuf_end");
    let layout: &[_] = if types.offsets.contains_key(NODE) { &TABLE_OF_NODES } else { &TABLE_OF_BUFFERS };
    missing(types, layout).or_else(|| missing(types, &TABLE_OF_ANY)).or_else(|| end().then_some("io_mapped_ubuf.len"))
}

/// Bytes of `io_mapped_ubuf.len`, up to the member behind it; 0 where there is no such member.
pub fn length_of_buffer(types: &Types) -> u8 {
    let offset = |member: &str| types.offsets.get(member).copied();
    match (offset("io_mapped_ubuf.len"), offset("io_mapped_ubuf.nr_bvecs")) {
        (Some(length), Some(behind)) if behind == length + 4 => 4,
        (Some(_), _) => 8,
        (None, _) => 0,
    }
}

/// See [`tracer_ebpf::settings::Features::imu_kernel`].
pub fn kernel_buffers(types: &Types) -> u8 {
    match (types.offsets.contains_key("io_mapped_ubuf.is_kbuf"), types.offsets.contains_key("io_mapped_ubuf.flags")) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    }
}

/// Whether the tree of a process's VMAs is laid out as the walk reads it: nodes of [`NODE_SIZE`], in each as many slots as
/// pivots and one, and behind them what says how many there are.
pub fn tree_is_known(types: &Types) -> bool {
    let fits = |pivots: u32, slots: u32, meta: u32| {
        let slots_end = slots + (slots.saturating_sub(pivots) / WORD + 1) * WORD;
        pivots == WORD && slots > pivots && slots.is_multiple_of(WORD) && slots_end <= NODE_SIZE && meta < NODE_SIZE
    };
    let o = resolve(types);
    missing(types, &TREE).is_none()
        && fits(o.range_pivots, o.range_slots, o.range_meta)
        && fits(o.gaps_pivots, o.gaps_slots, o.gaps_meta)
}

/// Whether an event is laid out as its program reads it.
pub fn event_is_known(types: &Types, event: &[(&str, u32)]) -> bool {
    event.iter().all(|(member, offset)| types.offsets.get(*member) == Some(offset))
}

/// Whether a buffer's length has eight bytes; `None` where its place is not known.
pub fn has_wide_length(types: &Types) -> Option<bool> {
    let [length, behind] = LENGTH.map(|member| types.offsets.get(member));
    Some(behind?.checked_sub(*length?)? >= 8)
}

/// Whether it cannot be told how long a buffer may be: neither its length nor, as up to 6.12, its end is known.
pub fn length_is_untold(types: &Types) -> bool {
    let has = |member: &str| types.offsets.contains_key(member);
    !has(LENGTH[0]) && !has("io_mapped_ubuf.ubuf_end")
}

/// The first of `members` that this kernel does not have.
pub fn missing<'a>(types: &Types, members: &[&'a str]) -> Option<&'a str> {
    members.iter().find(|&&member| !types.offsets.contains_key(member)).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_member_has_a_place_of_its_own() {
        let types = Types {
            offsets: (0..).zip(TABLE).map(|(i, (member, _))| (member.to_owned(), 1000 + i)).collect::<BTreeMap<_, _>>(),
            ..Types::default()
        };
        let mut offsets = resolve(&types);
        let mut seen: Vec<u32> = TABLE.iter().map(|(_, slot)| *slot(&mut offsets)).collect();
        seen.dedup();
        assert_eq!(seen, (1000..1000 + TABLE.len() as u32).collect::<Vec<_>>());
        assert_eq!(size_of::<Offsets>(), TABLE.len() * size_of::<u32>());
    }

    #[test]
    fn groups_name_members_that_are_asked_for() {
        assert!(
            WALK.iter()
                .chain(&CGROUP)
                .chain(&CONTROLLER)
                .chain(&FAULTS)
                .chain(&REQUESTS)
                .chain(&NAMES)
                .chain(&SEARCH)
                .chain(&TABLE_OF_NODES)
                .chain(&TABLE_OF_BUFFERS)
                .chain(&TABLE_OF_ANY)
                .chain(&TREE)
                .chain(&PATHS)
                .chain(&BACKING_FILES)
                .chain(&SLOTS_OF_BUFFERS)
                .chain(&CALL)
                .chain(&LOCK)
                .chain(&OWNER)
                .chain(&UNDER_WAY)
                .chain(&SLOTS_OF_NODES)
                .all(|member| MEMBERS.contains(member))
        );
        assert_eq!(missing(&Types::default(), &FAULTS), Some("task_struct.min_flt"));
    }

    #[test]
    fn a_tree_is_read_only_where_its_nodes_are_of_a_known_shape() {
        // As in the BTF of 6.1, 6.12 and 7.3.
        let nodes = [("range", 8, 128, 248), ("arange", 8, 80, 240)];
        let offsets = TREE.map(|member| (member.to_owned(), 16)).into();
        let mut types = Types { offsets, ..Types::default() };
        for (node, pivot, slot, meta) in nodes {
            for (member, offset) in [("pivot", pivot), ("slot", slot), ("meta", meta)] {
                types.offsets.insert(format!("maple_{node}_64.{member}"), offset);
            }
        }
        assert!(tree_is_known(&types));
        for (member, offset) in [("slot", 136), ("slot", 8), ("meta", 256), ("pivot", 16)] {
            let mut other = types.clone();
            other.offsets.insert(format!("maple_range_64.{member}"), offset);
            assert!(!tree_is_known(&other), "{member} at {offset}");
        }
        types.offsets.remove("vm_area_struct.vm_mm");
        assert!(!tree_is_known(&types));
    }
}
