//! Where the service listens: places that it binds, which a reload may change, or sockets that systemd hands over.

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    cli::listen::Listen,
    sink::{
        http::{self, Listener},
        prometheus::Service,
    },
};

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
            let sockets = (0..handed.len()).map(|index| take(&mut handed, index).context("systemd's socket"));
            return Ok(Self::Handed(sockets.collect::<Result<_>>()?));
        }
        bind(&Listen::or_default(places)).map(Self::Bound)
    }
}

fn bind(places: &[Listen]) -> Result<Vec<(Listen, Listener)>> {
    places.iter().map(|place| Ok((place.clone(), http::bind(place)?))).collect()
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
    read: http::Read,
    service: Service,
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
}

impl Listeners {
    /// Begins to serve.
    pub fn serve(sockets: Sockets, read: http::Read, service: Service) -> Self {
        let handed = matches!(sockets, Sockets::Handed(_));
        let mut listeners = Self { read, service, handed, running: Vec::new(), tasks: JoinSet::new() };
        match sockets {
            Sockets::Handed(sockets) => sockets.into_iter().for_each(|socket| listeners.add(None, socket)),
            Sockets::Bound(bound) => bound.into_iter().for_each(|(place, socket)| listeners.add(Some(place), socket)),
        }
        listeners
    }

    fn add(&mut self, place: Option<Listen>, socket: Listener) {
        let (stop, stopped) = oneshot::channel();
        self.running.push(Running { place, shown: socket.to_string(), stop });
        let (read, service) = (self.read.clone(), self.service.clone());
        // That the sender is gone means the same.
        self.tasks.spawn(http::serve(vec![socket], read, service, async move { drop(stopped.await) }));
    }

    /// Listens at these places from now on. Where one cannot be bound, nothing changes.
    pub fn follow(&mut self, places: &[Listen]) -> Result<()> {
        if self.handed {
            return Ok(());
        }
        let places = Listen::or_default(places);
        let has = |place: &Listen| self.running.iter().any(|running| running.place.as_ref() == Some(place));
        let new: Vec<_> = places.iter().filter(|place| !has(place)).cloned().collect();
        let bound = bind(&new)?;
        let wanted = |running: &Running| running.place.as_ref().is_some_and(|place| places.contains(place));
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(wanted);
        self.running = kept;
        for running in gone {
            // A task that has ended needs no telling.
            let _ = running.stop.send(());
        }
        for (place, socket) in bound {
            self.add(Some(place), socket);
        }
        Ok(())
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

    fn listeners(places: &[Listen]) -> Listeners {
        let read: http::Read = Arc::new(|| anyhow::bail!("nothing to read"));
        Listeners::serve(Sockets::open(places).unwrap(), read, Service::default())
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
            listeners.follow(&[b.clone(), c.clone()]).unwrap();
            assert_eq!(listeners.places(), [b.to_string(), c.to_string()]);
            let present = |name: &str| folder.path().join(name).exists();
            while present("a") {
                tokio::task::yield_now().await;
            }
            assert!(present("b") && present("c"));
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
            assert!(listeners.follow(&[socket(folder.path(), "b"), missing]).is_err());
            assert_eq!(listeners.places(), [a.to_string()]);
            assert!(folder.path().join("a").exists() && !folder.path().join("b").exists());
        });
    }
}
