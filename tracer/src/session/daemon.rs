//! `pinscope daemon`: the figures, served to Prometheus; at home under systemd, and without it.

mod listeners;
mod notify;
mod privileges;
mod status;

use std::{
    io::IsTerminal as _,
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task,
};

use self::{
    listeners::{Listeners, Sockets},
    privileges::Outcome,
    status::Board,
};
use super::{Session, log, starting};
use crate::{
    cli::service::{Config, Typed},
    figure::Figure,
    logging::Logging,
    memory,
    probe::{
        health::{HookState, Status},
        object,
        plan::{Hook, Wish},
        progress::Progress,
    },
    say,
    sink::{
        exports::Counts,
        http, otlp,
        service::{Probe, Read, Service},
    },
    source::runs::{self, Statistics},
};

/// Serves until a signal says that it is enough.
pub async fn daemon(typed: &Typed, logging: Arc<Logging>) -> Result<ExitCode> {
    let config = typed.load()?;
    logging.set(config.verbose);
    let mut signals = Signals::listen()?;
    // Before anything is attached: a port that is taken is the commoner mistake.
    let sockets = Sockets::open(&config.daemon.listen)?;
    // A hangup asks for a reload, and waits.
    starting::begin([libc::SIGINT, libc::SIGTERM])?;
    let (session, statistics) = attach(&config)?;
    starting::over();
    let attached = SystemTime::now();
    let otlp = config.daemon.otlp.options();
    let service = Service { exports: otlp.as_ref().map(|_| Counts::default()), ..service(&session) };
    let board = Arc::new(Board::default());
    board.change(|status| status.plan = session.summary());
    say(&session);
    // While this is the only thread: capabilities belong to threads, and later ones have no more than this one.
    let outcome = privileges::drop_unneeded(|| session.service_snapshot(&statistics).map(drop));
    privileges::log(&outcome);
    let read = reader(session, statistics, Arc::clone(&board));
    let exporter = otlp.map(|options| otlp::Exporter::start(options, Arc::clone(&read), service.clone(), attached));
    let hosts = http::Hosts::new(&config.daemon.allow_host);
    let listeners = Listeners::serve(sockets, http::Content { read: Arc::clone(&read), service, hosts });
    let mut daemon = Daemon { typed, config, logging, board, listeners, exporter };
    daemon.ready(&read).await?;
    daemon.run(&mut signals, &outcome).await
}

/// A service at work.
struct Daemon<'a> {
    typed: &'a Typed,
    /// What it was started with: what takes a restart is compared with this.
    config: Config,
    logging: Arc<Logging>,
    board: Arc<Board>,
    listeners: Listeners,
    exporter: Option<otlp::Exporter>,
}

impl Daemon<'_> {
    /// Ready is who has read the maps once and answers: while the read is waited for, the listeners are polled.
    async fn ready(&mut self, read: &Read) -> Result<()> {
        let first = Arc::clone(read);
        task::spawn_blocking(move || first()).await.context("the first read ended early")??;
        let places = self.listeners.places();
        if std::io::stderr().is_terminal() {
            let shown: Vec<_> = places.iter().map(|place| address(place)).collect();
            say::line(format_args!("pinscope: serving {}; Ctrl-C ends it", shown.join(", ")));
        } else {
            tracing::info!("serving {}", places.join(", "));
        }
        self.board.change(|status| status.places = places);
        notify::tell(&[NotifyState::Ready]);
        if let Some(patience) = notify::watchdog() {
            let logging = Arc::clone(&self.logging);
            task::spawn(notify::feed(patience, Arc::clone(read), move || {
                notify::tell(&[NotifyState::Watchdog]);
                logging.sum_up();
            }));
        }
        Ok(())
    }

    async fn run(mut self, signals: &mut Signals, privileges: &Outcome) -> Result<ExitCode> {
        tracing::debug!("capabilities: {privileges:?}");
        loop {
            tokio::select! {
                _ = signals.interrupt.recv() => break,
                _ = signals.terminate.recv() => break,
                _ = signals.hangup.recv() => self.reload().await,
                error = self.listeners.broken() => return Err(error),
            }
        }
        notify::tell(&[NotifyState::Stopping]);
        tracing::info!("stopping");
        self.listeners.stop().await;
        if let Some(exporter) = self.exporter {
            exporter.end().await;
        }
        self.logging.sum_up();
        Ok(ExitCode::SUCCESS)
    }

    /// Reads the configuration again. What cannot be followed changes nothing; the probes and their counts stay in any
    /// case.
    async fn reload(&mut self) {
        notify::reloading();
        self.logging.begin_anew();
        let followed = self.follow().await.map_err(|error| format!("{error:#}"));
        match &followed {
            Ok(restart) if restart.is_empty() => tracing::info!("the configuration was read again"),
            Ok(restart) => {
                tracing::warn!(
                    "the configuration was read again; what it changes needs a restart: {}",
                    restart.join(", ")
                );
            }
            Err(why) => tracing::error!("the configuration was not read again, and what was there stays: {why}"),
        }
        let places = self.listeners.places();
        self.board.change(|status| {
            status.places = places;
            match followed {
                Ok(restart) => (status.restart, status.configuration) = (restart, None),
                Err(why) => status.configuration = Some(why),
            }
        });
        notify::tell(&[NotifyState::Ready]);
    }

    /// Does what can be done at once; what takes a restart, by name.
    async fn follow(&mut self) -> Result<Vec<String>> {
        let new = self.typed.load()?;
        self.listeners.follow(&new.daemon.listen).await?;
        self.logging.set(new.verbose);
        Ok(self.config.needs_restart(&new).into_iter().map(str::to_owned).collect())
    }
}

/// A place as a browser takes it; sockets of other kinds as they are.
fn address(place: &str) -> String {
    if place.parse::<SocketAddr>().is_ok() { format!("http://{place}/") } else { place.to_owned() }
}

/// What the service listens for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

/// Attaches what can be attached; with `--strict` all of it or nothing.
fn attach(config: &Config) -> Result<(Session, Statistics)> {
    let verbose = config.verbose > 0;
    let wish = config.wish();
    let wish = Wish { log_level: log::level(verbose), ..wish };
    memory::keep_small();
    let mut session = Session::open(&wish, &Progress::begin())?;
    object::forget();
    memory::keep_scrapes();
    let statistics = statistics(&mut session, config.daemon.stats);
    if config.daemon.strict && !session.capabilities.figures.is_whole() {
        let lacks: Vec<_> = session.capabilities.figures.shown().collect();
        bail!("--strict: not all can be measured here: {}", lacks.join("; "));
    }
    if session.obstacle().is_none() {
        log::show(&mut session, verbose)?;
    }
    Ok((session, statistics))
}

/// Reads as a scrape does, and has the status and the log say when that fails. One at a time: a read that hangs keeps all others
/// waiting, the watchdog's among them.
fn reader(session: Session, statistics: Statistics, board: Arc<Board>) -> Read {
    let turn = Mutex::new(());
    Arc::new(move || {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let read = session.service_snapshot(&statistics);
        let trouble = read.as_ref().err().map(|error| format!("{error:#}"));
        board.change(|status| {
            // Once when it begins to fail and once when it works again: scrapers and probes ask on.
            match (&status.figures, &trouble) {
                (None, Some(why)) => tracing::warn!("{why}; until that works, requests are answered with an error"),
                (Some(_), None) => tracing::info!("the figures can be read again"),
                (None, None) | (Some(_), Some(_)) => {}
            }
            status.figures = trouble;
        });
        read
    })
}

/// The log's lines on what was attached and what could not be: a line a reason.
fn say(session: &Session) {
    tracing::info!("{}", session.summary());
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for lack in session.capabilities.figures.lacks() {
        let figures = lack.figures.names();
        match reasons.iter_mut().find(|(reason, _)| *reason == &*lack.reason) {
            Some((_, others)) => others.push(figures),
            None => reasons.push((&lack.reason, vec![figures])),
        }
    }
    for (reason, figures) in reasons {
        tracing::warn!("degraded: {}: {reason}", figures.join(", "));
    }
}

/// The kernel's statistics of programs, where they are asked for; without them the service goes on.
fn statistics(session: &mut Session, wanted: bool) -> Statistics {
    if !wanted {
        return Statistics::default();
    }
    match runs::enable() {
        Ok(ours) => Statistics::new(Some(ours)),
        Err(error) => {
            let reason = format!(
                "the kernel keeps statistics of programs for CAP_SYS_ADMIN only ({error}); \
                 grant it, or set kernel.bpf_stats_enabled to 1"
            );
            session.capabilities.figures.lose(&[Figure::ProgramRuns], &reason);
            Statistics::default()
        }
    }
}

fn service(session: &Session) -> Service {
    let probe = |hook: &Hook, attached| Probe {
        program: hook.program.clone(),
        function: hook.function.clone(),
        kind: hook.kind.name().to_owned(),
        attached,
    };
    let states = session.health.hooks.iter().map(|hook| hook.state == HookState::Attached);
    let planned = session.plan.hooks.iter().zip(states).map(|(hook, attached)| probe(hook, attached));
    let withheld = session.plan.withheld.iter().map(|hook| probe(hook, false));
    Service {
        health: session.status(),
        probes: planned.chain(withheld).collect(),
        context: session.context(),
        exports: None,
    }
}

impl Session {
    /// The probes' health, and degraded too where something else that was asked for is not to be had.
    fn status(&self) -> Status {
        match self.health.status {
            Status::Healthy if !self.capabilities.figures.is_whole() => Status::Degraded,
            status => status,
        }
    }

    /// The same in one line, with what is missing.
    fn summary(&self) -> String {
        let hooks = &self.health.hooks;
        let attached = hooks.iter().filter(|hook| hook.state == HookState::Attached).count();
        let probes = format!("{attached} of {} probes ({}) on {}", hooks.len(), self.mode(), self.release);
        match (self.obstacle(), self.status()) {
            (Some(why), _) => format!("failed: nothing is measured on {}: {why}", self.release),
            (None, Status::Healthy) => format!("healthy: {probes}"),
            (None, status) => {
                let figures = self.capabilities.figures.lacks().iter().map(|lack| lack.figures.names());
                format!("{}: {probes}; not to be had: {}", status.name(), figures.collect::<Vec<_>>().join(", "))
            }
        }
    }
}
