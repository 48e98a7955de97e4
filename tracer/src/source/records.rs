//! The ring buffer of records, for a session that asked for them.

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use tokio::io::unix::AsyncFd;

use super::wait;

/// Records as they come.
pub struct Records {
    ring: AsyncFd<RingBuf<MapData>>,
}

/// Why records cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The object and this program do not belong together.
    #[error("the eBPF object has no map RECORDS")]
    Missing,
    /// The ring buffer could not be mapped.
    #[error("cannot map the eBPF ring buffer: {0}")]
    Map(#[from] MapError),
    /// The ring buffer could not be waited for.
    #[error("cannot wait for the eBPF ring buffer: {0}")]
    Wait(#[from] std::io::Error),
}

impl Records {
    /// Takes the ring buffer out of the loaded object. Must run inside a runtime.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, RecordsError> {
        let ring = RingBuf::try_from(ebpf.take_map("RECORDS").ok_or(RecordsError::Missing)?)?;
        Ok(Self { ring: wait::readable(ring)? })
    }

    /// Waits until there may be records. Cancel-safe: nothing is read.
    pub async fn ready(&mut self) -> Result<(), RecordsError> {
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// Hands every record that lies there to `take`, until there is none or `take` returns `false`.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8]) -> bool) {
        while let Some(record) = self.ring.get_mut().next() {
            if !take(&record) {
                return;
            }
        }
    }
}
