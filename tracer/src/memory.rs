//! The size of a page, and what a start needs and a service does not keep.
//!
//! Reading the kernel's types and loading the programs takes some 14 MB for a moment. The allocator would keep most of it
//! in the process, since it may be wanted again; here it is not.

/// Arenas of the allocator: one for each thread would each keep what it once had.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 1;

/// From this size on an allocation is a mapping of its own, which grows in its place and goes when it is freed, and as much may
/// be free at the heap's end. While it starts: a list that grows leaves no smaller ones of itself behind. Without a word of ours
/// the limits follow the largest block that was ever freed.
#[cfg(target_env = "gnu")]
const STARTING: libc::c_int = 128 << 10;

/// The same while it serves: more than a scrape of 200 workloads needs, whose pages would else go and come with each.
#[cfg(target_env = "gnu")]
const SERVING: libc::c_int = 2 << 20;

/// Bytes of a page of the kernel's, which hands them to every process at its start. No default stands in for them, and no
/// file in /proc, which may not be mounted.
pub fn page_size() -> u64 {
    // SAFETY: it reads what lies beside the process's arguments, for which any number may be asked.
    unsafe { libc::getauxval(libc::AT_PAGESZ) }
}

/// Sets the process up to stay small. To be called before there are threads.
pub fn keep_small() {
    // The kernel makes one huge page of a heap of which a part is used: 2 MiB more after some minutes.
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!("huge pages stay as they are: {error}");
    }
    #[cfg(target_env = "gnu")]
    {
        set(libc::M_ARENA_MAX, ARENAS);
        limit(STARTING);
    }
}

/// The start is over: gives back what it took, and keeps from now on what a scrape needs.
pub fn keep_scrapes() {
    #[cfg(target_env = "gnu")]
    limit(SERVING);
    give_back();
}

#[cfg(target_env = "gnu")]
fn limit(bytes: libc::c_int) {
    set(libc::M_MMAP_THRESHOLD, bytes);
    set(libc::M_TRIM_THRESHOLD, bytes);
}

#[cfg(target_env = "gnu")]
fn set(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: it changes the allocator's own settings only; a setting that it does not know it refuses.
    unsafe { libc::mallopt(parameter, value) };
}

/// Gives what is free back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches free memory of the allocator only.
    unsafe {
        libc::malloc_trim(0);
    }
}
