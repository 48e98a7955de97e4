//! The metrics, sent by OTLP over HTTP to those who do not scrape.
//!
//! One request an interval, with the samples that `/metrics` would show then. They are cumulative, so one that is lost
//! takes nothing with it: the next has it all. Hence nothing is queued; a request is tried again until the next is due.

mod convert;
mod reply;
mod send;
mod target;

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use hyper::body::Bytes;
use prost::Message as _;
use tokio::{
    sync::oneshot,
    task,
    time::{Instant, sleep_until},
};

pub use self::{
    convert::{Period, attributes, request},
    target::{Attribute, Endpoint, Header},
};
use self::{
    reply::{Reply, wait},
    send::{ATTEMPT, send},
};
use super::{
    exports::{Counts, Outcome},
    prometheus,
    service::{Read, Service},
};

/// No attempt is given less.
const LEAST: Duration = Duration::from_secs(1);
/// How long the last export, at the end, may take.
const LAST: Duration = Duration::from_secs(2);

/// Where to, how often, and what along with it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The receiver.
    pub endpoint: Endpoint,
    /// From one export to the next.
    pub interval: Duration,
    /// For every request.
    pub headers: Vec<Header>,
    /// Of the resource, besides pinscope's own or in their place.
    pub attributes: Vec<Attribute>,
}

/// What exports, and how to end it.
pub struct Exporter {
    task: task::JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Exporter {
    /// Begins to export, at once and then at every interval, what `read` reads. `service.exports` is where it counts;
    /// without those it counts for nobody. `start` is when the figures began.
    pub fn start(options: Options, read: Read, service: Service, start: SystemTime) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(Work::new(options, read, service, start).run(ended));
        Self { task, end }
    }

    /// Exports once more and ends; takes no more than some two seconds.
    pub async fn end(self) {
        // A task that has ended, by a panic, has nothing to say any more.
        let _ = self.end.send(());
        let _ = tokio::time::timeout(LAST * 2, self.task).await;
    }
}

struct Work {
    options: Options,
    read: Read,
    service: Service,
    attributes: Vec<(String, String)>,
    counts: Counts,
    start: SystemTime,
    /// The receiver wants to be left alone until then.
    not_before: Instant,
    /// Whether the last export failed, which has been said.
    failing: bool,
}

impl Work {
    fn new(options: Options, read: Read, service: Service, start: SystemTime) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let more: Vec<_> =
            options.attributes.iter().map(|Attribute(name, value)| (name.clone(), value.clone())).collect();
        let attributes = attributes(&service.context.origin.version, &service.context.origin.kernel, &host, &more);
        let counts = service.exports.clone().unwrap_or_default();
        Self { options, read, service, attributes, counts, start, not_before: Instant::now(), failing: false }
    }

    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        let mut due = Instant::now();
        // Hosts that were started together do not stay together.
        let mut next = due + self.options.interval.mul_f64(0.5 + chance() / 2.0);
        loop {
            tokio::select! {
                () = sleep_until(due.max(self.not_before)) => {}
                _ = &mut ended => break,
            }
            tokio::select! {
                () = self.export(next) => {}
                _ = &mut ended => {
                    self.counts.add(Outcome::Abandoned);
                    break;
                }
            }
            due = next.max(Instant::now());
            next = due + self.options.interval;
        }
        self.export_last().await;
    }

    /// One export, tried again until `deadline`.
    async fn export(&mut self, deadline: Instant) {
        let Some(body) = self.body().await else { return };
        let mut failed = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Where reading took long, the receiver gets some time all the same.
            let (why, after) = match self.attempt(&body, left.clamp(LEAST, ATTEMPT)).await {
                Reply::Again { why, after } => (why, after),
                done => return self.conclude(done),
            };
            failed += 1;
            let again = Instant::now() + wait(failed, after, chance());
            if after.is_some() {
                self.not_before = again;
            }
            if again >= deadline {
                return self.conclude(Reply::Again { why, after });
            }
            tracing::debug!("an export to {} is sent again: {why}", self.options.endpoint);
            self.counts.retry();
            sleep_until(again).await;
        }
    }

    /// What was counted last is sent on the way out, once.
    async fn export_last(&mut self) {
        if self.not_before > Instant::now() {
            return self.conclude(Reply::Again { why: "it asked to be left alone".to_owned(), after: None });
        }
        let Some(body) = self.body().await else { return };
        let reply = self.attempt(&body, LAST).await;
        self.conclude(reply);
    }

    async fn attempt(&self, body: &Bytes, time: Duration) -> Reply {
        send(&self.options.endpoint, &self.options.headers, body.clone(), time).await
    }

    /// The request of now. Reading the maps may block.
    async fn body(&mut self) -> Option<Bytes> {
        let (read, service) = (self.read.clone(), self.service.clone());
        let (attributes, start) = (self.attributes.clone(), self.start);
        let encode = move || {
            let snapshot = read()?;
            let families = prometheus::families(&snapshot, &service);
            let period = Period { start, end: SystemTime::now() };
            anyhow::Ok(request(&families, &attributes, &service.context.origin.version, period).encode_to_vec())
        };
        let encoded = task::spawn_blocking(encode).await.context("reading the maps ended early");
        match encoded.and_then(|encoded| encoded) {
            Ok(encoded) => Some(encoded.into()),
            Err(error) => {
                self.counts.add(Outcome::Unread);
                self.complain(&format!("{error:#}"));
                None
            }
        }
    }

    fn conclude(&mut self, reply: Reply) {
        let (outcome, why) = match reply {
            Reply::Accepted => (Outcome::Accepted, None),
            Reply::Partial { rejected, why } => {
                self.counts.reject(rejected);
                (Outcome::Partial, Some(format!("it left out {rejected} points: {why}")))
            }
            Reply::Refused(why) => (Outcome::Refused, Some(why)),
            Reply::Again { why, .. } => (Outcome::Abandoned, Some(why)),
        };
        self.counts.add(outcome);
        match why {
            Some(why) => self.complain(&why),
            None if std::mem::take(&mut self.failing) => {
                tracing::info!("metrics are exported to {} again", self.options.endpoint);
            }
            None => {}
        }
    }

    /// Says it once; a receiver that stays away is no news at every interval.
    fn complain(&mut self, why: &str) {
        let endpoint = &self.options.endpoint;
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!("an export to {endpoint} failed again: {why}");
        } else {
            tracing::warn!(
                "metrics could not be exported to {endpoint}: {why}; further failures are counted in \
                 pinscope_otlp_exports_total and not logged"
            );
        }
    }
}

/// From 0 to 1. The standard library seeds its hashers from the system's randomness; nothing secret hangs on it.
fn chance() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests;
