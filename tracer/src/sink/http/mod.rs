//! The HTTP side of the service: metrics, health, and a page for people.

mod listen;
mod serve;
mod share;

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::task;
use tower_http::{CompressionLevel, compression::CompressionLayer, timeout::TimeoutLayer};

use super::{
    page,
    prometheus::{self, Service},
};
use crate::aggregate::Snapshot;

pub use listen::{Listener, SocketFile, bind};
use serve::Limits;
use share::Readings;

/// Reads the maps and folds them: may block. Never called twice at once; requests that wait share what it returns.
pub type Read = Arc<dyn Fn() -> anyhow::Result<Snapshot> + Send + Sync>;

#[derive(Clone)]
struct App {
    readings: Readings,
    service: Arc<Service>,
}

/// The longest time between two refreshes of the page, seconds.
const SLOWEST: u32 = 3600;

/// Serves until `stop` is ready, then closes the sockets, drops what `stop` gave, and ends the requests under way. `read` runs
/// on a thread that may block.
pub async fn serve<T>(listeners: Vec<Listener>, read: Read, service: Service, stop: impl Future<Output = T>) {
    serve_within(Limits::default(), listeners, read, service, stop).await;
}

async fn serve_within<T>(
    limits: Limits,
    listeners: Vec<Listener>,
    read: Read,
    service: Service,
    stop: impl Future<Output = T>,
) {
    let app = App { readings: Readings::new(read), service: Arc::new(service) };
    serve::serve(listeners, router(app, limits), limits, stop).await;
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
    match app.show(prometheus::encode).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn index(State(app): State<App>, uri: Uri) -> Response {
    let refresh = refresh(&uri);
    match app.show(move |snapshot, service| page::page(snapshot, service, refresh)).await {
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
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

/// Ready where something is attached and the maps can be read.
async fn ready(State(app): State<App>) -> Response {
    if !app.service.probes.iter().any(|probe| probe.attached) {
        return (StatusCode::SERVICE_UNAVAILABLE, "no probe is attached; pinscope doctor says why\n").into_response();
    }
    match app.readings.next().await {
        Ok(_) => "ready\n".into_response(),
        Err(error) => failed(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

impl App {
    /// A new snapshot, written by `write` on a thread that may block.
    async fn show<F>(&self, write: F) -> Result<String, Arc<anyhow::Error>>
    where
        F: FnOnce(&Snapshot, &Service) -> String + Send + 'static,
    {
        let (snapshot, service) = (self.readings.next().await?, Arc::clone(&self.service));
        let writing = task::spawn_blocking(move || write(&snapshot, &service));
        writing.await.context("writing the answer ended early").map_err(Arc::new)
    }
}

/// `?refresh=SECONDS`.
fn refresh(uri: &Uri) -> Option<u32> {
    let fields = uri.query()?.split('&');
    let seconds = fields.filter_map(|field| field.strip_prefix("refresh=")).find_map(|seconds| seconds.parse().ok());
    seconds.map(|seconds: u32| seconds.clamp(1, SLOWEST))
}

fn failed(status: StatusCode, error: &anyhow::Error) -> Response {
    (status, format!("{error:#}\n")).into_response()
}

#[cfg(test)]
mod tests;
