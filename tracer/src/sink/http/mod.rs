//! The HTTP side of the service: metrics, health, and a page for people.

mod address;
mod hosts;
mod listen;
mod places;
mod serve;
mod single_flight;
mod turns;

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::task;
use tower_http::{CompressionLevel, compression::CompressionLayer, timeout::TimeoutLayer};

use super::{
    page, prometheus,
    service::{Read, Service},
};

pub use address::{Listen, ListenError};
pub use hosts::Hosts;
pub use listen::{Listener, SocketFile, bind};
use serve::{Limits, Site};
use single_flight::{Reading, Readings};
use turns::Turns;

#[derive(Clone)]
struct App {
    readings: Readings,
    service: Arc<Service>,
    turns: Turns,
}

/// Why a request for figures has none.
enum Failure {
    /// Others are before it.
    Busy,
    /// They could not be read.
    Read(Arc<anyhow::Error>),
}

const PLAIN: &str = "text/plain; charset=utf-8";
/// The longest time between two refreshes of the page, seconds.
const SLOWEST: u32 = 3600;

/// What is served.
#[derive(Clone)]
pub struct Content {
    /// What the figures are read with, on a thread that may block.
    pub read: Read,
    /// What the service says of itself.
    pub service: Service,
    /// Under which names it may be asked.
    pub hosts: Hosts,
}

/// Serves until `stop` is ready, then closes the sockets, drops what `stop` gave, and ends the requests under way.
pub async fn serve<T>(listeners: Vec<Listener>, content: Content, stop: impl Future<Output = T>) {
    serve_within(Limits::default(), listeners, content, stop).await;
}

async fn serve_within<T>(limits: Limits, listeners: Vec<Listener>, content: Content, stop: impl Future<Output = T>) {
    serve::serve(listeners, site(limits, content), stop).await;
}

fn site(limits: Limits, Content { read, service, hosts }: Content) -> Site {
    let turns = Turns::new(limits.turns, limits.turn);
    let app = App { readings: Readings::new(read), service: Arc::new(service), turns };
    Site { router: router(app, limits), hosts, limits }
}

/// Serves one client, whose first byte has yet to come.
#[cfg(any(test, fuzzing))]
pub async fn serve_one(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    served: Served,
) {
    serve::serve_one(stream, served.0).await;
}

/// What [`serve_one`] serves.
#[cfg(any(test, fuzzing))]
#[derive(Clone)]
pub struct Served(Site);

#[cfg(any(test, fuzzing))]
impl Served {
    /// Within the usual limits.
    pub fn new(content: Content) -> Self {
        Self(site(Limits::default(), content))
    }
}

fn router(app: App, limits: Limits) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is no such page; / links those that there are\n") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n") })
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.answer))
        // Ten times as fast as the default, for an answer that is a quarter longer: 50 KB of 640 at 200 workloads.
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .with_state(app)
}

/// Always the text format 0.0.4, whatever is asked for: every scraper reads it, and no other is served.
async fn metrics(State(app): State<App>) -> Response {
    match app.show(Reading::metrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(failure) => failed(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

async fn index(State(app): State<App>, uri: Uri) -> Response {
    let refresh = refresh(&uri);
    match app.show(move |reading, service| page::page(&reading.snapshot, service, refresh).into()).await {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, page::POLICY),
                (header::CACHE_CONTROL, "no-store"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            (headers, html).into_response()
        }
        Err(failure) => failed(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

/// Ready where something is attached and the maps can be read.
async fn ready(State(app): State<App>) -> Response {
    if !app.service.probes.iter().any(|probe| probe.attached) {
        return (StatusCode::SERVICE_UNAVAILABLE, "no probe is attached; pinscope doctor says why\n").into_response();
    }
    match app.show(|_, _| Bytes::from_static(b"ready\n")).await {
        Ok(text) => ([(header::CONTENT_TYPE, PLAIN)], text).into_response(),
        Err(failure) => failed(StatusCode::SERVICE_UNAVAILABLE, failure),
    }
}

impl App {
    /// A new reading, written by `write` on a thread that may block.
    async fn show<F>(&self, write: F) -> Result<Bytes, Failure>
    where
        F: FnOnce(&Reading, &Service) -> Bytes + Send + 'static,
    {
        let turn = self.turns.take().await.ok_or(Failure::Busy)?;
        let (reading, service) = (self.readings.next().await.map_err(Failure::Read)?, Arc::clone(&self.service));
        let writing = task::spawn_blocking(move || {
            // To the end of the work, also where the client hangs up.
            let _turn = turn;
            write(&reading, &service)
        });
        writing.await.context("writing the answer ended early").map_err(|error| Failure::Read(Arc::new(error)))
    }
}

/// `?refresh=SECONDS`.
fn refresh(uri: &Uri) -> Option<u32> {
    let fields = uri.query()?.split('&');
    let seconds = fields.filter_map(|field| field.strip_prefix("refresh=")).find_map(|seconds| seconds.parse().ok());
    seconds.map(|seconds: u32| seconds.clamp(1, SLOWEST))
}

fn failed(status: StatusCode, failure: Failure) -> Response {
    match failure {
        Failure::Read(error) => (status, format!("{error:#}\n")).into_response(),
        Failure::Busy => {
            let again = [(header::RETRY_AFTER, "1")];
            (StatusCode::SERVICE_UNAVAILABLE, again, "too many requests at once; ask again\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests;
