//! Under which names a request may ask: DNS rebinding makes a browser ask us under its attacker's.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, UdpSocket},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, Uri, Version, header};

/// How long the machine's names are taken to stay what they were.
const KEPT: Duration = Duration::from_secs(10);

/// Whom `Host` may name.
#[derive(Clone, Default)]
pub struct Hosts {
    /// As configured; `*` is any.
    more: Arc<[String]>,
    machine: Arc<Mutex<Option<Names>>>,
}

/// The machine's names, and when they were read.
type Names = (Instant, BTreeSet<String>);

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// None, several, or none that can be read.
    Malformed,
    /// A name that is not ours.
    Foreign(String),
}

impl Hosts {
    /// The names of this machine, and these.
    pub fn new(more: &[String]) -> Self {
        Self { more: more.iter().map(|name| normal(name)).collect(), machine: Arc::default() }
    }

    /// HTTP/1.1 asks for one `Host`; a target in absolute form says the same once more. `names` is whether the name matters:
    /// no page can have a browser connect to a Unix socket.
    pub(super) fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap, names: bool) -> Result<(), Refusal> {
        let mut fields = headers.get_all(header::HOST).iter();
        let field = match (fields.next(), fields.next()) {
            (None, _) if version < Version::HTTP_11 => None,
            (Some(field), None) => Some(field.to_str().ok().and_then(host).ok_or(Refusal::Malformed)?),
            _ => return Err(Refusal::Malformed),
        };
        let target = uri.authority().map(|authority| host(authority.as_str()).ok_or(Refusal::Malformed)).transpose()?;
        let foreign = [field, target].into_iter().flatten().find(|name| names && !self.is_ours(name));
        foreign.map_or(Ok(()), |name| Err(Refusal::Foreign(name.to_owned())))
    }

    fn is_ours(&self, name: &str) -> bool {
        let name = normal(name);
        // An address is no name: nobody's DNS leads a browser to it.
        is_address(&name)
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.more.iter().any(|other| other == "*" || *other == name)
            || self.is_machine(&name)
    }

    fn is_machine(&self, name: &str) -> bool {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = machine.take().filter(|(read, names)| names.contains(name) || read.elapsed() < KEPT);
        machine.insert(fresh.unwrap_or_else(|| (Instant::now(), names_of_machine()))).1.contains(name)
    }
}

/// A name as it is compared: without the root's dot, in lower case.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(bare) => bare.split('%').next().is_some_and(|bare| bare.parse::<std::net::Ipv6Addr>().is_ok()),
        None => name.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// `HOST[:PORT]` without the port; `None` where it is none of that.
fn host(field: &str) -> Option<&str> {
    let field = field.trim();
    let end = if field.starts_with('[') { field.find(']')? + 1 } else { field.find(':').unwrap_or(field.len()) };
    let (host, port) = field.split_at(end);
    let port = if port.is_empty() { port } else { port.strip_prefix(':')? };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:%".contains(&byte);
    (!host.is_empty() && host.bytes().all(fits) && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(host)
}

/// Its own name, alone and in the domains that it searches; and those that /etc/hosts gives one of its addresses.
fn names_of_machine() -> BTreeSet<String> {
    let node = normal(&rustix::system::uname().nodename().to_string_lossy());
    let read =
        |path| fs::read(Path::new(path)).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    names(&node, &read("/etc/resolv.conf"), &read("/etc/hosts"), is_own)
}

/// Whether an address is one of this machine's.
fn is_own(address: IpAddr) -> bool {
    !address.is_unspecified() && (address.is_loopback() || UdpSocket::bind((address, 0)).is_ok())
}

fn names(node: &str, resolv: &str, hosts: &str, is_own: impl Fn(IpAddr) -> bool) -> BTreeSet<String> {
    let short = node.split('.').next().unwrap_or(node);
    let mut names = BTreeSet::from([node.to_owned(), short.to_owned()]);
    for line in resolv.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            names.extend(words.map(|domain| format!("{short}.{}", normal(domain))));
        }
    }
    let mut last: Option<(IpAddr, bool)> = None;
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        let own = last.filter(|(known, _)| *known == address).map_or_else(|| is_own(address), |(_, own)| own);
        last = Some((address, own));
        if own {
            names.extend(words.map(normal));
        }
    }
    names.remove("");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, target: &str, fields: &[&str]) -> Result<(), Refusal> {
        let hosts = Hosts::new(&["Metrics.Example.com".to_owned()]);
        let known = BTreeSet::from(["box".to_owned(), "box.example.com".to_owned()]);
        *hosts.machine.lock().unwrap() = Some((Instant::now(), known));
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::HOST, field.parse().unwrap());
        }
        hosts.check(version, &target.parse().unwrap(), &headers, true)
    }

    #[test]
    fn this_machine_may_be_asked_by_its_names_and_addresses() {
        for name in [
            "localhost",
            "LOCALHOST:9757",
            "a.localhost",
            "127.0.0.1:9757",
            "10.1.2.3",
            "[::1]:9757",
            "[fe80::1%25eth0]:1",
            "box",
            "Box.example.com.:80",
            "metrics.example.com",
        ] {
            assert_eq!(check(Version::HTTP_11, "/metrics", &[name]), Ok(()), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused_in_either_place() {
        for name in [
            "evil.example",
            "evil.example:9757",
            "localhost.evil.example",
            "box.evil.example",
            "127.0.0.1.evil.example",
        ] {
            let bare = name.split(':').next().unwrap().to_owned();
            assert_eq!(check(Version::HTTP_11, "/", &[name]), Err(Refusal::Foreign(bare.clone())));
            assert_eq!(check(Version::HTTP_10, "/", &[name]), Err(Refusal::Foreign(bare.clone())));
            assert_eq!(
                check(Version::HTTP_11, &format!("http://{name}/"), &["localhost"]),
                Err(Refusal::Foreign(bare))
            );
        }
    }

    #[test]
    fn http_1_1_has_one_host_and_1_0_may_have_none() {
        assert_eq!(check(Version::HTTP_10, "/", &[]), Ok(()));
        for fields in [
            &[][..],
            &["localhost", "localhost"],
            &[""],
            &["a b"],
            &["localhost:x"],
            &["[::1"],
            &["a/b"],
            &["u@localhost"],
        ] {
            assert_eq!(check(Version::HTTP_11, "/", fields), Err(Refusal::Malformed), "{fields:?}");
        }
    }

    #[test]
    fn a_unix_socket_takes_any_name() {
        let headers = HeaderMap::from_iter([(header::HOST, "evil.example".parse().unwrap())]);
        assert_eq!(Hosts::default().check(Version::HTTP_11, &"/".parse().unwrap(), &headers, false), Ok(()));
    }

    #[test]
    fn any_name_can_be_allowed() {
        let headers = HeaderMap::from_iter([(header::HOST, "evil.example".parse().unwrap())]);
        let any = Hosts::new(&["*".to_owned()]);
        assert_eq!(any.check(Version::HTTP_11, &"/".parse().unwrap(), &headers, true), Ok(()));
    }

    #[test]
    fn a_machines_names_come_from_itself_its_domains_and_its_hosts_file() {
        let resolv = "# search not.this\nsearch example.com Lab.example.com.\nnameserver 10.0.0.1\n";
        let hosts =
            "127.0.0.1 localhost\n127.0.1.1\tbox.corp  alias # comment\n10.0.0.9 other\nbroken line\n192.0.2.1 Mine\n";
        let own = |address: IpAddr| address.is_loopback() || address.to_string() == "192.0.2.1";
        let names: Vec<_> = names("box", resolv, hosts, own).into_iter().collect();
        assert_eq!(names, ["alias", "box", "box.corp", "box.example.com", "box.lab.example.com", "localhost", "mine"]);
    }
}
