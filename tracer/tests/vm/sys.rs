//! Wrappers of system calls that are missing in the standard library, with errors as `io::Error`.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Size of a page in bytes.
pub const PAGE: u64 = 4096;
/// Size of a huge page in bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// A new memfd; `flags` are `MFD_*`.
pub fn memfd(flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated; the call touches no other memory.
    let fd = unsafe { libc::memfd_create(c"pinscope-guest".as_ptr(), flags | libc::MFD_CLOEXEC) };
    owned(i64::from(fd))
}

/// A new memfd of `length` bytes.
pub fn memfd_of(flags: libc::c_uint, length: u64) -> io::Result<OwnedFd> {
    let fd = memfd(flags)?;
    let file = File::from(fd);
    file.set_len(length)?;
    Ok(OwnedFd::from(file))
}

/// A new memfd_secret(2) of `length` bytes; `ENOSYS` if the kernel lacks it or has it disabled.
pub fn secret(length: u64) -> io::Result<OwnedFd> {
    // SAFETY: the call takes one integer and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let file = File::from(owned(fd)?);
    file.set_len(length)?;
    Ok(OwnedFd::from(file))
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Maps at exactly this address. `fd` is `None` for anonymous memory.
pub fn map_at(
    address: u64,
    length: u64,
    protection: i32,
    flags: i32,
    fd: Option<&OwnedFd>,
    offset: u64,
) -> io::Result<()> {
    let fd = fd.map_or(-1, AsRawFd::as_raw_fd);
    let flags = flags | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE never replaces existing mappings, so no memory in use changes.
    let got = unsafe { libc::mmap(address as *mut _, length as usize, protection, flags, fd, offset as libc::off_t) };
    if got == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if got as u64 != address {
        return Err(io::Error::other(format!("the kernel mapped at {got:p}, not at {address:#x}")));
    }
    Ok(())
}

/// Attaches a new System V segment at exactly this address. It is removed with its last detachment.
pub fn attach_sysv(address: u64, length: u64) -> io::Result<()> {
    // SAFETY: shmget touches no memory of ours.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, length as usize, libc::IPC_CREAT | 0o600) };
    if id < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: without SHM_REMAP, shmat refuses an address at which something is mapped.
    let got = unsafe { libc::shmat(id, address as *const _, 0) };
    let error = io::Error::last_os_error();
    // SAFETY: IPC_RMID takes no buffer.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    if got as isize == -1 { Err(error) } else { Ok(()) }
}

/// Unmaps the mappings of a [`crate::space::Space`].
///
/// # Safety
///
/// Nothing may use that memory any more.
pub unsafe fn unmap(address: u64, length: u64) {
    // SAFETY: guaranteed by the caller.
    unsafe { libc::munmap(address as *mut _, length as usize) };
}

/// madvise(2) with advice that preserves the memory's content.
pub fn advise(address: u64, length: u64, advice: i32) -> io::Result<()> {
    debug_assert!([libc::MADV_DONTFORK, libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE].contains(&advice));
    // SAFETY: none of these kinds of advice changes the content of the memory.
    let ret = unsafe { libc::madvise(address as *mut _, length as usize, advice) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From `include/uapi/asm-generic/mman-common.h`, since 6.13.
pub const MADV_GUARD_INSTALL: i32 = 102;

/// madvise(2) with advice that discards the memory's content.
pub fn take_away(address: u64, length: u64, advice: i32) -> io::Result<()> {
    // SAFETY: the caller's own mapping, which contains no Rust object.
    let ret = unsafe { libc::madvise(address as *mut _, length as usize, advice) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Creates a userfaultfd for missing pages in this range, for faults in user mode only. Nobody serves it; while it is
/// open, the kernel's own faults there fail.
pub fn serve_user_mode_faults(address: u64, length: u64) -> io::Result<OwnedFd> {
    /// `UFFD_USER_MODE_ONLY`, `UFFDIO_API` and `UFFDIO_REGISTER` from `include/uapi/linux/userfaultfd.h`.
    const USER_MODE_ONLY: i32 = 1;
    const API: u64 = 0xc018_aa3f;
    const REGISTER: u64 = 0xc020_aa00;
    // SAFETY: the call takes one integer and touches no memory.
    let fd = owned(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) })?;
    // `struct uffdio_api`: version, features, ioctls.
    let mut api = [0xaa_u64, 0, 0];
    // `struct uffdio_register`: start, length, mode (missing pages), ioctls.
    let mut register = [address, length, 1, 0];
    for (request, argument) in [(API, api.as_mut_ptr()), (REGISTER, register.as_mut_ptr())] {
        // SAFETY: the argument has the size of the request's struct.
        if unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(fd)
}

/// Allows or forbids transparent huge pages for this process's memory (`PR_SET_THP_DISABLE`).
pub fn transparent_huge_pages(allowed: bool) -> io::Result<()> {
    // SAFETY: the call takes integers only.
    let ret = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, u64::from(!allowed), 0, 0, 0) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// User id of this process.
pub fn user() -> u32 {
    // SAFETY: getuid(2) takes no arguments and touches no memory.
    unsafe { libc::getuid() }
}

/// Changes the protection of a range of mappings that contains no Rust object.
pub fn protect(address: u64, length: u64, protection: i32) -> io::Result<()> {
    // SAFETY: the caller's own mapping, to which no reference exists.
    let ret = unsafe { libc::mprotect(address as *mut _, length as usize, protection) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Writes a byte to each page of a range that is mapped writable.
pub fn touch(address: u64, length: u64) {
    for at in (address..address + length).step_by(PAGE as usize) {
        // SAFETY: the caller mapped it writable, and it contains no Rust object.
        unsafe { std::ptr::write_volatile(at as *mut u8, 1) };
    }
}

/// Pins the calling thread to one CPU.
pub fn move_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is a plain bit set; all zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid, and CPU_SET ignores numbers beyond it.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is valid for its size.
    let ret = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A BPF hash map with integer keys and values.
pub fn hash_map(entries: u32) -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const HASH: u32 = 1;
    // Map type, key size, value size, entries, flags.
    let attributes = [HASH, 8, 8, entries, 0];
    let fd = bpf(BPF_MAP_CREATE, &attributes)?;
    // SAFETY: a descriptor that the kernel has just created, without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads an empty map of [`hash_map`]; the kernel visits all its buckets.
pub fn read_hash_map(map: &OwnedFd) -> io::Result<()> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    #[repr(C)]
    struct Batch {
        places: [u64; 2],
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        flags: [u64; 2],
    }
    let (mut next, mut key, mut value) = (0_u32, 0_u64, 0_u64);
    let batch = Batch {
        places: [0, (&raw mut next).expose_provenance() as u64],
        keys: (&raw mut key).expose_provenance() as u64,
        values: (&raw mut value).expose_provenance() as u64,
        count: 1,
        map: map.as_raw_fd().cast_unsigned(),
        flags: [0; 2],
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &batch) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer.map(drop),
    }
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads the attributes with the size that it is given; the buffers that they point to are large
    // enough.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(answer).map_err(io::Error::other) }
}
