//! Turns at the figures: fewer than there are connections, so that there is always one left to say that the service lives.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};

/// Requests for figures that are answered at once; others wait.
#[derive(Clone)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    patience: Duration,
    moved: Arc<Mutex<Instant>>,
}

/// A request's turn.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    moved: Arc<Mutex<Instant>>,
}

impl Turns {
    pub(super) fn new(turns: usize, patience: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(turns)), patience, moved: Arc::new(Mutex::new(Instant::now())) }
    }

    /// In the order in which they came. `None` where it takes too long; at once where no turn has begun or ended for that long,
    /// as when a reading hangs: those who wait hold connections.
    pub(super) async fn take(&self) -> Option<Turn> {
        let free = Arc::clone(&self.free);
        let permit = match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if read(&self.moved).elapsed() >= self.patience => return None,
            Err(_) => time::timeout(self.patience, free.acquire_owned()).await.ok()?.ok()?,
        };
        note(&self.moved);
        Some(Turn { _permit: permit, moved: Arc::clone(&self.moved) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        note(&self.moved);
    }
}

fn read(moved: &Mutex<Instant>) -> Instant {
    *moved.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(moved: &Mutex<Instant>) {
    *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}
