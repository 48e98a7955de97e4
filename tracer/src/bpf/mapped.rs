//! Arrays that this process has mapped, and reads and writes without a system call.
//!
//! In a bpf(2) call on a map the kernel keeps kprobes and perf events on that CPU from running their programs; if it preempts
//! the caller there, until the caller runs again. A mapped array (`BPF_F_MMAPABLE`, 5.5) is memory.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::AsFd as _,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Ebpf, Pod, maps::Map};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::read::ReadError;

/// Bytes of what is read at once.
const WORD: usize = size_of::<u64>();

/// An array in this process's memory.
pub struct Mapped {
    start: NonNull<AtomicU64>,
    /// Words of an entry.
    entry: usize,
    entries: usize,
    writable: bool,
}

// SAFETY: nothing but atomic loads and stores, which any thread may make at any time.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// To be read only.
    ///
    /// # Errors
    /// There is no such array, or the kernel does not map it.
    pub fn readable(ebpf: &Ebpf, name: &'static str) -> Result<Self, ReadError> {
        Self::of(ebpf, name, false)
    }

    /// To be written as well.
    ///
    /// # Errors
    /// As in [`Self::readable`].
    pub fn writable(ebpf: &Ebpf, name: &'static str) -> Result<Self, ReadError> {
        Self::of(ebpf, name, true)
    }

    fn of(ebpf: &Ebpf, name: &'static str, writable: bool) -> Result<Self, ReadError> {
        let Some(Map::Array(array)) = ebpf.map(name) else { return Err(ReadError::Missing(name)) };
        let info = array.info().map_err(|error| ReadError::Kernel(name, error))?;
        // The kernel rounds an entry up to whole words.
        let entry = (info.value_size() as usize).div_ceil(WORD);
        let entries = info.max_entries() as usize;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let length = entry * entries * WORD;
        // SAFETY: the kernel chooses a place where nothing is.
        let mapped = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, array.fd().as_fd(), 0) };
        let start = mapped.map_err(|error| ReadError::Mapped(name, error.into()))?;
        let start = NonNull::new(start.cast()).ok_or(ReadError::Missing(name))?;
        Ok(Self { start, entry, entries, writable })
    }

    /// How many entries it has.
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// The words of an entry as they are now; none where there is no such entry.
    pub fn words(&self, entry: usize) -> impl Iterator<Item = u64> {
        let words = if entry < self.entries { 0..self.entry } else { 0..0 };
        // SAFETY: the entry lies in the array, which is mapped and aligned to a page; programs write its words whole.
        words.map(move |word| unsafe { self.start.add(entry * self.entry + word).as_ref() }.load(Ordering::Relaxed))
    }

    /// A copy of an entry; `None` where there is none, or it has another size.
    pub fn get<T: Pod>(&self, entry: usize) -> Option<T> {
        if entry >= self.entries || size_of::<T>().div_ceil(WORD) != self.entry || !size_of::<T>().is_multiple_of(WORD)
        {
            return None;
        }
        let mut copy = MaybeUninit::<T>::uninit();
        for (place, word) in self.words(entry).enumerate() {
            // SAFETY: the copy has as many words as the entry.
            unsafe { copy.as_mut_ptr().cast::<u64>().add(place).write_unaligned(word) };
        }
        // SAFETY: all of it is written, and any bytes are a value of the type.
        Some(unsafe { copy.assume_init() })
    }

    /// Makes a word of the first entry 0 if it is this still, and may be written.
    pub fn clear(&self, word: usize, value: u64) {
        if self.writable && self.entries > 0 && word < self.entry {
            // SAFETY: the array has such a word, and is mapped to be written.
            let word = unsafe { self.start.add(word).as_ref() };
            // Where it is another by now, that one stays.
            let _ = word.compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Writes the first word of the first entry, if it may be written.
    pub fn set(&self, word: u64) {
        if self.writable && self.entry * self.entries > 0 {
            // SAFETY: the array has such a word, and is mapped to be written.
            unsafe { self.start.as_ref() }.store(word, Ordering::Relaxed);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: `of` has mapped this, and nobody has a reference into it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.entry * self.entries * WORD) };
        if let Err(error) = unmapped {
            tracing::debug!("an array stays mapped: {error}");
        }
    }
}

/// Numbers of CPUs that the kernel may ever give: one more than the highest.
///
/// # Errors
/// The kernel does not tell them.
pub fn cpus() -> io::Result<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    highest(&text)
        .and_then(|highest| highest.checked_add(1))
        .ok_or_else(|| io::Error::other("the possible CPUs cannot be read"))
}

/// The last number of a list of ranges.
fn highest(list: &str) -> Option<u32> {
    list.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_cpu_ends_the_list() {
        for (list, expected) in [("0\n", 0), ("0-127\n", 127), ("0-3,8-11", 11), ("0,4", 4)] {
            assert_eq!(highest(list), Some(expected), "{list}");
        }
        assert_eq!(highest("\n"), None);
    }
}
