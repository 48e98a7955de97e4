//! From listeners to connections: how many, how long, how large.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_io_timeout::TimeoutStream;

use super::{
    hosts::{Hosts, Refusal},
    listen::{Accepted, Listener},
    places::{Places, Progress, Seat, Watched},
};

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once, over the listeners that are served together (the daemon serves each by itself). For one more, the
    /// one that has gone longest without being served is closed.
    pub(super) connections: usize,
    /// For how long it is not.
    pub(super) young: Duration,
    /// Requests for figures that are worked on at once: fewer than there are connections.
    pub(super) turns: usize,
    /// For a turn.
    pub(super) turn: Duration,
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
            connections: 128,
            young: Duration::from_millis(10),
            turns: 32,
            turn: Duration::from_millis(500),
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

/// What is served, and to whom.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) router: Router,
    pub(super) hosts: Hosts,
    pub(super) limits: Limits,
}

/// Serves until `stop` is ready; closes the sockets and says so by dropping what `stop` gave; then answers what the accepted
/// connections ask, for as long as the limits say.
pub(super) async fn serve<T>(listeners: Vec<Listener>, site: Site, stop: impl Future<Output = T>) {
    let (stopping, watched) = watch::channel(());
    let stopped = tokio::select! {
        stopped = stop => Some(stopped),
        () = accept(&listeners, &site, &watched) => None,
    };
    // The Unix sockets' files go with them.
    drop(listeners);
    drop(stopped);
    drop(watched);
    // Each connection holds a receiver until it ends.
    let _ = stopping.send(());
    if time::timeout(site.limits.stop, stopping.closed()).await.is_err() {
        tracing::info!("connections were still open after {} s; they are cut", site.limits.stop.as_secs());
    }
}

async fn accept(listeners: &[Listener], site: &Site, stopping: &watch::Receiver<()>) {
    let places = Places::new(site.limits.connections, site.limits.young);
    loop {
        match poll_fn(|context| any(listeners, context)).await {
            Ok(accepted) => {
                tokio::spawn(converse(accepted, site.clone(), stopping.clone(), places.take()));
                places.make_room().await;
            }
            // A client that hung up before it was accepted comes here too; a pause for it does no harm.
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                time::sleep(RETRY).await;
            }
        }
    }
}

/// One connection that no listener accepted.
#[cfg(any(test, fuzzing))]
pub(super) async fn serve_one(stream: impl super::listen::Stream + 'static, site: Site) {
    let places = Places::new(site.limits.connections, site.limits.young);
    let (_stopping, watched) = watch::channel(());
    converse(Accepted::new(stream, true), site, watched, places.take()).await;
}

/// The next connection of any listener.
fn any(listeners: &[Listener], context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
    let mut accepted = listeners.iter().map(|listener| listener.poll_accept(context));
    accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
}

async fn converse(accepted: Accepted, site: Site, mut stopping: watch::Receiver<()>, seat: Seat) {
    let begin = Instant::now();
    let limits = site.limits;
    let mut stream = TimeoutStream::new(accepted.stream);
    stream.set_write_timeout(Some(limits.write));
    let stream = Watched { stream: Box::pin(stream), progress: seat.progress() };
    let asked = Arc::new(Notify::new());
    let service = Guard {
        service: TowerToHyperService::new(site.router),
        hosts: site.hosts,
        names: accepted.names,
        asked: Arc::clone(&asked),
        progress: seat.progress(),
    };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_header_size(HEAD_SIZE)
            .max_headers(FIELDS)
            .serve_connection(TokioIo::new(stream), service)
    );
    let conversation = async {
        tokio::select! {
            // In this order: a request that has come is seen before the place is lost.
            biased;
            ended = connection.as_mut() => return ended,
            () = seat.lost() => return Ok(()),
            _ = stopping.changed() => {}
        }
        // hyper closes a connection that has sent nothing yet. One whose request is still on its way is to be answered.
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = asked.notified() => {}
            () = time::sleep_until(begin + limits.stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    // A client that hangs up, or is too slow, is its own loss.
    if let Err(error) = conversation.await {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Refuses requests under foreign names, and tells when one comes and when it is answered.
struct Guard {
    service: TowerToHyperService<Router>,
    hosts: Hosts,
    /// Whether `Host` has to name this machine.
    names: bool,
    /// The first request has come.
    asked: Arc<Notify>,
    progress: Progress,
}

impl Service<Request<Incoming>> for Guard {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.asked.notify_one();
        self.progress.asked();
        let progress = self.progress.clone();
        let answer = match self.hosts.check(request.version(), request.uri(), request.headers(), self.names) {
            Ok(()) => Ok(self.service.call(request)),
            Err(refusal) => Err(refused(&refusal)),
        };
        Box::pin(async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(refusal) => Ok(refusal),
            };
            progress.answered();
            answer
        })
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    match refusal {
        Refusal::Malformed => {
            (StatusCode::BAD_REQUEST, "HTTP/1.1 asks for one Host, NAME or NAME:PORT\n").into_response()
        }
        Refusal::Foreign(name) => {
            let text = format!(
                "{name} is no name of this machine; if it should be, start pinscope daemon with --allow-host {name}\n"
            );
            (StatusCode::MISDIRECTED_REQUEST, text).into_response()
        }
    }
}
