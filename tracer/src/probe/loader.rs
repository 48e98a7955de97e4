//! The library's loader, without the kernel's types.
//!
//! Making one reads and parses all of `/sys/kernel/btf/vmlinux` (aya 0.14, `EbpfLoader::new`): a sixth of a start's instructions and
//! 14 MB, for types that are wanted only where an object has CO-RE relocations. Ours has none. There is no other way to make
//! one; but where the file cannot be opened, the library goes on without. So it is made on a thread that can open no file.

use std::{io, thread};

use aya::EbpfLoader;

/// A loader that has no types, and takes no time.
pub fn without_types<'a>() -> EbpfLoader<'a> {
    let made = thread::scope(|scope| {
        let make = || {
            if let Err(error) = open_nothing() {
                tracing::debug!("the loader reads the kernel's types: {error}");
            }
            EbpfLoader::new()
        };
        thread::Builder::new().spawn_scoped(scope, make).ok()?.join().ok()
    });
    let mut loader = made.unwrap_or_else(EbpfLoader::new);
    // Without a filter it has them.
    loader.btf(None);
    loader
}

/// From now on `openat` fails on this thread, by a seccomp filter (3.5). The filter goes with the thread.
fn open_nothing() -> io::Result<()> {
    const NUMBER: u32 = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_openat as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOENT as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // A filter without privileges asks for it. It is the thread's alone, as the filter is.
    nix::sys::prctl::set_no_new_privs()?;
    // SAFETY: the kernel copies the filter that `program` points to, which lives until after the call, and changes nothing here.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_the_thread_itself_cannot_open_files() {
        let there = || File::open("/proc/self/status").is_ok();
        let (before, after) = thread::spawn(move || (there(), open_nothing().map(|()| there()).expect("a filter")))
            .join()
            .expect("joined");
        assert!((before, after, there()) == (true, false, true));
    }
}
