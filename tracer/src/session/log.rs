//! What the probes themselves log, by aya-log; off unless `-v`, and then the verifier has removed it.

use anyhow::{Context, Result};
use aya_log::{EbpfLogger, Level};
use tokio::task;

use super::Session;
use crate::source::wait;

/// The level that the eBPF side is loaded with; 0 is off.
pub fn level(verbose: bool) -> u8 {
    if verbose { Level::Debug as u8 } else { 0 }
}

/// Prints what the probes log until the session ends.
pub fn show(session: &mut Session, verbose: bool) -> Result<()> {
    if !verbose {
        return Ok(());
    }
    let logger = EbpfLogger::init(session.ebpf_mut()?).context("cannot read the probes' log")?;
    let mut logger = wait::readable(logger).context("cannot wait for the probes' log")?;
    tokio::spawn(async move {
        loop {
            match logger.readable_mut().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            }
            // A flush ends when there is nothing more, in a storm never: nobody is to wait for it. What the probes log ends with
            // them.
            let flush = move || {
                logger.get_mut().flush();
                logger
            };
            match task::spawn_blocking(flush).await {
                Ok(flushed) => logger = flushed,
                Err(_) => return,
            }
        }
    });
    Ok(())
}
