//! What a start needs and a service does not keep.
//!
//! Reading the kernel's types and loading the programs takes some 16 MB for a moment. The allocator would keep most of it
//! in the process, since it may be wanted again; here it is not.

/// Arenas of the allocator: one for each thread would each keep what it once had.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 1;

/// From this size on an allocation is a mapping of its own, which goes when it is freed, and as much may be free at the
/// heap's end: more than a scrape of 200 workloads needs, whose pages would else go and come with each. Without a word of
/// ours the limits follow the largest block that was ever freed.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 2 << 20;

/// Sets the process up to stay small. To be called before there are threads.
pub fn keep_small() {
    // The kernel makes one huge page of a heap of which a part is used: 2 MiB more after some minutes.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!("huge pages stay as they are: {error}");
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes the allocator's own settings only; a setting that it does not know it refuses.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives what is free back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches free memory of the allocator only.
    unsafe {
        libc::malloc_trim(0);
    }
}
