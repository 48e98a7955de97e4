//! Where the service listens, as it is written: `ADDRESS:PORT` or `unix:/PATH`.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::Deserialize;

const UNIX: &str = "unix:";
/// Bytes that `sockaddr_un.sun_path` holds before its closing zero.
const LONGEST_PATH: usize = 107;

/// One place to listen at. Read from text, and shown as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// An address of this machine and a port.
    Tcp(SocketAddr),
    /// A Unix socket's absolute path.
    Unix(PathBuf),
}

impl Default for Listen {
    /// This machine only.
    fn default() -> Self {
        Self::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9757)))
    }
}

impl Listen {
    /// What was asked for, or the default where nothing was.
    pub fn or_default(asked: &[Self]) -> Vec<Self> {
        if asked.is_empty() { vec![Self::default()] } else { asked.to_vec() }
    }

    /// While one is bound the other may not be: the same port, at the same address or at all of them. Of IPv4 and IPv6 it is
    /// the system that decides (`net.ipv6.bindv6only`); they count as one here.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
                one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }
}

/// A text that names no place to listen at.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ListenError {
    /// Neither form.
    #[error("neither ADDRESS:PORT, such as 127.0.0.1:9757 or [::1]:9757, nor unix:/PATH")]
    Form,
    /// A relative path.
    #[error("the path does not begin with a slash; give all of it, such as unix:/run/pinscope/pinscope.sock")]
    Relative,
    /// Longer than the kernel takes.
    #[error("the path is longer than the 107 bytes that a Unix socket's may have; choose a shorter one")]
    Long,
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let Some(path) = text.strip_prefix(UNIX) else {
            return text.parse().map(Self::Tcp).map_err(|_| ListenError::Form);
        };
        match path {
            "" => Err(ListenError::Form),
            _ if path.contains('\0') => Err(ListenError::Form),
            _ if !path.starts_with('/') => Err(ListenError::Relative),
            _ if path.len() > LONGEST_PATH => Err(ListenError::Long),
            _ => Ok(Self::Unix(PathBuf::from(path))),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = ListenError;

    fn try_from(text: String) -> Result<Self, ListenError> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_as_it_is_read() {
        for text in ["127.0.0.1:9757", "[::1]:9757", "0.0.0.0:0", "unix:/run/pinscope/pinscope.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_to_write() {
        for text in
            ["", "9757", ":9757", "localhost:9757", "127.0.0.1", "127.0.0.1:99999", "unix:", "http://x", "unix:/a\0b"]
        {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("127.0.0.1:9757") && error.contains("unix:/PATH"), "{error}");
        }
        assert!(matches!("unix:run/x".parse::<Listen>(), Err(ListenError::Relative)));
        let path = |length: usize| format!("unix:/{}", "x".repeat(length - 1));
        assert!(path(LONGEST_PATH).parse::<Listen>().is_ok());
        assert!(matches!(path(LONGEST_PATH + 1).parse::<Listen>(), Err(ListenError::Long)));
    }

    #[test]
    fn all_addresses_hold_each() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<Listen>().unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("127.0.0.1:9757", "0.0.0.0:9757") && overlap("[::]:9757", "127.0.0.1:9757"));
        assert!(overlap("[::1]:9757", "[::1]:9757") && overlap("unix:/a", "unix:/a"));
        assert!(!overlap("127.0.0.1:9757", "127.0.0.2:9757") && !overlap("0.0.0.0:9757", "127.0.0.1:9758"));
        assert!(!overlap("0.0.0.0:0", "127.0.0.1:0") && !overlap("unix:/a", "127.0.0.1:1"));
    }

    #[test]
    fn nothing_asked_for_is_this_machine_only() {
        assert_eq!(Listen::or_default(&[])[0].to_string(), "127.0.0.1:9757");
        let asked = ["[::]:1".parse().unwrap()];
        assert_eq!(Listen::or_default(&asked), asked);
    }

    #[test]
    fn a_configuration_is_read_the_same_way() {
        let read = |text: &str| serde_json::from_value::<Listen>(serde_json::json!(text));
        assert_eq!(read("unix:/a").unwrap(), Listen::Unix("/a".into()));
        assert!(read("a").unwrap_err().to_string().contains("neither ADDRESS:PORT"));
    }
}
