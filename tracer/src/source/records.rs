//! The ring buffer of records, for a session that asked for them.

use std::time::{Duration, Instant};

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

    /// Hands records that lie there to `take`, until there is none, `take` returns `Break`, or so many bytes or so much time
    /// have gone: where they come faster than they are taken, there is always one more. Returns whether there may be more.
    pub fn drain<E>(&mut self, bound: Bound, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<bool, E> {
        let begun = Instant::now();
        let mut bytes = 0;
        for number in 1_u64.. {
            let Some(record) = self.ring.get_mut().next() else { return Ok(false) };
            bytes += record.len();
            take(&record)?;
            // The clock is not for nothing.
            if bytes >= bound.bytes || number % 16 == 0 && begun.elapsed() >= bound.time {
                break;
            }
        }
        Ok(true)
    }
}

/// How much one drain takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Bytes of records.
    pub bytes: usize,
    /// Time, looked at now and then.
    pub time: Duration,
}
