//! Places for connections. When all are taken, the connection that has gone longest without being served gives way.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{self, Instant},
};

/// The connections of a service.
pub(super) struct Places {
    limit: usize,
    /// A connection younger than this keeps its place: its request may be on its way.
    young: Duration,
    seats: Mutex<Seats>,
    /// A connection ended, or has become one that can give way.
    changed: Notify,
}

/// Whether there is room, or when to look again.
enum Room {
    Enough,
    AfterAChange,
    At(Instant),
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: BTreeMap<u64, Arc<Shared>>,
}

/// A connection's place, for as long as it lives.
pub(super) struct Seat {
    places: Arc<Places>,
    number: u64,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    told: Notify,
}

struct State {
    /// Its request is being answered. Such a connection keeps its place.
    answering: bool,
    /// Chosen to give way.
    told: bool,
    /// When something was last done for it: accepted, its answer made, or a part of that taken by the client. What the
    /// client sends does not count, so a head that comes byte by byte saves nobody's place.
    served: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    pub(super) fn new(limit: usize, young: Duration) -> Arc<Self> {
        Arc::new(Self { limit, young, seats: Mutex::default(), changed: Notify::new() })
    }

    /// A place for a connection that was accepted. There may be one more than the limit until [`Places::make_room`] returns.
    pub(super) fn take(self: &Arc<Self>) -> Seat {
        let state = State { answering: false, told: false, served: Instant::now() };
        let shared = Arc::new(Shared { state: Mutex::new(state), told: Notify::new() });
        let mut seats = lock(&self.seats);
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, Arc::clone(&shared));
        Seat { places: Arc::clone(self), number, shared }
    }

    /// Returns once no more places are taken than the limit says.
    pub(super) async fn make_room(&self) {
        loop {
            match self.choose() {
                Room::Enough => return,
                Room::AfterAChange => self.changed.notified().await,
                Room::At(ripe) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = time::sleep_until(ripe) => {}
                },
            }
        }
    }

    /// Tells the connection that is to give way, where one has to.
    fn choose(&self) -> Room {
        let seats = lock(&self.seats);
        if seats.taken.len() <= self.limit {
            return Room::Enough;
        }
        let mut oldest: Option<(Instant, &Arc<Shared>)> = None;
        for shared in seats.taken.values() {
            let state = lock(&shared.state);
            if state.told {
                return Room::AfterAChange;
            }
            if !state.answering && oldest.is_none_or(|(served, _)| state.served < served) {
                oldest = Some((state.served, shared));
            }
        }
        let Some((served, shared)) = oldest else { return Room::AfterAChange };
        let ripe = served + self.young;
        if ripe > Instant::now() {
            return Room::At(ripe);
        }
        lock(&shared.state).told = true;
        shared.told.notify_one();
        Room::AfterAChange
    }
}

impl Seat {
    /// Waits until this connection is to end for another. Cancel-safe.
    pub(super) async fn lost(&self) {
        loop {
            self.shared.told.notified().await;
            let mut state = lock(&self.shared.state);
            if !state.answering {
                return;
            }
            // Its request came in the meantime: another has to go.
            state.told = false;
            self.places.changed.notify_one();
        }
    }

    /// What tells how the connection is served.
    pub(super) fn progress(&self) -> Progress {
        Progress { places: Arc::clone(&self.places), shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.places.seats).taken.remove(&self.number);
        self.places.changed.notify_one();
    }
}

/// How a connection is served.
#[derive(Clone)]
pub(super) struct Progress {
    places: Arc<Places>,
    shared: Arc<Shared>,
}

impl Progress {
    pub(super) fn asked(&self) {
        lock(&self.shared.state).answering = true;
    }

    pub(super) fn answered(&self) {
        let mut state = lock(&self.shared.state);
        (state.answering, state.served) = (false, Instant::now());
        self.places.changed.notify_one();
    }

    fn taken(&self) {
        lock(&self.shared.state).served = Instant::now();
    }
}

/// A connection's stream, which tells when the client takes a part of an answer.
pub(super) struct Watched<S> {
    pub(super) stream: S,
    pub(super) progress: Progress,
}

impl<S> Watched<S> {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.progress.taken();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
