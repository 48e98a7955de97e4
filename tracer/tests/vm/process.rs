//! Child processes with fewer privileges than ours.

use std::{ffi::CStr, io, os::unix::process::CommandExt, process::Command};

/// Starts the program without these capabilities, even as root.
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

/// Limits the memory that the program may lock to this number of bytes.
pub fn limit_memlock(command: &mut Command, bytes: u64) {
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: `limit` is valid.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) })
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(limit) };
}

/// Limits the program's open files: `soft` is the initial limit, `hard` its maximum.
pub fn limit_files(command: &mut Command, soft: u64, hard: u64) {
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `limit` is valid.
        checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(limit) };
}

/// Shows the program, and nobody else, an empty folder at this place.
pub fn hide(command: &mut Command, folder: &'static CStr) {
    let hide = move || {
        let null = std::ptr::null();
        // SAFETY: all strings are NUL-terminated and static; the mounts are in the child's own namespace.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            checked(libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()))?;
            checked(libc::mount(c"none".as_ptr(), folder.as_ptr(), c"tmpfs".as_ptr(), 0, null.cast()))
        }
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(hide) };
}

/// Starts the program as root of a user namespace of its own, with every capability in it.
pub fn in_user_namespace(command: &mut Command) {
    let enter = || {
        // SAFETY: the call takes integers only.
        checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
        for (file, text) in
            [(c"/proc/self/setgroups", "deny"), (c"/proc/self/uid_map", "0 0 1"), (c"/proc/self/gid_map", "0 0 1")]
        {
            // SAFETY: the string is NUL-terminated, and the length is that of the text.
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

/// Installs a seccomp filter that answers this system call with EPERM.
pub fn refuse(command: &mut Command, call: libc::c_long) {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let program = [
        // Loads the system call's number from `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: the filter outlives the call.
        unsafe {
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter))
        }
    };
    // SAFETY: between fork and exec there are only system calls.
    unsafe { command.pre_exec(filter) };
}

/// Turns this process into one of that user, without capabilities, with this limit of locked memory in bytes.
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
