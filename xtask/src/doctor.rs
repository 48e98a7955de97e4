//! `cargo xtask doctor`: lists what is installed and what is missing.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    cache::Cache,
    exec::read,
    setup::has_program,
    toolchain,
    vm::{
        kernel::{Kernel, SERIES},
        qemu::Qemu,
    },
};

/// Fails if something is missing that `cargo xtask setup` installs. Kernels do not count: they are downloaded on
/// demand.
pub fn doctor() -> Result<ExitCode> {
    let cache = Cache::open()?;
    let rustc = read(Command::new("rustc").arg("--version")).ok().map(|said| said.trim().to_owned());
    let mke2fs = has_program("mke2fs").then(|| "there".to_owned());
    let found = [
        ("compiler", rustc),
        ("eBPF compiler", toolchain::find_compiler().map(|compiler| compiler.describe())),
        ("eBPF linker", toolchain::find_linker().map(|path| path.display().to_string())),
        ("QEMU", Qemu::find(&cache).map(|qemu| qemu.describe())),
        ("mke2fs", mke2fs),
    ];
    for (what, state) in &found {
        println!("{what:<14} {}", state.as_deref().unwrap_or("missing: `cargo xtask setup` installs it"));
    }
    println!("{:<14} {}", "cache", cache.path("").display());
    for series in SERIES {
        let state = Kernel::cached(&cache, series).map_or_else(
            || "not in the cache; downloaded when it is needed".to_owned(),
            |kernel| format!("{} ({} {})", kernel.release, kernel.package, kernel.version),
        );
        println!("{:<14} {state}", format!("Linux {series}"));
    }
    Ok(if found.iter().all(|(_, state)| state.is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
