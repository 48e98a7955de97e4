//! Names of errnos, as pinscope has to print them.

/// Errnos that io_uring_register(2) can return for buffers.
const NAMES: [(i32, &str); 17] = [
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::ENXIO, "ENXIO"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EINVAL, "EINVAL"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EBADFD, "EBADFD"),
];

/// `ok` for success, otherwise the errno's name. `ret` is the kernel's return value, negative on error.
pub fn result_name(ret: i64) -> String {
    if ret >= 0 {
        return "ok".to_owned();
    }
    let known = NAMES.iter().find(|(number, _)| i64::from(*number) == -ret);
    known.map_or_else(|| format!("errno {}", -ret), |(_, name)| (*name).to_owned())
}
