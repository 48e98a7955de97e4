//! Probes in the kernel, with the maps that they count in.

use std::ops::{Deref, DerefMut};

use super::maps::Maps;
use crate::{bpf::read::ReadError, probe::attach::Attached};

/// What is attached, open to be read. Dropping it detaches.
pub struct Probes {
    attached: Attached,
    /// What they count in.
    pub maps: Maps,
}

impl Probes {
    /// `processes` says whether the session keeps totals by process.
    ///
    /// # Errors
    /// A map is missing, or the kernel does not let it be read.
    pub fn open(attached: Attached, processes: bool) -> Result<Self, ReadError> {
        let maps = Maps::of(&attached.ebpf, attached.iterators, processes)?;
        Ok(Self { attached, maps })
    }
}

impl Deref for Probes {
    type Target = Attached;

    fn deref(&self) -> &Attached {
        &self.attached
    }
}

impl DerefMut for Probes {
    fn deref_mut(&mut self) -> &mut Attached {
        &mut self.attached
    }
}
