//! From listeners to connections: how many, how long, how large.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{self, Instant},
};
use tokio_io_timeout::TimeoutStream;

use super::listen::{Listener, Stream};

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once, over the listeners that are served together (the daemon serves each by itself); more wait in the kernel until one ends.
    pub(super) connections: usize,
    /// For a request's head to come, from the connection's begin or the end of the answer before. So a client may ask
    /// every 15 s over one connection, as Prometheus does.
    pub(super) head: Duration,
    /// For a request to be answered.
    pub(super) answer: Duration,
    /// Without a byte taken of an answer.
    pub(super) write: Duration,
    /// For the requests under way when the service is told to stop.
    pub(super) stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(20),
            answer: Duration::from_secs(30),
            write: Duration::from_secs(10),
            stop: Duration::from_secs(5),
        }
    }
}

/// Bytes of a request's first line and header fields: more is answered 431.
const HEAD_SIZE: usize = 16 << 10;
/// Header fields of a request: more are answered 431.
const FIELDS: usize = 64;
/// Time until the next try when no connection can be accepted, for want of file descriptors as a rule.
const RETRY: Duration = Duration::from_secs(1);

/// Serves until `stop` is ready; closes the sockets and says so by dropping what `stop` gave; then answers what the accepted
/// connections ask, for as long as the limits say.
pub(super) async fn serve<T>(listeners: Vec<Listener>, router: Router, limits: Limits, stop: impl Future<Output = T>) {
    let (stopping, watched) = watch::channel(());
    let stopped = tokio::select! {
        stopped = stop => Some(stopped),
        () = accept(&listeners, &router, limits, &watched) => None,
    };
    // The Unix sockets' files go with them.
    drop(listeners);
    drop(stopped);
    drop(watched);
    // Each connection holds a receiver until it ends.
    let _ = stopping.send(());
    if time::timeout(limits.stop, stopping.closed()).await.is_err() {
        tracing::info!("connections were still open after {} s; they are cut", limits.stop.as_secs());
    }
}

async fn accept(listeners: &[Listener], router: &Router, limits: Limits, stopping: &watch::Receiver<()>) {
    let places = Arc::new(Semaphore::new(limits.connections));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match poll_fn(|context| any(listeners, context)).await {
            Ok(stream) => {
                tokio::spawn(converse(stream, router.clone(), limits, stopping.clone(), place));
            }
            // A client that hung up before it was accepted comes here too; a pause for it does no harm.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                time::sleep(RETRY).await;
            }
        }
    }
}

/// The next connection of any listener.
fn any(listeners: &[Listener], context: &mut Context<'_>) -> Poll<io::Result<Box<dyn Stream>>> {
    let mut accepted = listeners.iter().map(|listener| listener.poll_accept(context));
    accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
}

async fn converse(
    stream: Box<dyn Stream>,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
) {
    let accepted = Instant::now();
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let asked = Arc::new(Notify::new());
    let service = Asked { service: TowerToHyperService::new(router), asked: Arc::clone(&asked) };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_header_size(HEAD_SIZE)
            .max_headers(FIELDS)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
    );
    let conversation = async {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            _ = stopping.changed() => {}
        }
        // hyper closes a connection that has sent nothing yet. One whose request is still on its way is to be answered.
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = asked.notified() => {}
            () = time::sleep_until(accepted + limits.stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    // A client that hangs up, or is too slow, is its own loss.
    if let Err(error) = conversation.await {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Says when the first request has come.
struct Asked {
    service: TowerToHyperService<Router>,
    asked: Arc<Notify>,
}

impl Service<Request<Incoming>> for Asked {
    type Response = hyper::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.notify_one();
        self.service.call(request)
    }
}
