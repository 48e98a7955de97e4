//! The entries of hash maps, read through the kernel's iterators of maps (5.9): by read(2), which keeps no program from running as the
//! calls of bpf(2) on a map do ([`super::mapped`]).
//!
//! The kernel holds no bucket's lock meanwhile. An entry that is there throughout is among those read as long as none is removed from
//! its map; who reads a map from which programs remove asks whether any was.

use std::{
    collections::HashSet,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
    slice::ChunksExact,
};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapError},
    util::nr_cpus,
};

use super::read::{ReadError, map};
use crate::{
    bpf::{self, Pass},
    memory::page_size,
};

/// Bytes that are asked for at once: twice as many as an iterator gives with pages of 4 KiB.
const AT_ONCE: usize = 1 << 16;
/// Pages that an iterator of the kernel has for what its program writes of one entry (`bpf_seq_read`).
const PAGES: usize = 8;

/// Reads a hash map.
pub struct Entries<K, V> {
    name: &'static str,
    /// Holds program and map.
    link: OwnedFd,
    entry: usize,
    of: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> Entries<K, V> {
    /// Of this map, whose keys and values are to be of these types. `function` is the number of [`bpf::MAP_ENTRIES`] among the
    /// kernel's types.
    ///
    /// # Errors
    /// There is no such map, it has other sizes, or the kernel refuses.
    pub fn of(ebpf: &Ebpf, function: u32, name: &'static str) -> Result<Self, ReadError> {
        let iterator = |error| ReadError::Iterator(name, error);
        let (map, values) = match map(ebpf, name)? {
            Map::HashMap(map) | Map::LruHashMap(map) => (map, 1),
            Map::PerCpuHashMap(map) => (map, nr_cpus().map_err(|(_, error)| iterator(error))?),
            _ => return Err(ReadError::Missing(name)),
        };
        let failed = |error| ReadError::Kernel(name, error);
        let info = map.info().map_err(failed)?;
        for (size, expected) in [(info.key_size(), size_of::<K>()), (info.value_size(), size_of::<V>())] {
            if size as usize != expected {
                return Err(failed(MapError::InvalidValueSize { size: size as usize, expected }));
            }
        }
        let (key, value) = (size_of::<K>(), size_of::<V>() * values);
        if key + value >= PAGES * page_size() as usize {
            return Err(ReadError::Wide { name, entry: key + value, cpus: values });
        }
        let program = bpf::load_writer(function, key, value).map_err(iterator)?;
        let link = bpf::link_iterator(program.as_fd(), Some(map.fd().as_fd())).map_err(iterator)?;
        Ok(Self { name, link, entry: key + value, of: PhantomData })
    }

    /// What is made of each entry with one value.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read<T>(&self, make: impl Fn(K, V) -> T) -> Result<Vec<T>, ReadError> {
        let mut all = Vec::new();
        self.each(|key, mut values| all.extend(values.next().map(|value| make(key, value))))?;
        Ok(all)
    }

    /// Hands out each entry once, with its value, or with one of each CPU.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn each(&self, mut take: impl FnMut(K, Values<'_, V>)) -> Result<(), ReadError> {
        let failed = |error| ReadError::Iterator(self.name, error);
        let mut pass = Pass::begin(self.link.as_fd()).map_err(failed)?;
        // What is put into a bucket between two reads shifts the others.
        let mut seen = HashSet::new();
        let mut bytes = vec![0; AT_ONCE.max(2 * self.entry)];
        let mut kept = 0;
        loop {
            let more = pass.read(&mut bytes[kept..]).map_err(failed)?;
            if more == 0 {
                return Ok(());
            }
            let there = kept + more;
            let whole = there - there % self.entry;
            for entry in bytes[..whole].chunks_exact(self.entry) {
                let (key, values) = entry.split_at(size_of::<K>());
                if seen.insert(key.to_vec()) {
                    take(value_of(key), Values { bytes: values.chunks_exact(size_of::<V>()), of: PhantomData });
                }
            }
            bytes.copy_within(whole..there, 0);
            kept = there - whole;
        }
    }
}

/// The values of an entry.
pub struct Values<'a, V> {
    bytes: ChunksExact<'a, u8>,
    of: PhantomData<fn() -> V>,
}

impl<V: Pod> Iterator for Values<'_, V> {
    type Item = V;

    fn next(&mut self) -> Option<V> {
        self.bytes.next().map(value_of)
    }
}

/// The bytes must be as many as the type has.
fn value_of<T: Pod>(bytes: &[u8]) -> T {
    assert!(bytes.len() == size_of::<T>(), "the entry was cut elsewhere");
    // SAFETY: as many bytes as the type has, any of which are a value of it.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
