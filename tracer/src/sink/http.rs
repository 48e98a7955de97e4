//! The HTTP side of the service: metrics, health, and a page that leads to them.

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task};

use super::prometheus::{self, Service};
use crate::aggregate::Snapshot;

/// Reads the maps and folds them: may block, and is called at every scrape.
pub type Read = Arc<dyn Fn() -> anyhow::Result<Snapshot> + Send + Sync>;

#[derive(Clone)]
struct App {
    read: Read,
    service: Arc<Service>,
}

const INDEX: &str = "<!doctype html>\n<html lang=\"en\"><title>pinscope</title>\n<h1>pinscope</h1>\n\
    <p>What io_uring buffer registration costs, and what it pins.</p>\n<ul>\n\
    <li><a href=\"/metrics\">/metrics</a> for Prometheus\n\
    <li><a href=\"/-/healthy\">/-/healthy</a> the process is up\n\
    <li><a href=\"/-/ready\">/-/ready</a> the maps can be read\n</ul>\n";

/// Listens on `address`. The error names the address and what to do.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another address",
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address; choose another",
            io::ErrorKind::PermissionDenied => "that port needs CAP_NET_BIND_SERVICE; choose one from 1024 on",
            _ => "choose another address",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}; {advice}")
    })
}

/// Serves until `stop` is ready, then ends the requests under way. `read` runs on a thread that may block.
pub async fn serve(
    listener: TcpListener,
    read: Read,
    service: Service,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let app = router(App { read, service: Arc::new(service) });
    axum::serve(listener, app).with_graceful_shutdown(stop).await.context("the HTTP service ended")
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(|| async { Html(INDEX) }))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(ready))
        .with_state(app)
}

async fn metrics(State(app): State<App>) -> Response {
    let service = Arc::clone(&app.service);
    let text = blocking(move || prometheus::encode(&(app.read)()?, &service)).await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], text).into_response(),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn ready(State(app): State<App>) -> Response {
    match blocking(move || (app.read)().map(drop)).await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => failed(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    task::spawn_blocking(work).await.context("reading the maps ended early")?
}

fn failed(status: StatusCode, error: &anyhow::Error) -> Response {
    tracing::warn!("a request was answered {status}: {error:#}");
    (status, format!("{error:#}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::{
        aggregate::{fold, tests::a_sample},
        decode::Known,
    };

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Asks a service for the paths, one connection each; whole answers.
    fn ask(read: Read, paths: &[&str]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = bind(ANY).await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async move { drop(stopped.await) };
            let server = tokio::spawn(serve(listener, read, Service::default(), stopped));
            let mut answers = Vec::new();
            for path in paths {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answers.push(answer);
            }
            stop.send(()).unwrap();
            server.await.unwrap().unwrap();
            answers
        })
    }

    #[test]
    fn metrics_and_health_are_served() {
        let read: Read = Arc::new(|| Ok(fold(&a_sample(), &Known::all())));
        let answers = ask(read, &["/metrics", "/-/healthy", "/-/ready", "/", "/none"]);
        assert!(answers[0].starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4"), "{}", answers[0]);
        assert!(answers[0].contains("\npinscope_vma_lookups_total 12\n"));
        assert!(answers[1].starts_with("HTTP/1.1 200") && answers[1].ends_with("healthy\n"));
        assert!(answers[2].starts_with("HTTP/1.1 200") && answers[2].ends_with("ready\n"));
        assert!(answers[3].contains("text/html") && answers[3].contains("href=\"/metrics\""));
        assert!(answers[4].starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn maps_that_cannot_be_read_are_an_error_and_not_ready() {
        let read: Read = Arc::new(|| Err(anyhow::anyhow!("EPERM").context("cannot read the map TOTALS")));
        let answers = ask(read, &["/metrics", "/-/healthy", "/-/ready"]);
        assert!(answers[0].starts_with("HTTP/1.1 500") && answers[0].ends_with("cannot read the map TOTALS: EPERM\n"));
        assert!(answers[1].starts_with("HTTP/1.1 200"));
        assert!(answers[2].starts_with("HTTP/1.1 503"));
    }

    #[test]
    fn a_read_that_panics_ends_one_request_only() {
        let read: Read = Arc::new(|| panic!("broken"));
        let answers = ask(read, &["/metrics", "/-/healthy"]);
        assert!(answers[0].starts_with("HTTP/1.1 500"), "{}", answers[0]);
        assert!(answers[1].starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn an_address_in_use_is_one_clear_line() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (first, second) = runtime.block_on(async {
            let first = bind(ANY).await.unwrap();
            let second = bind(first.local_addr().unwrap()).await;
            (first, second)
        });
        let address = first.local_addr().unwrap();
        assert_eq!(
            second.unwrap_err().to_string(),
            format!(
                "cannot listen on {address}: Address already in use (os error 98); \
                 another program listens there; stop it or choose another address"
            )
        );
    }
}
