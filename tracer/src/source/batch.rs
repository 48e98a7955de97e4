//! A whole hash map in a few system calls: `BPF_MAP_LOOKUP_BATCH`, for hash maps since 5.6, which aya does not have. By
//! iteration each entry takes two, which at hundreds of entries is most of what a scrape costs.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, OwnedFd},
};

use aya::{
    Pod,
    maps::{MapData, MapError},
};

/// `enum bpf_cmd`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// Entries asked for at once. A bucket of the map has to fit.
const AT_ONCE: u32 = 256;

/// The `batch` of `union bpf_attr`.
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads a hash map that is not per CPU.
pub struct Batch<K, V> {
    map: OwnedFd,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// Of this map, whose keys and values are to be of these types.
    ///
    /// # Errors
    /// The map has other sizes, or its descriptor cannot be copied.
    pub fn new(map: &MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        for (size, expected) in [(info.key_size(), size_of::<K>()), (info.value_size(), size_of::<V>())] {
            if size as usize != expected {
                return Err(MapError::InvalidValueSize { size: size as usize, expected });
            }
        }
        let map = rustix::io::fcntl_dupfd_cloexec(map.fd(), 0).map_err(io::Error::from)?;
        Ok(Self { map, entry: PhantomData })
    }

    /// Every entry that is there throughout; of those that come or go meanwhile, some.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&self) -> io::Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        let (mut at_once, mut position, mut begun) = (AT_ONCE, 0_u32, false);
        loop {
            let mut keys = vec![MaybeUninit::<K>::uninit(); at_once as usize];
            let mut values = vec![MaybeUninit::<V>::uninit(); at_once as usize];
            let mut next = 0_u32;
            let mut attributes = LookupBatch {
                in_batch: if begun { (&raw const position).addr() as u64 } else { 0 },
                out_batch: (&raw mut next).expose_provenance() as u64,
                keys: keys.as_mut_ptr().expose_provenance() as u64,
                values: values.as_mut_ptr().expose_provenance() as u64,
                count: at_once,
                map_fd: self.map.as_raw_fd().cast_unsigned(),
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: the kernel writes a position of four bytes, and of keys and values, whose sizes are the map's, no more
            // than `count`, for which there is room.
            let answer = unsafe {
                libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<LookupBatch>())
            };
            let refusal = if answer == 0 { None } else { Some(io::Error::last_os_error()) };
            let done = match refusal {
                None => false,
                Some(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    Some(libc::ENOSPC) => {
                        at_once = at_once.saturating_mul(2);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let read = keys.iter().zip(&values).take(attributes.count as usize);
            // SAFETY: the kernel has written the first `count`, of plain data for which any bytes are a value.
            all.extend(read.map(|(key, value)| unsafe { (key.assume_init(), value.assume_init()) }));
            if done {
                return Ok(all);
            }
            (position, begun) = (next, true);
        }
    }
}
