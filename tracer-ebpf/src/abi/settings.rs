//! What user space tells the eBPF programs before they are loaded.
//!
//! A program reads a setting by a move of a [`mark`]. User space puts the setting's value in its place before the load, so
//! that the verifier sees a constant, and removes what is off.

/// A mark's upper half.
const MARK: u32 = 0x5e77_0000;
/// A mark's lower half: log2 of the setting's size above, its offset below.
const SIZE_SHIFT: u32 = 12;

/// Stands for a setting of 1, 2 or 4 bytes at this offset of [`Settings`].
///
/// # Panics
/// Another size, or an offset of 4096 or more. It is evaluated by the compiler.
#[must_use]
pub const fn mark(offset: usize, size: usize) -> i32 {
    assert!(offset < 1 << SIZE_SHIFT && matches!(size, 1 | 2 | 4), "no mark has room for this setting");
    (MARK | size.trailing_zeros() << SIZE_SHIFT | offset as u32) as i32
}

/// Offset and size of the setting that a mark stands for.
#[must_use]
pub const fn marked(mark: i32) -> Option<(usize, usize)> {
    let mark = mark as u32;
    if mark & 0xffff_0000 != MARK {
        return None;
    }
    let (size, offset) = (1 << (mark >> SIZE_SHIFT & 0xf), mark & ((1 << SIZE_SHIFT) - 1));
    Some((offset as usize, size))
}

/// All settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Byte offsets of the fields that are read, from this kernel's BTF.
    pub offset: Offsets,
    /// What this kernel has.
    pub kernel: Features,
    /// What this session wants.
    pub session: Session,
    /// What an audit's session reads by.
    pub audit: Audit,
}

impl Settings {
    /// Nothing known, nothing wanted.
    // SAFETY: the struct holds integers only, for which all zeros is a value.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// Byte offsets, as this kernel's BTF gives them. Where a kernel has no such field, `Features` says so.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.pending`.
    pub task_pending: u32,
    /// `sigpending.signal`.
    pub pending_signals: u32,
    /// `task_struct.min_flt`.
    pub task_min_flt: u32,
    /// `task_struct.maj_flt`.
    pub task_maj_flt: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.pid`.
    pub task_number: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `task_struct.stack`.
    pub task_stack: u32,
    /// `task_struct.group_leader`.
    pub task_leader: u32,
    /// `task_struct.start_time`.
    pub task_began: u32,
    /// `task_struct.real_parent`.
    pub task_parent: u32,
    /// `task_struct.thread_pid`.
    pub task_pid: u32,
    /// `pid.level`.
    pub pid_level: u32,
    /// `pid.numbers`.
    pub pid_numbers: u32,
    /// `upid.nr`.
    pub number: u32,
    /// `upid.ns`.
    pub number_namespace: u32,
    /// `pid_namespace.ns`.
    pub namespace_common: u32,
    /// `pid_namespace.level`.
    pub namespace_level: u32,
    /// `ns_common.inum`.
    pub namespace_inode: u32,
    /// `vm_area_struct.vm_end`.
    pub vma_end: u32,
    /// `vm_area_struct.vm_flags`.
    pub vma_flags: u32,
    /// `vm_area_struct.vm_ops`.
    pub vma_ops: u32,
    /// `vm_area_struct.vm_file`.
    pub vma_file: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `inode.i_mode`.
    pub inode_mode: u32,
    /// `inode.i_flags`.
    pub inode_flags: u32,
    /// `inode.i_sb`.
    pub inode_sb: u32,
    /// `super_block.s_type`.
    pub sb_type: u32,
    /// `super_block.s_magic`.
    pub sb_magic: u32,
    /// `file_system_type.name`.
    pub fs_name: u32,
    /// `io_rsrc_node.buf` (since 6.13).
    pub node_buf: u32,
    /// `io_mapped_ubuf.nr_bvecs`.
    pub imu_bvecs: u32,
    /// `io_mapped_ubuf.folio_shift` (since 6.12).
    pub imu_folio_shift: u32,
    /// `vm_operations_struct.page_mkwrite`.
    pub ops_page_mkwrite: u32,
    /// `vm_operations_struct.pfn_mkwrite`.
    pub ops_pfn_mkwrite: u32,
    /// `vm_operations_struct.close`.
    pub ops_close: u32,
    /// `super_block.s_bdi`.
    pub sb_bdi: u32,
    /// `backing_dev_info.capabilities`.
    pub bdi_capabilities: u32,
    /// `io_ring_ctx.cached_sq_head`.
    pub ring_sq_head: u32,
    /// `io_ring_ctx.nr_req_allocated`, which is older than rings that rewind their submission queue; 0 where it is not there.
    pub ring_allocated: u32,
    /// `pt_regs.si`: the second argument of a system call.
    pub second_argument: u32,
    /// `file.f_path`.
    pub file_path: u32,
    /// `path.dentry`.
    pub path_dentry: u32,
    /// `dentry.d_name`.
    pub dentry_name: u32,
    /// `qstr.name`.
    pub qstr_name: u32,
    /// `inode.i_ino`.
    pub inode_number: u32,
    /// `task_struct.cgroups`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`.
    pub css_set_default: u32,
    /// `css_set.subsys`.
    pub css_set_subsystems: u32,
    /// `cgroup_subsys_state.cgroup`.
    pub css_cgroup: u32,
    /// `cgroup.kn`.
    pub cgroup_node: u32,
    /// `kernfs_node.id`.
    pub node_id: u32,
    /// `kernfs_node.name`.
    pub node_name: u32,
    /// `kernfs_node.parent`, `__parent` since 6.15.
    pub node_parent: u32,
    /// `file.private_data`: of a ring's file its `io_ring_ctx`.
    pub file_private: u32,
    /// `io_ring_ctx.user_bufs` (to 6.12).
    pub ring_buffers: u32,
    /// `io_ring_ctx.nr_user_bufs` (to 6.12).
    pub ring_buffer_count: u32,
    /// `io_ring_ctx.buf_table` (since 6.13).
    pub ring_table: u32,
    /// `io_rsrc_data.nodes` (since 6.13).
    pub table_nodes: u32,
    /// `io_rsrc_data.nr`.
    pub table_count: u32,
    /// `io_ring_ctx.mm_account`.
    pub ring_mm: u32,
    /// `io_mapped_ubuf.ubuf`.
    pub imu_start: u32,
    /// `io_mapped_ubuf.ubuf_end` (to 6.1).
    pub imu_end: u32,
    /// `io_mapped_ubuf.len` (since 6.12).
    pub imu_length: u32,
    /// `io_mapped_ubuf.is_kbuf` (6.16 to 6.19).
    pub imu_is_kernel: u32,
    /// `io_mapped_ubuf.flags` (since 7.0).
    pub imu_flags: u32,
    /// `io_mapped_ubuf.bvec`; the first member of a `bio_vec` is its page.
    pub imu_bvec: u32,
    /// `task_struct.io_uring`.
    pub task_rings: u32,
    /// `io_uring_task.registered_rings`.
    pub indexed_rings: u32,
    /// `bpf_iter__task_file.task`.
    pub file_found_task: u32,
    /// `bpf_iter__task_file.file`.
    pub file_found: u32,
    /// `bpf_iter__task.task`.
    pub task_found: u32,
    /// `mm_struct.mm_mt` (since 6.1).
    pub mm_tree: u32,
    /// `maple_tree.ma_root`.
    pub tree_root: u32,
    /// `maple_range_64.pivot`.
    pub range_pivots: u32,
    /// `maple_range_64.slot`.
    pub range_slots: u32,
    /// `maple_range_64.meta`.
    pub range_meta: u32,
    /// `maple_arange_64.pivot`.
    pub gaps_pivots: u32,
    /// `maple_arange_64.slot`.
    pub gaps_slots: u32,
    /// `maple_arange_64.meta`.
    pub gaps_meta: u32,
    /// `vm_area_struct.vm_start`.
    pub vma_start: u32,
    /// `vm_area_struct.vm_mm`.
    pub vma_mm: u32,
    /// `file.f_mode`.
    pub file_mode: u32,
    /// `backing_file.user_path` (since 6.8).
    pub backing_path: u32,
    /// `dentry.d_sb`.
    pub dentry_superblock: u32,
}

/// [`Features::slots`]: the members by which a ring's table is read are not there.
pub const SLOTS_UNTOLD: u8 = 0;
/// [`Features::slots`]: pointers to `io_mapped_ubuf`, an empty one to one whose address is all ones (to 6.12).
pub const SLOTS_OF_BUFFERS: u8 = 1;
/// [`Features::slots`]: pointers to `io_rsrc_node`, null where they are empty (since 6.13).
pub const SLOTS_OF_NODES: u8 = 2;

/// What this kernel has; 0 is no.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Task storage and `bpf_get_current_task_btf` (since 5.12): the frames are a task's own. Otherwise they
    /// stand in a hash map under the thread's id.
    pub task_storage: u8,
    /// `bpf_get_func_ret` (since 5.17); before it the return value stands behind the arguments.
    pub func_ret: u8,
    /// `io_sqe_buffer_register` returns an `io_rsrc_node` or an error pointer (since 6.13), not an int.
    pub buffer_returns_node: u8,
    /// `io_mapped_ubuf.folio_shift` is there (since 6.12).
    pub folio_shift: u8,
    /// The per-buffer function is not hooked: the pin's entry has the buffer's range, and a buffer's result follows
    /// from its registration's, which ends with the first buffer that fails. Never with records or processes.
    pub pin_is_buffer: u8,
    /// The tracepoint `io_uring_register` is attached: it ends a registration.
    pub ledger: u8,
    /// Position of `ret` among that tracepoint's arguments (5.10 has one more).
    pub ledger_ret: u8,
    /// A hook at the return of the registration functions is attached.
    pub registration_returns: u8,
    /// `io_ring_ctx.cached_sq_head` is there: whether a ring was given requests can be told.
    pub ring_requests: u8,
    /// What a slot of a ring's table is: [`SLOTS_UNTOLD`], [`SLOTS_OF_BUFFERS`] or [`SLOTS_OF_NODES`].
    pub slots: u8,
    /// The members that name a file are there.
    pub file_names: u8,
    /// Every pin looks up its VMAs (to 6.4, where io_uring calls `pin_user_pages`): there is no fast path.
    pub pin_is_slow: u8,
    /// Position of `write` among the arguments of the tracepoint `mmap_lock_acquire_returned` (2 up to 6.12, where the
    /// path of a memory cgroup stands before it, 1 after); `success` is the next one.
    pub lock_write: u8,
    /// The look-up's return is hooked, so that its time is known.
    pub lookup_returns: u8,
    /// The members that a cgroup's path is read by are there.
    pub cgroup_names: u8,
    /// Cgroups are those of a controller's hierarchy of version 1: one more than the controller's number; 0 for the default
    /// hierarchy.
    pub cgroup_subsystem: u8,
    /// Buffers are hooked, by the per-buffer function or by the pin: how many bytes a registration has is known.
    pub buffers: u8,
    /// A ring's table is a `io_rsrc_data` with nodes (since 6.13), not an array of `io_mapped_ubuf`.
    pub table_nodes: u8,
    /// Bytes of `io_mapped_ubuf.len`: 4, or 8 since 7.2; 0 where there is `ubuf_end` instead.
    pub imu_length: u8,
    /// How a buffer of the kernel's own is told from a user's: 1 by `io_mapped_ubuf.is_kbuf`, 2 by `flags`; 0 where a table
    /// holds none such.
    pub imu_kernel: u8,
    /// The tree of a process's VMAs is laid out as `tree.rs` reads it: a walk goes on where a writer holds `mmap_lock`.
    pub vma_tree: u8,
    /// Both ends of the pin are hooked: whether a buffer came to it is known.
    pub pins: u8,
    /// VMAs can be walked (since 5.17).
    pub walks: u8,
    /// The members that tell a path's filesystem are there.
    pub file_paths: u8,
    /// A file that stands behind another filesystem's is a `backing_file`, which has the path that a process finds (since 6.8).
    pub backing_files: u8,
    /// Entry and return of the system call are hooked.
    pub calls: u8,
    /// Bytes of a page, as a power of two.
    pub page_shift: u8,
    /// Always 0.
    pub reserved: u8,
    /// Inode number of pinscope's PID namespace, by which processes are numbered; 0 for the initial one.
    pub pid_namespace: u32,
}

/// Values of flags that moved: since 6.3 they are an enum, before it macros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// `FOLL_LONGTERM`.
    pub foll_longterm: u32,
    /// `FOLL_FORCE`.
    pub foll_force: u32,
}

/// What a session wants; 0 is no.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Send a record of each registration and buffer through the ring buffer.
    pub records: u8,
    /// Keep totals by process.
    pub processes: u8,
    /// Only the thread group `pid`.
    pub by_pid: u8,
    /// Only tasks of the user `uid`.
    pub by_uid: u8,
    /// Only tasks whose `comm` is `comm`.
    pub by_comm: u8,
    /// Only descendants of the thread group `tracer`, the command's supervisor, which orphans among them come back to.
    pub by_descent: u8,
    /// Count registrations by ring.
    pub rings: u8,
    /// Keep what is registered now, by ring.
    pub tables: u8,
    /// Watch `mmap_lock`.
    pub locks: u8,
    /// Time the parts of a registration.
    pub phases: u8,
    /// Some `by_…` is set; see [`Session::complete`].
    pub filtered: u8,
    /// More is kept of a buffer than the aggregates, for records or for processes; see [`Session::complete`].
    pub in_detail: u8,
    /// More is timed than registrations, pins and walks: `locks` or `phases`; see [`Session::complete`].
    pub timed: u8,
    /// Count calls by cgroup.
    pub workloads: u8,
    /// Always 0.
    pub reserved: [u8; 2],
    /// See `by_pid`; as `Features::pid_namespace` numbers it.
    pub pid: u32,
    /// See `by_descent`, likewise.
    pub tracer: u32,
    /// See `by_uid`.
    pub uid: u32,
    /// See `by_comm`; the rest is zero.
    pub comm: [u8; 16],
    /// When that process was there, by `CLOCK_MONOTONIC`, in two halves, the lower first: one that began later has its number
    /// anew.
    pub pid_seen: [u32; 2],
}

impl Session {
    /// Only that process, which is there at this time, `CLOCK_MONOTONIC` nanoseconds.
    pub const fn only_process(&mut self, pid: u32, seen_ns: u64) {
        (self.by_pid, self.pid) = (1, pid);
        self.pid_seen = [seen_ns as u32, (seen_ns >> 32) as u32];
    }

    /// With what follows from the rest: on the path of a registration one question in place of four.
    #[must_use]
    pub const fn complete(self) -> Self {
        let filtered = self.by_pid | self.by_uid | self.by_comm | self.by_descent;
        Self { filtered, in_detail: self.records | self.processes, timed: self.locks | self.phases, ..self }
    }
}
