//! `pinscope daemon`: the figures, served to Prometheus.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;

use super::{Session, end::End, log};
use crate::{
    cli::{args, config},
    probe::{attach::Options, health::HookState},
    sink::{
        http,
        prometheus::{Probe, Service},
    },
};

/// Serves until a signal comes.
pub async fn daemon(arguments: &args::Daemon, verbose: bool) -> Result<ExitCode> {
    // Before anything is attached: a port that is taken is the commoner mistake.
    let listener = http::bind(arguments.listen).await?;
    let wish = config::service_wish(&arguments.probes, arguments.lookups, arguments.rings);
    let session = tracer_ebpf::settings::Session { rings: arguments.rings.into(), ..Default::default() };
    let mut options = Options { session, log_level: log::level(verbose), ..Options::default() };
    let wish = config::with_details(wish, &mut options.session, arguments.details);
    let mut end = End::new(&config::Scope::default(), None)?;
    let mut session = Session::start(&wish, &options)?;
    log::show(&mut session, verbose)?;
    let service = service(&session);
    let session = Arc::new(session);
    let read: http::Read = Arc::new(move || session.snapshot());
    http::serve(listener, read, service, async move {
        // A session without a command ends by signals only, and listening for those does not fail.
        let _ = end.wait().await;
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

fn service(session: &Session) -> Service {
    let states = session.health.hooks.iter().map(|hook| hook.state == HookState::Attached);
    let probes = session.plan.hooks.iter().zip(states).map(|(hook, attached)| Probe {
        program: hook.program.clone(),
        function: hook.function.clone(),
        kind: hook.kind.name().to_owned(),
        attached,
    });
    Service {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: session.release.clone(),
        mode: session.mode().to_owned(),
        probes: probes.collect(),
        context: session.context(),
    }
}
