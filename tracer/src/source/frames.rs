//! How many calls are under way, by the frames of their tasks, which go with them. The counts tell it too, but not where the end of a
//! call was skipped: its entry has no end there, whatever became of the task.

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{Ebpf, maps::Map};
use tracer_ebpf::{
    operation::Operation,
    record::{Frame, RegistrationRecord},
};

use crate::bpf::{
    self, Pass,
    read::{ReadError, map},
};

/// Task storage, which the library does not know.
const NAME: &str = "FRAMES";

/// Looks at the frames of all tasks.
pub struct Frames {
    link: OwnedFd,
}

impl Frames {
    /// `function` is the number of [`bpf::TASKS`] among the kernel's types.
    ///
    /// # Errors
    /// The frames are in no task storage, or the kernel refuses.
    pub fn of(ebpf: &Ebpf, function: u32) -> Result<Self, ReadError> {
        let Map::Unsupported(frames) = map(ebpf, NAME)? else { return Err(ReadError::Missing(NAME)) };
        let stage = offset_of!(Frame, stage);
        let operation = offset_of!(Frame, registration) + offset_of!(RegistrationRecord, operation);
        let failed = |error| ReadError::Iterator(NAME, error);
        let program = bpf::load_storage_writer(function, frames.fd().as_fd(), stage, operation).map_err(failed)?;
        Ok(Self { link: bpf::link_iterator(program.as_fd(), None).map_err(failed)? })
    }

    /// Calls under way, by [`Operation`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open(&self) -> Result<[u64; Operation::COUNT], ReadError> {
        let failed = |error| ReadError::Iterator(NAME, error);
        let mut pass = Pass::begin(self.link.as_fd()).map_err(failed)?;
        let mut open = [0; Operation::COUNT];
        let mut operations = [0; 4096];
        loop {
            let more = pass.read(&mut operations).map_err(failed)?;
            if more == 0 {
                return Ok(open);
            }
            for operation in &operations[..more] {
                if let Some(count) = open.get_mut(usize::from(*operation)) {
                    *count += 1;
                }
            }
        }
    }
}
