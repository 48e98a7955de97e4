//! Where the service listens: places that it binds, which a reload may change, or sockets that systemd hands over.

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use tokio::{sync::oneshot, task::JoinSet};

use crate::sink::http::{self, Content, Listen, Listener};

/// Sockets before anything is served on them.
pub enum Sockets {
    /// systemd's (`pinscope.socket`); they take the place of `listen`.
    Handed(Vec<Listener>),
    /// Bound by us.
    Bound(Vec<(Listen, Listener)>),
}

impl Sockets {
    /// What systemd handed over, or else the places bound. Inside a runtime.
    pub fn open(places: &[Listen]) -> Result<Self> {
        let mut handed = ListenFd::from_env();
        if handed.len() > 0 {
            left_aside(places);
            let sockets = (0..handed.len()).map(|index| take(&mut handed, index).context("systemd's socket"));
            return Ok(Self::Handed(sockets.collect::<Result<_>>()?));
        }
        bind(&Listen::or_default(places)).map(Self::Bound)
    }
}

fn bind(places: &[Listen]) -> Result<Vec<(Listen, Listener)>> {
    places.iter().map(|place| Ok((place.clone(), http::bind(place)?))).collect()
}

/// `listen` has no effect with systemd's sockets.
fn left_aside(places: &[Listen]) {
    if !places.is_empty() {
        tracing::warn!("listen is left aside: systemd's socket is served; change pinscope.socket, or disable it");
    }
}

fn take(handed: &mut ListenFd, index: usize) -> Result<Listener> {
    // An attempt at the wrong kind leaves the socket where it is.
    if let Ok(Some(socket)) = handed.take_tcp_listener(index) {
        return Listener::try_from(socket).context("cannot be waited for");
    }
    let socket = handed.take_unix_listener(index).context("is neither a TCP nor a Unix stream socket that listens")?;
    Listener::try_from(socket.context("was taken already")?).context("cannot be waited for")
}

/// What serves, one task a listener.
pub struct Listeners {
    content: Content,
    handed: bool,
    running: Vec<Running>,
    tasks: JoinSet<()>,
}

struct Running {
    /// As configured; `None` for one of systemd's.
    place: Option<Listen>,
    /// As it is bound.
    shown: String,
    stop: oneshot::Sender<()>,
    /// Fails once the socket is closed.
    closed: oneshot::Receiver<()>,
}

impl Running {
    fn is_one_of(&self, places: &[Listen]) -> bool {
        self.place.as_ref().is_some_and(|place| places.contains(place))
    }

    fn overlaps(&self, places: &[Listen]) -> bool {
        self.place.as_ref().is_some_and(|place| places.iter().any(|other| place.overlaps(other)))
    }

    /// Until nothing is listened for there; requests under way go on.
    async fn close(self) -> Option<Listen> {
        // A task that has ended needs no telling.
        let _ = self.stop.send(());
        let _ = self.closed.await;
        self.place
    }
}

impl Listeners {
    /// Begins to serve.
    pub fn serve(sockets: Sockets, content: Content) -> Self {
        let handed = matches!(sockets, Sockets::Handed(_));
        let mut listeners = Self { content, handed, running: Vec::new(), tasks: JoinSet::new() };
        match sockets {
            Sockets::Handed(sockets) => sockets.into_iter().for_each(|socket| listeners.add(None, socket)),
            Sockets::Bound(bound) => bound.into_iter().for_each(|(place, socket)| listeners.add(Some(place), socket)),
        }
        listeners
    }

    fn add(&mut self, place: Option<Listen>, socket: Listener) {
        let (stop, stopped) = oneshot::channel();
        let (open, closed) = oneshot::channel();
        self.running.push(Running { place, shown: socket.to_string(), stop, closed });
        let stop = async move {
            // That the sender is gone means the same.
            drop(stopped.await);
            open
        };
        self.tasks.spawn(http::serve(vec![socket], self.content.clone(), stop));
    }

    /// Listens at these places from now on. Where one cannot be bound, nothing changes.
    pub async fn follow(&mut self, places: &[Listen]) -> Result<()> {
        if self.handed {
            left_aside(places);
            return Ok(());
        }
        let places = Listen::or_default(places);
        let new =
            places.iter().filter(|place| !self.running.iter().any(|running| running.is_one_of(&[(*place).clone()])));
        let (occupied, free): (Vec<_>, Vec<_>) = new.cloned().partition(|place| self.is_occupied(place, &places));
        let mut bound = bind(&free)?;
        bound.extend(self.bind_instead(&occupied, &places).await?);
        self.take_away(|running| !running.is_one_of(&places)).await;
        for (place, socket) in bound {
            self.add(Some(place), socket);
        }
        Ok(())
    }

    /// By one of ours that is not to stay.
    fn is_occupied(&self, place: &Listen, stay: &[Listen]) -> bool {
        self.running.iter().any(|running| running.overlaps(std::slice::from_ref(place)) && !running.is_one_of(stay))
    }

    /// Binds where ours have to be closed first. Where that fails they are bound again.
    async fn bind_instead(&mut self, places: &[Listen], stay: &[Listen]) -> Result<Vec<(Listen, Listener)>> {
        let old = self.take_away(|running| running.overlaps(places) && !running.is_one_of(stay)).await;
        let refusal = match bind(places) {
            Ok(bound) => return Ok(bound),
            Err(refusal) => refusal,
        };
        for (place, socket) in bind(&old).with_context(|| format!("{refusal:#}; and then"))? {
            self.add(Some(place), socket);
        }
        Err(refusal)
    }

    /// Closes those; where they were.
    async fn take_away(&mut self, which: impl Fn(&Running) -> bool) -> Vec<Listen> {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(which);
        self.running = kept;
        let mut places = Vec::new();
        for running in gone {
            places.extend(running.close().await);
        }
        places
    }

    /// Where it listens now.
    pub fn places(&self) -> Vec<String> {
        self.running.iter().map(|running| running.shown.clone()).collect()
    }

    /// Waits until serving on any of them ends by a fault of ours.
    pub async fn broken(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) => return anyhow::Error::new(error).context("the HTTP service ended"),
                // One that a reload took away.
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Stops accepting, and lets the requests under way end.
    pub async fn stop(mut self) {
        self.running.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::sink::service::{Read, Service};

    fn listeners(places: &[Listen]) -> Listeners {
        let read: Read = Arc::new(|| anyhow::bail!("nothing to read"));
        let content = Content { read, service: Service::default(), hosts: http::Hosts::default() };
        Listeners::serve(Sockets::open(places).unwrap(), content)
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    fn socket(folder: &Path, name: &str) -> Listen {
        Listen::Unix(folder.join(name))
    }

    #[test]
    fn a_reload_changes_only_what_is_new() {
        in_runtime(async {
            let folder = tempfile::tempdir().unwrap();
            let [a, b, c] = ["a", "b", "c"].map(|name| socket(folder.path(), name));
            let mut listeners = listeners(&[a.clone(), b.clone()]);
            listeners.follow(&[b.clone(), c.clone()]).await.unwrap();
            assert_eq!(listeners.places(), [b.to_string(), c.to_string()]);
            let present = |name: &str| folder.path().join(name).exists();
            assert!(!present("a") && present("b") && present("c"));
            listeners.stop().await;
            assert!(!present("b") && !present("c"));
        });
    }

    #[test]
    fn a_place_that_cannot_be_bound_changes_nothing() {
        in_runtime(async {
            let folder = tempfile::tempdir().unwrap();
            let a = socket(folder.path(), "a");
            let mut listeners = listeners(std::slice::from_ref(&a));
            let missing = socket(folder.path(), "none/x");
            assert!(listeners.follow(&[socket(folder.path(), "b"), missing]).await.is_err());
            assert_eq!(listeners.places(), [a.to_string()]);
            assert!(folder.path().join("a").exists() && !folder.path().join("b").exists());
        });
    }

    /// A port that was free just now, at this machine and everywhere.
    fn a_port() -> [Listen; 2] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        ["127.0.0.1", "0.0.0.0"].map(|address| format!("{address}:{port}").parse().unwrap())
    }

    fn answers(place: &Listen) -> bool {
        let Listen::Tcp(address) = place else { panic!("{place} is no address") };
        std::net::TcpStream::connect(("127.0.0.1", address.port())).is_ok()
    }

    #[test]
    fn the_same_port_at_all_addresses_takes_the_place_of_one() {
        in_runtime(async {
            let [here, everywhere] = a_port();
            let mut listeners = listeners(std::slice::from_ref(&here));
            // With a connection, as a scraper keeps one.
            let Listen::Tcp(address) = &here else { panic!() };
            let connection = tokio::net::TcpStream::connect(address).await.unwrap();
            for place in [&everywhere, &here] {
                listeners.follow(std::slice::from_ref(place)).await.unwrap();
                assert_eq!(listeners.places(), [place.to_string()]);
                assert!(answers(place));
            }
            drop(connection);
        });
    }

    #[test]
    fn what_was_closed_for_another_that_cannot_be_bound_is_there_again() {
        in_runtime(async {
            let folder = tempfile::tempdir().unwrap();
            let [here, everywhere] = a_port();
            let mut listeners = listeners(std::slice::from_ref(&here));
            let Listen::Tcp(address) = &here else { panic!() };
            // Another's, so that all addresses cannot be had.
            let other = std::net::TcpListener::bind(("127.0.0.2", address.port())).unwrap();
            let unix = socket(folder.path(), "a");
            let error = listeners.follow(&[everywhere, unix]).await.unwrap_err();
            assert!(error.to_string().contains("another program listens there"), "{error}");
            assert_eq!(listeners.places(), [here.to_string()]);
            assert!(answers(&here) && !folder.path().join("a").exists());
            drop(other);
        });
    }
}
