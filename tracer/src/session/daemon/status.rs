//! What `systemctl status` says of the service: one line, told again when it changes.

use std::sync::{Mutex, PoisonError};

use sd_notify::NotifyState;

use super::notify;

/// What the line is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The plan's health; see [`super::Session::summary`].
    pub plan: String,
    /// Where the figures are served.
    pub places: Vec<String>,
    /// Options of the configuration that take a restart.
    pub restart: Vec<String>,
    /// Why the configuration that was to be read again was not.
    pub configuration: Option<String>,
    /// Why the last read of the figures failed.
    pub figures: Option<String>,
}

impl Status {
    /// Trouble first: the line is cut on a narrow terminal.
    pub fn line(&self) -> String {
        let figures = self.figures.as_ref().map(|why| format!("the figures cannot be read: {why}"));
        let configuration =
            self.configuration.as_ref().map(|why| format!("the configuration was not read again: {why}"));
        let restart = (!self.restart.is_empty()).then(|| format!("needs a restart for {}", self.restart.join(", ")));
        let places = (!self.places.is_empty()).then(|| format!("serving {}", self.places.join(", ")));
        let parts = [figures, configuration, restart, Some(self.plan.clone()), places];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ").replace('\n', " ")
    }
}

/// The status, and what of it systemd has been told.
#[derive(Debug, Default)]
pub struct Board(Mutex<(Status, String)>);

impl Board {
    /// Changes the status, and tells systemd if the line is another now.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, told) = &mut *board;
        change(status);
        let line = status.line();
        if line != *told {
            notify::tell(&[NotifyState::Status(&line)]);
            *told = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_comes_first() {
        let mut status = Status {
            plan: "healthy: 9 probes by fentry on 6.12".to_owned(),
            places: vec!["127.0.0.1:9757".to_owned(), "unix:/run/x".to_owned()],
            ..Status::default()
        };
        assert_eq!(status.line(), "healthy: 9 probes by fentry on 6.12; serving 127.0.0.1:9757, unix:/run/x");
        status.restart = vec!["locks".to_owned(), "rings".to_owned()];
        status.configuration = Some("/x.toml:1: bad".to_owned());
        status.figures = Some("EPERM\nmore".to_owned());
        assert_eq!(
            status.line(),
            "the figures cannot be read: EPERM more; the configuration was not read again: /x.toml:1: bad; \
             needs a restart for locks, rings; healthy: 9 probes by fentry on 6.12; \
             serving 127.0.0.1:9757, unix:/run/x"
        );
    }
}
