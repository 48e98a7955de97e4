//! Children that begin with less than we have.

use std::{ffi::CStr, io, os::unix::process::CommandExt, process::Command};

/// The program begins without these capabilities, root or not.
pub fn drop_capabilities(command: &mut Command, capabilities: &'static [i32]) {
    let drop = move || {
        for capability in capabilities {
            // SAFETY: the call takes integers only.
            checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) })?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(drop) };
}

/// The program begins with so many bytes that it may lock, and may lock no more.
pub fn limit_memlock(command: &mut Command, bytes: u64) {
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: `limit` is valid.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) })
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(limit) };
}

/// The program sees an empty folder there; nobody else does.
pub fn hide(command: &mut Command, folder: &'static CStr) {
    let hide = move || {
        let null = std::ptr::null();
        // SAFETY: all strings are NUL-terminated and live for ever; the mounts are in a namespace of the child's own.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            checked(libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()))?;
            checked(libc::mount(c"none".as_ptr(), folder.as_ptr(), c"tmpfs".as_ptr(), 0, null.cast()))
        }
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(hide) };
}

/// From here on this process is that user, without capabilities, and may lock so many bytes and no more.
pub fn lower_to(user: u32, memlock: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: memlock, rlim_max: memlock };
    // SAFETY: `limit` is valid.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) })?;
    // SAFETY: the call takes integers only.
    checked(unsafe { libc::setresuid(user, user, user) })
}

fn checked(ret: i32) -> io::Result<()> {
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
