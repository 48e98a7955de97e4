//! Every raw read of kernel memory.
//!
//! Where a pointer's type is known to the verifier (a trampoline's argument, the current task, the VMA handed to a
//! callback) a field is a plain load, which the kernel backs with an exception table. Elsewhere it is
//! `bpf_probe_read_kernel`. Offsets come from `SETTINGS`, constants to the verifier.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf,
        bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes, bpf_probe_read_user,
    },
};
use tracer_ebpf::{
    backing::{Class, Kind, Rule, Through},
    opaque::opaque,
    operation::Operation,
    record::{ELSEWHERE, ProcessKey, SharedFile},
    table::Range,
    under_way::{Call, verdict},
    workload::{CgroupPath, LEVELS},
};

use crate::program::settings::setting;

/// A field of an object whose type the verifier knows.
///
/// # Safety
/// `base` must be a pointer that the verifier holds for typed, and `offset` that of a field of type `T`.
#[inline(always)]
pub unsafe fn typed<T: Copy>(base: u64, offset: u32) -> T {
    // SAFETY: as the caller promises; the verifier checks it, and a fault in the load reads zero.
    unsafe { core::ptr::read_volatile((base as *const u8).wrapping_add(offset as usize).cast::<T>()) }
}

/// A field of an object at an address that is only a number here; `None` where it cannot be read.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base as *const u8).wrapping_add(offset as usize).cast::<T>()) }.ok()
}

/// A number in the current task's own memory; `None` where it is not there to be read without a fault.
#[inline(always)]
pub fn read_user(base: u64, offset: u32) -> Option<u32> {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_user((base as *const u8).wrapping_add(offset as usize).cast()) }.ok()
}

/// The current task: typed for the verifier since 5.12, a mere address before. A program asks once and hands it on,
/// since each time is a call.
#[inline(always)]
pub fn task() -> *mut task_struct {
    if setting!(kernel.task_storage) != 0 {
        // SAFETY: takes nothing, cannot fail.
        unsafe { bpf_get_current_task_btf() }
    } else {
        // SAFETY: as above.
        (unsafe { bpf_get_current_task() }) as *mut task_struct
    }
}

/// The current thread, as the initial PID namespace numbers it: one number, one thread.
#[inline(always)]
pub fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Thread group and thread of the current task, as pinscope's PID namespace numbers them; where the task is not in it, as the
/// initial one does, with [`ELSEWHERE`].
#[inline(always)]
pub fn pid_tid() -> (u32, u32) {
    let mut both = bpf_get_current_pid_tgid();
    if setting!(kernel.pid_namespace) != 0 {
        // SAFETY: takes nothing, cannot fail.
        let here = numbers_here(unsafe { bpf_get_current_task() });
        both = if here != 0 { here } else { both | u64::from(ELSEWHERE) << 32 | u64::from(ELSEWHERE) };
    }
    ((both >> 32) as u32, both as u32)
}

/// The current process.
#[inline(always)]
pub fn process() -> ProcessKey {
    // SAFETY: takes nothing, cannot fail.
    let task = unsafe { bpf_get_current_task() };
    ProcessKey { began_ns: began(task), pid: pid_tid().0, reserved: 0 }
}

/// The same where the session keeps processes apart.
#[inline(always)]
pub fn process_kept_apart() -> ProcessKey {
    if setting!(session.processes) != 0 { process() } else { ProcessKey::ANY }
}

/// Whether the current process began after that, in two halves.
#[inline(always)]
pub fn process_began_after([low, high]: [u32; 2]) -> bool {
    // SAFETY: takes nothing, cannot fail.
    began(unsafe { bpf_get_current_task() }) > u64::from(high) << 32 | u64::from(low)
}

/// When a task's process began. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn began(task: u64) -> u64 {
    if setting!(offset.task_began) == 0 {
        return 0;
    }
    let leader = read::<u64>(task, setting!(offset.task_leader));
    leader.and_then(|leader| read(leader, setting!(offset.task_began))).unwrap_or(0)
}

/// The id of the current task's cgroup in the default hierarchy.
#[inline(always)]
pub fn cgroup_id() -> u64 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Thread group and thread of a task as pinscope's PID namespace numbers them, the group in the upper half; 0 where it is
/// not in it. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn numbers_here(task: u64) -> u64 {
    let numbers = level_here(task).and_then(|level| {
        // The threads of a group are in one namespace.
        let group = number_at(read(task, setting!(offset.task_leader))?, level)?;
        Some(u64::from(group) << 32 | u64::from(number_at(task, level)?))
    });
    numbers.unwrap_or(0)
}

/// Thread group and thread of a task at an address, as [`pid_tid`] gives those of the current one; 0 where nothing can be read.
#[inline(always)]
pub fn numbers_of(task: u64) -> (u32, u32) {
    let here = if setting!(kernel.pid_namespace) != 0 { numbers_here(task) } else { 0 };
    if here != 0 {
        return ((here >> 32) as u32, here as u32);
    }
    let elsewhere = if setting!(kernel.pid_namespace) != 0 { ELSEWHERE } else { 0 };
    let number = |offset: u32| read::<u32>(task, offset).unwrap_or(0) | elsewhere;
    (number(setting!(offset.task_tgid)), number(setting!(offset.task_number)))
}

/// `task_struct.comm` of a task at an address.
#[inline(always)]
pub fn comm_of(task: u64) -> [u64; 2] {
    read(task, setting!(offset.task_comm)).unwrap_or_default()
}

/// Whether a task at an address is in the `io_uring_register(2)` that began so: a [`verdict`]. It is by the registers that the
/// kernel keeps of a task while it is in a system call: the result stands at `-ENOSYS` until there is one. Such a task has not
/// ended, and a `task_struct` that another task has by now began after the call. `registers` is what [`registers`] said.
#[inline(always)]
pub fn in_system_call(task: u64, call: Call, registers: u64) -> u32 {
    if registers == 0 {
        return verdict::UNTOLD;
    }
    let began: u64 = read(task, setting!(offset.task_began)).unwrap_or(u64::MAX);
    // To the nanoseconds in which the call holds its operation.
    if began > call.since_ns() + Operation::COUNT as u64 {
        return verdict::ENDED;
    }
    let stack: u64 = read(task, setting!(offset.task_stack)).unwrap_or(0);
    let base = stack.wrapping_add(registers);
    if stack == 0 || !is_in(base, IO_URING_REGISTER) {
        return verdict::ENDED;
    }
    // The opcode is the second argument, of a 32-bit caller in the register which holds an address of code else.
    let is = |register: u32| {
        let opcode = read::<u64>(base, register).unwrap_or(u64::MAX) as u32;
        Operation::from_opcode(opcode).is_some_and(|operation| operation as u8 == call.operation())
    };
    if is(SI) || is(CX) { verdict::UNDER_WAY } else { verdict::ENDED }
}

/// Where a task's registers lie above the end of its stack, by the current task, which is in bpf(2); 0 if they are not found.
#[inline(always)]
pub fn registers() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    let stack: u64 = read(unsafe { bpf_get_current_task() }, setting!(offset.task_stack)).unwrap_or(0);
    let mut found = 0;
    for place in REGISTERS {
        if found == 0 && is_in(stack.wrapping_add(place.into()), BPF) {
            found = place;
        }
    }
    found
}

/// Whether these registers are those of a system call of this number that has not ended.
#[inline(always)]
fn is_in(registers: u64, number: u32) -> bool {
    let is = read::<u64>(registers, ORIG_AX).map(|number| number as u32) == Some(number);
    is && read::<u64>(registers, AX) == Some(ENOSYS.cast_unsigned())
}

/// Where registers may lie: `THREAD_SIZE` less their 168 bytes, it being twice as large with KASAN, and
/// `TOP_OF_KERNEL_STACK_PADDING`, which is 16 with `CONFIG_X86_FRED`.
const REGISTERS: [u32; 4] = [(16 << 10) - 168, (16 << 10) - 168 - 16, (32 << 10) - 168, (32 << 10) - 168 - 16];

/// `struct pt_regs` of x86-64.
const AX: u32 = 80;
const CX: u32 = 88;
const SI: u32 = 104;
const ORIG_AX: u32 = 120;
/// Numbers of system calls: that of bpf(2) on x86-64, and of `io_uring_register(2)` everywhere.
const BPF: u32 = 321;
const IO_URING_REGISTER: u32 = 427;
const ENOSYS: i64 = -38;

/// How deep pinscope's PID namespace lies, by a task in it: a `struct pid` has a number for its own namespace and each
/// one around it, from the initial one inwards.
#[inline(always)]
fn level_here(task: u64) -> Option<u32> {
    let pid: u64 = read(task, setting!(offset.task_pid))?;
    let levels: u32 = read(pid, setting!(offset.pid_level))?;
    for level in 0..=MOST_LEVELS {
        if level > levels {
            break;
        }
        let number = pid + u64::from(setting!(offset.pid_numbers) + level * NUMBER);
        let namespace: u64 = read(number, setting!(offset.number_namespace))?;
        let inode: u32 = read(namespace, setting!(offset.namespace_common) + setting!(offset.namespace_inode))?;
        if inode == setting!(kernel.pid_namespace) {
            // As the namespace has it: of the loop's own number the verifier would follow each value.
            return read(namespace, setting!(offset.namespace_level));
        }
    }
    None
}

/// The task's number in the namespace so deep around it; `None` where it is in none so deep.
#[inline(always)]
fn number_at(task: u64, level: u32) -> Option<u32> {
    let pid: u64 = read(task, setting!(offset.task_pid))?;
    let levels: u32 = read(pid, setting!(offset.pid_level))?;
    if level > levels {
        return None;
    }
    read(pid + u64::from(setting!(offset.pid_numbers)) + u64::from(level * NUMBER), setting!(offset.number))
}

/// Whether the task descends from the command's supervisor: the command, its children and theirs. An orphan's parent is the
/// next of its ancestors that asked for such (`PR_SET_CHILD_SUBREAPER`), as the supervisor does: so the way up leads to it however
/// many have ended. Nothing is kept of any process, and nothing can be missed. 2 where the way is longer than it is followed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn descends(task: u64) -> u64 {
    let mut level = 0;
    if setting!(kernel.pid_namespace) != 0 {
        let Some(found) = level_here(task) else { return 0 };
        level = found;
    }
    let mut task = task;
    for _ in 0..MOST_GENERATIONS {
        let parent: u64 = read(task, setting!(offset.task_parent)).unwrap_or(0);
        if parent == 0 || parent == task {
            return 0;
        }
        let group = if setting!(kernel.pid_namespace) != 0 {
            read(parent, setting!(offset.task_leader)).and_then(|leader| number_at(leader, level))
        } else {
            read(parent, setting!(offset.task_tgid))
        };
        match group {
            Some(group) if group == setting!(session.tracer) => return 1,
            // Outside pinscope's namespace there is nothing of it.
            None => return 0,
            Some(_) => task = parent,
        }
    }
    2
}

/// Of the current task; see [`descends`].
#[inline(always)]
pub fn current_descends() -> u64 {
    // SAFETY: takes nothing, cannot fail.
    descends(unsafe { bpf_get_current_task() })
}

/// A word of the task that [`task`] gave.
#[inline(always)]
fn task_word(task: *mut task_struct, offset: u32) -> u64 {
    if setting!(kernel.task_storage) != 0 {
        // SAFETY: that pointer is typed, the offsets are those of `unsigned long` and pointer fields.
        unsafe { typed(task as u64, offset) }
    } else {
        read(task as u64, offset).unwrap_or(0)
    }
}

/// `task_struct.min_flt` and `maj_flt`: GUP's own faults are among them (`mm/gup.c: faultin_page`).
#[inline(always)]
pub fn faults(task: *mut task_struct) -> (u64, u64) {
    (task_word(task, setting!(offset.task_min_flt)), task_word(task, setting!(offset.task_maj_flt)))
}

/// Whether the task is to be killed: every thread that a fatal signal ends has SIGKILL pending.
#[inline(always)]
pub fn is_killed(task: *mut task_struct) -> bool {
    const SIGKILL: u64 = 1 << (9 - 1);
    let place = setting!(offset.task_pending) + setting!(offset.pending_signals);
    task_word(task, place) & SIGKILL != 0
}

/// The task's `mm_struct`, 0 for a kernel thread.
#[inline(always)]
pub fn mm(task: *mut task_struct) -> u64 {
    task_word(task, setting!(offset.task_mm))
}

/// `MAX_PID_NS_LEVEL` of `include/linux/pid_namespace.h`: namespaces nest no deeper.
const MOST_LEVELS: u32 = 32;

/// Size of a `struct upid`: an int and a pointer.
const NUMBER: u32 = 16;

/// Generations that are followed from a task upwards.
const MOST_GENERATIONS: u32 = 128;

/// `struct iovec` (`include/uapi/linux/uio.h`).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Iovec {
    /// User address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
}

/// `VM_WRITE`, `VM_MAYSHARE`, `VM_PFNMAP`, `VM_IO`, `VM_DONTEXPAND`, `VM_HUGETLB` of `include/linux/mm.h`: the same on
/// every kernel from 5.10 to 7.3 on x86-64.
const VM_WRITE: u64 = 0x2;
/// `MAP_SHARED`, also of a file opened read-only, for which `VM_SHARED` is taken back; what maps shows as `s`.
const VM_MAYSHARE: u64 = 0x80;
const VM_PFNMAP: u64 = 0x400;
const VM_IO: u64 = 0x4000;
const VM_DONTEXPAND: u64 = 0x4_0000;
const VM_HUGETLB: u64 = 0x40_0000;

/// `S_IFMT`, `S_IFCHR`, `S_IFBLK` of `include/uapi/linux/stat.h`.
const S_IFMT: u16 = 0o170_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFBLK: u16 = 0o060_000;

/// Magic numbers of `include/uapi/linux/magic.h`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
const SECRETMEM_MAGIC: u64 = 0x5345_434d;
const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;
const FUSE_MAGIC: u64 = 0x6573_5546;

/// `FMODE_BACKING` of `include/linux/fs.h`: its bit moved from 25 to 24 in 6.14. What else has one of these bits is found
/// out by the magic number.
const FMODE_BACKING: u32 = 1 << 24 | 1 << 25;

/// `S_DAX` of `include/linux/fs.h`, the same since 5.10.
const S_DAX: u32 = 1 << 13;

/// `BDI_CAP_WRITEBACK` of `include/linux/backing-dev.h`, since 5.10.
const BDI_CAP_WRITEBACK: u32 = 1;

/// What a VMA is, as far as it is counted.
#[derive(Clone, Copy)]
pub struct Vma {
    /// `vm_end`.
    pub end: u64,
    /// `vm_file`, 0 for none.
    pub file: u64,
    /// Address of the `file_system_type` for files and special mappings, else 0.
    pub filesystem: u64,
    /// Class, sharing, writability, rule.
    pub kind: Kind,
}

/// How the fields of a VMA are read, and of what it points to.
pub trait Fields {
    /// One of them.
    fn field<T: Copy + Default>(base: u64, offset: u32) -> T;
}

/// Those of the VMA that `bpf_find_vma` hands to its callback: the verifier knows all their types.
pub struct Typed;

/// Those of a VMA that is only an address. What cannot be read is zero.
pub struct Probed;

impl Fields for Typed {
    #[inline(always)]
    fn field<T: Copy + Default>(base: u64, offset: u32) -> T {
        // SAFETY: used on those pointers alone, with the offsets of their own members.
        unsafe { typed(base, offset) }
    }
}

impl Fields for Probed {
    #[inline(always)]
    fn field<T: Copy + Default>(base: u64, offset: u32) -> T {
        read(base, offset).unwrap_or_default()
    }
}

/// Reads a `vm_area_struct`.
#[inline(always)]
pub fn vma<F: Fields>(vma: u64) -> Vma {
    let flags: u64 = F::field(vma, setting!(offset.vma_flags));
    let file: u64 = F::field(vma, setting!(offset.vma_file));
    let end: u64 = F::field(vma, setting!(offset.vma_end));
    let (shared, writable) = (flags & VM_MAYSHARE != 0, flags & VM_WRITE != 0);
    if file == 0 {
        let kind = Kind::new(class_without_file::<F>(vma, flags), shared, writable);
        let kind = if flags & (VM_PFNMAP | VM_IO) != 0 { kind.under(Rule::Unpinnable) } else { kind };
        return Vma { end, file, filesystem: 0, kind };
    }
    let (class, inode, superblock, filesystem) = class_of_file::<F>(file, flags);
    let kind = Kind::new(class, shared, writable);
    let is_file = matches!(class, Class::File | Class::Shmem);
    let kind = if is_file { kind.found_through(through::<F>(file, superblock)) } else { kind };
    let rule = match class {
        Class::Hugetlb => Rule::Plain,
        Class::Shmem => rule_of_shmem::<F>(vma),
        Class::File if is_dax::<F>(inode) => Rule::Dax,
        _ => rule_of_file::<F>(vma, flags, superblock),
    };
    Vma { end, file, filesystem, kind: kind.under(rule) }
}

/// Under which filesystem's name a process finds the file, whose own superblock is `superblock`. Where overlayfs maps a file, the
/// `vm_file` is the lower or upper one's: with overlayfs' own path up to 6.7, inside a `backing_file` that has that path since 6.8.
#[inline(always)]
pub fn through<F: Fields>(file: u64, superblock: u64) -> Through {
    if setting!(kernel.file_paths) == 0 {
        return Through::None;
    }
    let found: Option<u64> = if setting!(kernel.backing_files) != 0 {
        let mode: u32 = F::field(file, setting!(offset.file_mode));
        if mode & FMODE_BACKING == 0 {
            return Through::None;
        }
        read(file, setting!(offset.backing_path) + setting!(offset.path_dentry))
            .and_then(|dentry| read(dentry, setting!(offset.dentry_superblock)))
    } else {
        let dentry: u64 = F::field(file, setting!(offset.file_path) + setting!(offset.path_dentry));
        let found: u64 = F::field(dentry, setting!(offset.dentry_superblock));
        if opaque(found) == opaque(superblock) {
            return Through::None;
        }
        Some(found)
    };
    match found.and_then(|superblock| read::<u64>(superblock, setting!(offset.sb_magic))) {
        Some(OVERLAYFS_MAGIC) => Through::Overlay,
        Some(FUSE_MAGIC) => Through::Fuse,
        _ => Through::None,
    }
}

/// As `vma_is_fsdax` asks, of a file that is no device.
#[inline(always)]
fn is_dax<F: Fields>(inode: u64) -> bool {
    let flags: u32 = F::field(inode, setting!(offset.inode_flags));
    flags & S_DAX != 0
}

/// Whether the operations are shmem's own, as `vma_is_shmem` asks. Theirs have no `close` on any kernel; those of System V
/// shared memory (`shm_vm_ops`) count the attachments by theirs.
#[inline(always)]
fn rule_of_shmem<F: Fields>(vma: u64) -> Rule {
    let ops: u64 = F::field(vma, setting!(offset.vma_ops));
    if ops == 0 {
        return Rule::Plain;
    }
    let close: u64 = F::field(ops, setting!(offset.ops_close));
    if close == 0 { Rule::Plain } else { Rule::Foreign }
}

/// What GUP makes of a mapping of a file that is neither shmem nor hugetlb, as `check_vma_flags` and
/// `vma_needs_dirty_tracking` (6.5) do.
#[inline(always)]
fn rule_of_file<F: Fields>(vma: u64, flags: u64, superblock: u64) -> Rule {
    let magic: u64 = F::field(superblock, setting!(offset.sb_magic));
    if flags & (VM_PFNMAP | VM_IO) != 0 || magic == SECRETMEM_MAGIC {
        return Rule::Unpinnable;
    }
    let ops: u64 = F::field(vma, setting!(offset.vma_ops));
    if ops == 0 {
        return Rule::Anonymous;
    }
    if flags & VM_MAYSHARE == 0 || flags & VM_WRITE == 0 {
        return Rule::Plain;
    }
    let page_mkwrite: u64 = F::field(ops, setting!(offset.ops_page_mkwrite));
    let pfn_mkwrite: u64 = F::field(ops, setting!(offset.ops_pfn_mkwrite));
    // One by one: the verifier has no `or` of two pointers, which the compiler would make of it.
    if opaque(page_mkwrite) != 0 || opaque(pfn_mkwrite) != 0 {
        return Rule::Tracked;
    }
    let bdi: u64 = F::field(superblock, setting!(offset.sb_bdi));
    let capabilities: u32 = F::field(bdi, setting!(offset.bdi_capabilities));
    if capabilities & BDI_CAP_WRITEBACK != 0 { Rule::Tracked } else { Rule::Plain }
}

#[inline(always)]
fn class_without_file<F: Fields>(vma: u64, flags: u64) -> Class {
    // The vDSO and its like have operations and no file; `_install_special_mapping` marks them so that the operations
    // of all other memory need not be read.
    if flags & (VM_HUGETLB | VM_PFNMAP | VM_IO | VM_DONTEXPAND) == 0 {
        return Class::Anon;
    }
    if flags & VM_HUGETLB != 0 {
        return Class::Hugetlb;
    }
    if flags & (VM_PFNMAP | VM_IO) != 0 {
        return Class::Special;
    }
    let ops: u64 = F::field(vma, setting!(offset.vma_ops));
    // As `vma_is_anonymous()`.
    if ops == 0 { Class::Anon } else { Class::Special }
}

#[inline(always)]
fn class_of_file<F: Fields>(file: u64, flags: u64) -> (Class, u64, u64, u64) {
    if flags & VM_HUGETLB != 0 {
        return (Class::Hugetlb, 0, 0, 0);
    }
    let inode: u64 = F::field(file, setting!(offset.file_inode));
    let mode: u16 = F::field(inode, setting!(offset.inode_mode));
    // Before the filesystem: the nodes in /dev lie on a tmpfs.
    let superblock: u64 = F::field(inode, setting!(offset.inode_sb));
    if mode & S_IFMT == S_IFCHR || mode & S_IFMT == S_IFBLK {
        return (Class::Device, inode, superblock, 0);
    }
    let magic: u64 = F::field(superblock, setting!(offset.sb_magic));
    if magic == TMPFS_MAGIC {
        return (Class::Shmem, inode, superblock, 0);
    }
    if magic == HUGETLBFS_MAGIC {
        return (Class::Hugetlb, inode, 0, 0);
    }
    let filesystem: u64 = F::field(superblock, setting!(offset.sb_type));
    let special = magic == SECRETMEM_MAGIC || magic == ANON_INODE_FS_MAGIC;
    (if special { Class::Special } else { Class::File }, inode, superblock, filesystem)
}

/// The name of a `file_system_type`; its rest is zero.
#[inline(always)]
pub fn filesystem_name(filesystem: u64, name: &mut [u8; 16]) -> bool {
    let Some(address) = read::<u64>(filesystem, setting!(offset.fs_name)) else { return false };
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel_str_bytes(address as *const u8, name) }.is_ok()
}

/// The inode of a `struct file`, which tells a file from others while it is open; the file itself where it cannot be read.
#[inline(always)]
pub fn inode(file: u64) -> u64 {
    read(file, setting!(offset.file_inode)).unwrap_or(file)
}

/// Superblock and inode number of a `struct file`, which name its file. The file is no longer held by a lock: one that was
/// unmapped meanwhile may be told wrongly, and never faults.
#[inline(always)]
pub fn identity(file: u64) -> Option<(u64, u64)> {
    let inode: u64 = read(file, setting!(offset.file_inode))?;
    Some((read(inode, setting!(offset.inode_sb))?, read(inode, setting!(offset.inode_number))?))
}

/// Filesystem and last component of the path of a `struct file`; likewise.
#[inline(always)]
pub fn describe(file: u64, superblock: u64, described: &mut SharedFile) -> Option<()> {
    described.filesystem = read(superblock, setting!(offset.sb_type))?;
    described.kind = Kind(0).found_through(through::<Probed>(file, superblock)).0.into();
    let dentry: u64 = read(file, setting!(offset.file_path) + setting!(offset.path_dentry))?;
    let name: u64 = read(dentry, setting!(offset.dentry_name) + setting!(offset.qstr_name))?;
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut described.name) }.ok().map(|_| ())
}

/// The current task, as a number.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { bpf_get_current_task() }
}

/// The `kernfs_node` of a task's cgroup in the hierarchy that workloads are told by.
#[inline(always)]
pub fn cgroup_node(task: u64) -> Option<u64> {
    let set: u64 = read(task, setting!(offset.task_cgroups))?;
    let subsystem = setting!(kernel.cgroup_subsystem);
    let cgroup: u64 = if subsystem == 0 {
        read(set, setting!(offset.css_set_default))?
    } else {
        let place = (u32::from(subsystem) - 1) * size_of::<u64>() as u32;
        let state: u64 = read(set, setting!(offset.css_set_subsystems) + place)?;
        read(state, setting!(offset.css_cgroup))?
    };
    read(cgroup, setting!(offset.cgroup_node))
}

/// `kernfs_node.id`: the inode number of the cgroup's folder.
#[inline(always)]
pub fn node_id(node: u64) -> Option<u64> {
    read(node, setting!(offset.node_id))
}

/// Deeper than this a cgroup's owner is not looked for.
const DEEPEST: u32 = 64;

/// The `kernfs_node` two levels below the root, or as far below it as there is one, in which `node` lies; and its id.
#[inline(always)]
pub fn second_level(node: u64) -> Option<(u64, u64)> {
    let (mut above, mut second, mut first) = (node, node, node);
    for _ in 0..DEEPEST {
        let parent: u64 = read(above, setting!(offset.node_parent))?;
        if parent == 0 {
            return Some((second, node_id(second)?));
        }
        (second, first, above) = (first, above, parent);
    }
    None
}

/// Notes the names on the way from a `kernfs_node` up to the root, which has none.
#[inline(always)]
pub fn cgroup_path(mut node: u64, path: &mut CgroupPath) {
    let mut noted = 0;
    for name in 0..LEVELS {
        let Some(parent) = read::<u64>(node, setting!(offset.node_parent)) else { return };
        if parent == 0 {
            break;
        }
        let Some(address) = read::<u64>(node, setting!(offset.node_name)) else { return };
        // SAFETY: the helper checks the address and fails instead of faulting.
        if unsafe { bpf_probe_read_kernel_str_bytes(address as *const u8, &mut path.names[name]) }.is_err() {
            return;
        }
        noted += 1;
        node = parent;
    }
    if noted == LEVELS as u32 && read::<u64>(node, setting!(offset.node_parent)).is_none_or(|parent| parent != 0) {
        path.cut = 1;
    }
    // Last, and not by the compiler's choice: with it the names are whole.
    // SAFETY: a field of a value of the map.
    unsafe { (&raw mut path.noted).write_volatile(noted + 1) };
}

/// `io_mapped_ubuf.nr_bvecs` and `folio_shift`, 0 where they are not to be had.
#[inline(always)]
pub fn coalescing(imu: u64) -> (u32, u32) {
    let bvecs = read(imu, setting!(offset.imu_bvecs)).unwrap_or(0);
    let shift =
        if setting!(kernel.folio_shift) != 0 { read(imu, setting!(offset.imu_folio_shift)).unwrap_or(0) } else { 0 };
    (bvecs, shift)
}

/// The `io_mapped_ubuf` that a buffer ended up with. `slot` is the argument `pimu` (to 6.12), `ret` what
/// `io_sqe_buffer_register` returned; `None` for an empty slot and for errors.
#[inline(always)]
pub fn mapped_ubuf(slot: u64, ret: i64) -> Option<u64> {
    if setting!(kernel.buffer_returns_node) != 0 { read(ret as u64, setting!(offset.node_buf)) } else { read(slot, 0) }
}

/// Name of the files that are rings, with its final zero, as two words: "[io_urin" and "g]".
const RING_NAME: [u64; 2] = [u64::from_le_bytes(*b"[io_urin"), 0x5d67];

/// Whether a file is a ring: by its name on the filesystem of anonymous inodes, where nobody but the kernel gives names.
#[inline(always)]
pub fn is_ring(file: u64) -> bool {
    named_as_ring(file).unwrap_or(false)
}

#[inline(always)]
fn named_as_ring(file: u64) -> Option<bool> {
    let inode: u64 = read(file, setting!(offset.file_inode))?;
    let superblock: u64 = read(inode, setting!(offset.inode_sb))?;
    let magic: u64 = read(superblock, setting!(offset.sb_magic))?;
    if magic != ANON_INODE_FS_MAGIC {
        return Some(false);
    }
    let dentry: u64 = read(file, setting!(offset.file_path) + setting!(offset.path_dentry))?;
    let name: u64 = read(dentry, setting!(offset.dentry_name) + setting!(offset.qstr_name))?;
    let [low, high]: [u64; 2] = [read(name, 0)?, read(name, size_of::<u64>() as u32)?];
    // The name, its end, and nothing of what stands behind.
    Some(low == RING_NAME[0] && high & 0xff_ffff == RING_NAME[1])
}

/// Address of the slots of a ring's table of buffers, and how many they are; nothing where it has none.
#[inline(always)]
pub fn table(ring: u64) -> (u64, u32) {
    let (slots, count) = if setting!(kernel.table_nodes) != 0 {
        let table = setting!(offset.ring_table);
        (table + setting!(offset.table_nodes), table + setting!(offset.table_count))
    } else {
        (setting!(offset.ring_buffers), setting!(offset.ring_buffer_count))
    };
    let (slots, count) = (read(ring, slots).unwrap_or(0), read(ring, count).unwrap_or(0));
    if count == 0 { (0, 0) } else { (slots, count) }
}

/// What stands in a slot.
pub enum Slot {
    /// Nothing, or a buffer of the kernel's own (ublk): no memory of a user is pinned for it.
    Empty,
    /// Memory of a user.
    Buffer(Range),
    /// It could not be read.
    Unreadable,
}

/// The slot of a table at an address. The ring's table may change meanwhile: whoever asks has to see to it.
#[inline(always)]
pub fn slot(place: u64) -> Slot {
    let Some(mut buffer) = read::<u64>(place, 0) else { return Slot::Unreadable };
    if buffer == 0 {
        return Slot::Empty;
    }
    if setting!(kernel.table_nodes) != 0 {
        let Some(of_node) = read::<u64>(buffer, setting!(offset.node_buf)) else { return Slot::Unreadable };
        buffer = of_node;
    }
    range(buffer).unwrap_or(Slot::Unreadable)
}

/// What an empty slot's `io_mapped_ubuf.ubuf` is, where such slots have one (to 6.12).
const DUMMY: u64 = u64::MAX;

#[inline(always)]
fn range(buffer: u64) -> Option<Slot> {
    // `IO_REGBUF_F_KBUF`, or a bool.
    let own = match setting!(kernel.imu_kernel) {
        0 => 0,
        1 => read::<u8>(buffer, setting!(offset.imu_is_kernel))?,
        _ => read::<u8>(buffer, setting!(offset.imu_flags))?,
    };
    if own & 1 != 0 {
        return Some(Slot::Empty);
    }
    let start: u64 = read(buffer, setting!(offset.imu_start))?;
    if start == DUMMY {
        return Some(Slot::Empty);
    }
    let length = match setting!(kernel.imu_length) {
        0 => read::<u64>(buffer, setting!(offset.imu_end))?.wrapping_sub(start),
        4 => read::<u32>(buffer, setting!(offset.imu_length))?.into(),
        _ => read::<u64>(buffer, setting!(offset.imu_length))?,
    };
    let page = read(buffer, setting!(offset.imu_bvec))?;
    Some(Slot::Buffer(Range { start, length, page }))
}
