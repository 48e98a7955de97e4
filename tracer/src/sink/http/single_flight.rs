//! One reading of the maps at a time, shared by all who asked before it began.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use anyhow::Context as _;
use axum::body::Bytes;
use tokio::{sync::Mutex, task};

use crate::{
    aggregate::Snapshot,
    sink::{
        prometheus,
        service::{Read, Service},
    },
};

/// What was read, or why nothing was; the same for all who share the reading.
pub(super) type Outcome = Result<Arc<Reading>, Arc<anyhow::Error>>;

/// What one reading of the maps gave.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) snapshot: Snapshot,
    metrics: OnceLock<Bytes>,
}

impl Reading {
    fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, metrics: OnceLock::new() }
    }

    /// As `/metrics` shows it: encoded once for all who share the reading. Takes its time.
    pub(super) fn metrics(&self, service: &Service) -> Bytes {
        self.metrics.get_or_init(|| prometheus::encode(&self.snapshot, service).into()).clone()
    }
}

/// Readings in line. However many ask at once, two suffice: the one under way, which began before them and is too old for
/// them, and the next, which is for all of them.
#[derive(Clone)]
pub(super) struct Readings {
    read: Read,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    /// Readings begun.
    begun: AtomicU64,
    /// Requests that wait for a snapshot.
    waiting: AtomicUsize,
    /// The last reading by its number, while someone waits who may take it. Locked by who reads.
    last: Arc<Mutex<Option<(u64, Outcome)>>>,
}

/// One that waits. When the last has gone, so has the snapshot.
struct Waiting<'a>(&'a Line);

impl<'a> Waiting<'a> {
    fn new(line: &'a Line) -> Self {
        line.waiting.fetch_add(1, Ordering::Relaxed);
        Self(line)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let others = self.0.waiting.fetch_sub(1, Ordering::Relaxed) > 1;
        if !others && let Ok(mut last) = self.0.last.try_lock() {
            *last = None;
        }
    }
}

impl Readings {
    pub(super) fn new(read: Read) -> Self {
        Self { read, line: Arc::default() }
    }

    /// A snapshot that was begun after this call.
    pub(super) async fn next(&self) -> Outcome {
        let arrived = self.line.begun.load(Ordering::Relaxed);
        let _waiting = Waiting::new(&self.line);
        let mut last = Arc::clone(&self.line.last).lock_owned().await;
        if let Some((number, outcome)) = &*last
            && *number > arrived
        {
            return outcome.clone();
        }
        let number = self.line.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let read = Arc::clone(&self.read);
        // The lock goes along: it is kept to the reading's end even where this client hangs up.
        let reading = task::spawn_blocking(move || {
            let outcome = read().map(Reading::new).map(Arc::new).map_err(Arc::new);
            *last = Some((number, outcome.clone()));
            outcome
        });
        reading.await.context("reading the maps ended early").map_err(Arc::new)?
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Condvar, Mutex as Blocking},
        time::Duration,
    };

    use tokio::time;

    use super::*;
    use crate::{
        aggregate::{fold, tests::a_sample},
        decode::Capabilities,
    };

    /// A gate that readings wait at, and how many have come to it.
    #[derive(Default)]
    struct Gate {
        state: Blocking<(usize, usize)>,
        moved: Condvar,
    }

    impl Gate {
        fn pass(&self) -> usize {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            let mine = state.0;
            while state.1 < mine {
                state = self.moved.wait(state).unwrap();
            }
            mine
        }

        fn open(&self, readings: usize) {
            self.state.lock().unwrap().1 = readings;
            self.moved.notify_all();
        }

        fn come(&self) -> usize {
            self.state.lock().unwrap().0
        }
    }

    /// Readings that wait at a gate; the number of each is its `elapsed_ns`.
    fn gated() -> (Readings, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let at = Arc::clone(&gate);
        let snapshot = fold(&a_sample(), &Capabilities::all());
        let read: Read = Arc::new(move || Ok(Snapshot { elapsed_ns: at.pass() as u64, ..snapshot.clone() }));
        (Readings::new(read), gate)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { time::timeout(Duration::from_secs(20), test).await.unwrap() });
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn ask(readings: &Readings) -> task::JoinHandle<Outcome> {
        let readings = readings.clone();
        tokio::spawn(async move { readings.next().await })
    }

    #[test]
    fn any_number_at_once_makes_two_readings_and_none_gets_an_old_one() {
        run(async {
            let (readings, gate) = gated();
            let first = ask(&readings);
            until(|| gate.come() == 1).await;
            let others: Vec<_> = (0..50).map(|_| ask(&readings)).collect();
            until(|| readings.line.waiting.load(Ordering::Relaxed) == 51).await;
            gate.open(100);
            assert_eq!(first.await.unwrap().unwrap().snapshot.elapsed_ns, 1);
            for other in others {
                assert_eq!(other.await.unwrap().unwrap().snapshot.elapsed_ns, 2);
            }
            assert_eq!(gate.come(), 2);
            assert_eq!(readings.next().await.unwrap().snapshot.elapsed_ns, 3);
            assert!(readings.line.last.lock().await.is_none(), "a snapshot is kept though nobody waits");
        });
    }

    #[test]
    fn one_that_hangs_up_does_not_let_a_second_reading_in() {
        run(async {
            let (readings, gate) = gated();
            let gone = ask(&readings);
            until(|| gate.come() == 1).await;
            gone.abort();
            assert!(gone.await.unwrap_err().is_cancelled());
            let next = ask(&readings);
            time::sleep(Duration::from_millis(50)).await;
            assert_eq!(gate.come(), 1, "the maps are read twice at once");
            gate.open(100);
            assert_eq!(next.await.unwrap().unwrap().snapshot.elapsed_ns, 2);
        });
    }

    #[test]
    fn a_reading_that_panics_is_an_error_for_one_and_the_next_is_made() {
        run(async {
            let count = AtomicUsize::new(0);
            let snapshot = fold(&a_sample(), &Capabilities::all());
            let read: Read = Arc::new(move || {
                assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "broken");
                Ok(snapshot.clone())
            });
            let readings = Readings::new(read);
            assert!(readings.next().await.unwrap_err().to_string().contains("ended early"));
            assert!(readings.next().await.is_ok());
        });
    }
}
