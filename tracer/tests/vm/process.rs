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

/// The program begins with so many open files that it may have, and so many that it may raise that to.
pub fn limit_files(command: &mut Command, soft: u64, hard: u64) {
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `limit` is valid.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
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

/// The program is root of a user namespace of its own, and holds every capability there.
pub fn in_user_namespace(command: &mut Command) {
    let enter = || {
        // SAFETY: the call takes integers only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
        for (file, text) in
            [(c"/proc/self/setgroups", "deny"), (c"/proc/self/uid_map", "0 0 1"), (c"/proc/self/gid_map", "0 0 1")]
        {
            // SAFETY: the string is NUL-terminated, and the text is as long as it says.
            unsafe {
                let fd = libc::open(file.as_ptr(), libc::O_WRONLY);
                checked(fd.min(0))?;
                checked(libc::write(fd, text.as_ptr().cast(), text.len()).min(0) as i32)?;
                checked(libc::close(fd))?;
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(enter) };
}

/// A filter of system calls answers this one with EPERM.
pub fn refuse(command: &mut Command, call: libc::c_long) {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        // The call's number, of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: the filter lives until the call has returned.
        unsafe {
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter))
        }
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(filter) };
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
