//! The sockets that the service listens on: bound here, or inherited.

use std::{
    fmt, fs,
    io::{self, ErrorKind},
    net::{self, SocketAddr},
    os::unix::{
        self,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener, UnixSocket},
};

use super::Listen;

/// Connections that the kernel holds until they are accepted. Where these places are taken it drops further attempts, and the
/// client tries again a second later.
const BACKLOG: u32 = 4096;
/// A Unix socket's owner and group may ask.
const MODE: u32 = 0o660;

/// A socket that listens. Made inside a runtime.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix; with the file that goes when it is dropped, unless it was inherited.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, removed when dropped unless another's has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and whether it can be a browser's that a foreign name led here.
pub(super) struct Accepted {
    pub(super) stream: Box<dyn Stream>,
    pub(super) names: bool,
}

impl Accepted {
    pub(super) fn new(stream: impl Stream + 'static, names: bool) -> Self {
        Self { stream: Box::new(stream), names }
    }
}

/// Listens there. The error names the place and what to do.
///
/// A Unix socket's file has mode 0660. One that a dead process left is replaced; one in use, or a file that is no
/// socket, is an error.
pub fn bind(place: &Listen) -> anyhow::Result<Listener> {
    match place {
        Listen::Tcp(address) => bind_tcp(*address),
        Listen::Unix(path) => bind_unix(path).with_context(|| format!("cannot listen on {place}")),
    }
}

fn bind_tcp(address: SocketAddr) -> anyhow::Result<Listener> {
    listen_tcp(address).map(Listener::Tcp).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there; stop it or choose another address",
            ErrorKind::AddrNotAvailable => "no interface of this machine has that address; choose another",
            ErrorKind::PermissionDenied => "that port needs CAP_NET_BIND_SERVICE; choose one from 1024 on",
            _ => "choose another address",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}; {advice}")
    })
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of the process before that the kernel still remembers are no hindrance.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_unix(path: &Path) -> anyhow::Result<Listener> {
    make_way(path)?;
    let socket = UnixSocket::new_stream().context("cannot make a socket")?;
    socket.bind(path).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::NotFound => "make its folder, or choose a path in one that is there",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                "the folder may not be written to; choose another, such as /run/pinscope"
            }
            _ => "choose another path",
        };
        anyhow::anyhow!("{error}; {advice}")
    })?;
    let file = SocketFile::of(path).context("the socket's file cannot be read back")?;
    // Before it listens: nobody can have connected until then.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).context("cannot set the file's mode")?;
    let listener = socket.listen(BACKLOG)?;
    Ok(Listener::Unix(listener, Some(file)))
}

/// Removes the socket of a process that is gone.
fn make_way(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("there is a file that is no socket; remove it or choose another path");
    }
    match unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another program listens there; stop it or choose another path"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("cannot replace the socket that a dead process left")
        }
        Err(error) => bail!("the socket there cannot be asked whether it is in use: {error}; remove it"),
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|present| present == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

impl TryFrom<net::TcpListener> for Listener {
    type Error = io::Error;

    fn try_from(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Tcp)
    }
}

impl TryFrom<unix::net::UnixListener> for Listener {
    type Error = io::Error;

    /// An inherited one: its file is whoever's made it.
    fn try_from(listener: unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(|listener| Self::Unix(listener, None))
    }
}

impl fmt::Display for Listener {
    /// As `--listen` takes it, with the port that the kernel chose for port 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(error) => write!(f, "an unknown address: {error}"),
            },
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                write!(f, "unix:{}", path.map_or_else(|| "(unnamed)".into(), Path::to_string_lossy))
            }
        }
    }
}

impl Listener {
    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Accepted::new(stream, true)),
            Self::Unix(listener, _) => listener.poll_accept(context).map_ok(|(stream, _)| Accepted::new(stream, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn in_runtime<T>(work: impl FnOnce() -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { work() })
    }

    fn error(place: &Listen) -> String {
        format!("{:#}", bind(place).map(|_| ()).unwrap_err())
    }

    #[test]
    fn an_address_in_use_is_one_clear_line() {
        in_runtime(|| {
            let first = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
            let place = first.to_string().parse().unwrap();
            assert_eq!(
                error(&place),
                format!(
                    "cannot listen on {place}: Address already in use (os error 98); \
                     another program listens there; stop it or choose another address"
                )
            );
        });
    }

    #[test]
    fn a_unix_socket_is_for_owner_and_group_and_goes_with_its_listener() {
        in_runtime(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let place = Listen::Unix(path.clone());
            let listener = bind(&place).unwrap();
            assert_eq!(listener.to_string(), place.to_string());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
            drop(listener);
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_socket_in_use_is_left_and_a_dead_ones_is_replaced() {
        in_runtime(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let place = Listen::Unix(path.clone());
            let other = unix::net::UnixListener::bind(&path).unwrap();
            assert_eq!(
                error(&place),
                format!("cannot listen on {place}: another program listens there; stop it or choose another path")
            );
            drop(other);
            let listener = bind(&place).unwrap();
            assert!(UnixStream::connect(&path).is_ok());
            // Someone else's in its place is not ours to remove.
            fs::remove_file(&path).unwrap();
            let other = unix::net::UnixListener::bind(&path).unwrap();
            drop(listener);
            assert!(UnixStream::connect(&path).is_ok());
            drop(other);
        });
    }

    #[test]
    fn what_is_no_socket_is_left() {
        in_runtime(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            fs::write(&path, "kept").unwrap();
            assert!(
                error(&Listen::Unix(path.clone()))
                    .ends_with("a file that is no socket; remove it or choose another path")
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
            let missing = Listen::Unix(folder.path().join("none/socket"));
            assert!(error(&missing).contains("make its folder"), "{}", error(&missing));
        });
    }

    #[test]
    fn an_inherited_socket_keeps_its_file() {
        in_runtime(|| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            drop(Listener::try_from(unix::net::UnixListener::bind(&path).unwrap()).unwrap());
            assert!(path.exists());
            let inherited = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = inherited.local_addr().unwrap();
            assert_eq!(Listener::try_from(inherited).unwrap().to_string(), address.to_string());
        });
    }
}
