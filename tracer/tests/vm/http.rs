//! A minimal HTTP client: one GET per connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Fetches `path` and returns the body. A status other than 200 is an error. In HTTP/1.0, the end of the connection
/// ends the response.
pub fn get(address: SocketAddr, path: &str, time: Duration) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(time))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "{path}: {status}: {}", body.trim_end());
    Ok(body.to_owned())
}

/// Like [`get`], for JSON.
pub fn get_json(address: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Value> {
    serde_json::from_str(&get(address, path, time)?).with_context(|| format!("{path}: no JSON"))
}

/// Escapes a value of a query string.
pub fn escape(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}
