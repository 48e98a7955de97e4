//! A real OTLP receiver for the export tests: Debian's VictoriaMetrics, unpacked into the cache. (Debian builds
//! Prometheus without its OTLP receiver.)

use std::path::PathBuf;

use anyhow::Result;

use crate::{apt::Archive, cache::Cache};

/// First suite whose VictoriaMetrics receives OTLP.
const SUITE: &str = "trixie";

/// Path of the program. Fetches it if it is not cached.
pub fn program() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let name = format!("packages/{SUITE}-victoria-metrics");
    let mut folder = cache.path(&name);
    if !folder.is_dir() {
        let guard = cache.lock()?;
        folder = cache.folder(&name, &guard, |folder| {
            println!(
                "setup: VictoriaMetrics, receives what the tests export; Debian {SUITE}'s, unpacked into the cache"
            );
            let archive = Archive::open(&cache, &guard, SUITE, &[SUITE])?;
            archive.unpack(&["victoria-metrics".to_owned()], folder, folder)
        })?;
    }
    Ok(folder.join("usr/bin/victoria-metrics"))
}
