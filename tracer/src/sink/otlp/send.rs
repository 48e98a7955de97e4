//! One request over HTTP/1.1: a connection, a POST, the answer. No TLS; see the [endpoint](super::target::Endpoint).

use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{
    reply::{Reply, reply},
    target::{Endpoint, Header},
};

/// The specification's time for one attempt.
pub const ATTEMPT: Duration = Duration::from_secs(10);
/// No answer of OTLP is longer; the rest of one that is stays unread.
const LONGEST_ANSWER: usize = 64 << 10;

/// Sends an encoded request once. What goes wrong on the way (no connection, no answer in `time`) is to be tried again.
pub async fn send(endpoint: &Endpoint, headers: &[Header], body: Bytes, time: Duration) -> Reply {
    let why = match timeout(time, post(endpoint, headers, body)).await {
        Ok(Ok(reply)) => return reply,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer in {}", humantime::format_duration(time)),
    };
    Reply::Again { why, after: None }
}

async fn post(endpoint: &Endpoint, headers: &[Header], body: Bytes) -> anyhow::Result<Reply> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request(endpoint, headers, body)?).await?;
        let (head, body) = answer.into_parts();
        // The status has said it; what cannot be read behind it changes nothing.
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        anyhow::Ok(reply(head.status, &head.headers, &body, SystemTime::now()))
    };
    tokio::pin!(exchange);
    // The connection moves the bytes. It may end first, since it is asked to close; then the answer is there.
    tokio::select! {
        reply = &mut exchange => return reply,
        ended = connection => if let Err(error) = ended {
            return Err(error.into());
        },
    }
    exchange.await
}

fn request(endpoint: &Endpoint, headers: &[Header], body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(endpoint.path.as_str())
        .header(HOST, endpoint.authority.as_str())
        .header(USER_AGENT, concat!("pinscope/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/x-protobuf")
        // An interval later a kept connection is as likely gone as not.
        .header(CONNECTION, "close");
    for Header(name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body))
}
