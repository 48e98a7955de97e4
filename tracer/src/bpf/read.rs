//! Maps by name, and why they cannot be read.

use std::io;

use aya::{
    Ebpf,
    maps::{Map, MapError},
};

/// Why the maps could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The object and this program do not belong together.
    #[error("the eBPF object has no map {0}")]
    Missing(&'static str),
    /// The kernel refused.
    #[error("cannot read the eBPF map {0}: {1}")]
    Kernel(&'static str, MapError),
    /// The kernel refused to map it.
    #[error("cannot map the eBPF map {0}: {1}")]
    Mapped(&'static str, io::Error),
    /// The kernel refused to iterate over it.
    #[error("cannot read the entries of the eBPF map {0}: {1}")]
    Iterator(&'static str, io::Error),
    /// The kernel's iterators have no room for an entry with a value of each CPU.
    #[error(
        "cannot read the entries of the eBPF map {name}: one is {entry} bytes, a value for each of {cpus} possible CPUs, and the \
         kernel's iterators hand out less than 8 pages at once; boot with possible_cpus= for as many as there are"
    )]
    Wide {
        /// The map.
        name: &'static str,
        /// Bytes of its entries.
        entry: usize,
        /// Possible CPUs.
        cpus: usize,
    },
    /// The kernel refused to run a program of ours.
    #[error("cannot run the eBPF program {0}: {1}")]
    Run(&'static str, String),
}

/// The map of this name.
///
/// # Errors
/// The object has none.
pub fn map<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Map, ReadError> {
    ebpf.map(name).ok_or(ReadError::Missing(name))
}
