//! `pinscope report`: a summary, live, for a while or around a command.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    Session,
    end::{End, Ended, announce},
    log,
    setup::Setup,
};
use crate::{
    aggregate,
    answer::Answers,
    cli::{
        args::{self, Format},
        config,
    },
    probe::plan::Wish,
    sample::Sample,
    sink::{self, Meta},
};

/// Runs the session and prints what it saw; the exit code is the command's, where there is one.
pub async fn report(arguments: &args::Report, verbose: bool) -> Result<ExitCode> {
    let Setup { scope, wish, mut end } = Setup::new(&arguments.scope, &arguments.probes, |wish| {
        let wish = config::with_details(wish, arguments.details);
        Wish { lookups: !arguments.no_lookups, processes: true, log_level: log::level(verbose), ..wish }
    })?;
    let mut session = Session::start(&wish)?;
    log::show(&mut session, verbose)?;
    let mut meta = session.meta(&scope);
    end.begin(scope.duration)?;
    let which = if arguments.interval.is_none() { "the report" } else { "the report of the time since the last one" };
    announce(&scope, &format!(" and prints {which}"));
    let (ended, last) = wait(&session, &meta, arguments, &mut end).await?;
    meta.exit_code = ended.command_code();
    meta.left_running = ended.left_running();
    session.stop_counting()?;
    print(&session, &meta, arguments, &last)?;
    Ok(ended.exit_code())
}

/// Waits for the end, printing at each interval; gives the sample that the last report counts from.
async fn wait(session: &Session, meta: &Meta, arguments: &args::Report, end: &mut End) -> Result<(Ended, Sample)> {
    let Some(period) = arguments.interval else { return Ok((end.wait().await?, Sample::default())) };
    let mut ticks = interval_at(Instant::now() + period, period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Sample::default();
    loop {
        tokio::select! {
            ended = end.wait() => return Ok((ended?, last)),
            _ = ticks.tick() => last = print(session, meta, arguments, &last)?,
        }
    }
}

/// Prints what happened since `last`, and gives the sample it ended with.
fn print(session: &Session, meta: &Meta, arguments: &args::Report, last: &Sample) -> Result<Sample> {
    let now = session.sample()?;
    let snapshot = aggregate::fold_between(&now, last, &session.capabilities);
    let told = Answers::new(&snapshot, &session.context(), arguments.explain);
    let text = match arguments.format() {
        Format::Text => sink::text::report(&snapshot, meta, &told, width()),
        Format::Json => sink::json::printable(format!("{}\n", sink::json::report(&snapshot, meta, &told)?)),
        Format::Markdown => sink::markdown::report(&snapshot, meta, &told),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write the report")?;
    Ok(now)
}

/// Columns of the terminal; 80 where the output is none.
pub(super) fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    // A serial line has none either.
    if columns == 0 { sink::text::WIDTH } else { columns }
}
