//! systemd's notifications (sd_notify(3)). Without systemd nothing of it does anything.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    task,
    time::{MissedTickBehavior, interval},
};

use crate::sink::service::Read;

/// Tells systemd. That it cannot be told is no reason to stop measuring.
pub fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd could not be told: {error}");
    }
}

/// A reload begins. systemd from 253 on wants the time with it, older ones pass over it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// How long systemd waits for a sign of life, if it wants any.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Feeds the watchdog: each sign of life follows a read of the maps by the way that a scrape takes. A read that hangs,
/// or fails, gives none, and systemd starts the service anew.
///
/// This is the one thing that wakes an idle daemon: twice in the watchdog's time.
pub async fn feed(patience: Duration, read: Read, sign: impl Fn()) {
    let mut ticks = interval((patience / 2).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let read = Arc::clone(&read);
        if let Ok(Ok(_)) = task::spawn_blocking(move || read()).await {
            sign();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
            mpsc,
        },
        time::Instant,
    };

    use super::*;

    /// Signs of life in a while, and how often a read was begun.
    fn signs(read: impl Fn() -> anyhow::Result<()> + Send + Sync + 'static, while_: Duration) -> (u32, u32) {
        let (signs, reads) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let begun = Arc::clone(&reads);
        let read: Read = Arc::new(move || {
            begun.fetch_add(1, Ordering::Relaxed);
            read().map(|()| {
                crate::aggregate::fold(&crate::sample::Sample::default(), &crate::decode::Capabilities::nothing())
            })
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sign = || {
                signs.fetch_add(1, Ordering::Relaxed);
            };
            let fed = feed(Duration::from_millis(40), read, sign);
            assert!(tokio::time::timeout(while_, fed).await.is_err(), "it goes on for ever");
        });
        runtime.shutdown_background();
        (signs.into_inner(), reads.load(Ordering::Relaxed))
    }

    #[test]
    fn each_sign_of_life_follows_a_read() {
        let began = Instant::now();
        let (signs, reads) = signs(|| Ok(()), Duration::from_millis(500));
        let most = began.elapsed().as_millis() / 20 + 1;
        assert!(signs > 1 && reads >= signs && u128::from(signs) <= most, "{signs} signs, {reads} reads");
    }

    #[test]
    fn a_read_that_fails_gives_no_sign() {
        let (signs, reads) = signs(|| anyhow::bail!("EPERM"), Duration::from_millis(300));
        assert!(signs == 0 && reads > 1, "{signs} signs, {reads} reads");
    }

    #[test]
    fn a_read_that_hangs_gives_no_sign() {
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let hangs = move || {
            // Until the test lets go.
            let _ = held.lock().unwrap().recv();
            Ok(())
        };
        let (signs, reads) = signs(hangs, Duration::from_millis(300));
        assert_eq!((signs, reads), (0, 1));
        drop(release);
    }
}
