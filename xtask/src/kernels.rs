//! `cargo xtask kernels`: lists the kernels of the matrix.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{
    cache::Cache,
    vm::kernel::{self, Kernel},
};

#[derive(Args)]
pub struct Options {
    /// Download missing kernels
    #[arg(long)]
    download: bool,
    /// Replace cached kernels for which the archive has a newer release
    #[arg(long)]
    refresh: bool,
}

pub fn kernels(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let mut missing = 0;
    println!("{:<7} {:<22} {:<58} CACHED", "SERIES", "VERSION", "PACKAGE");
    for (series, offered) in kernel::offered(&cache)? {
        if options.refresh {
            kernel::refresh(&cache, series)?;
        }
        let mut cached = Kernel::cached(&cache, series);
        if options.download && cached.is_none() && offered.is_ok() {
            cached = Some(Kernel::get(&cache, series)?);
        }
        match (&cached, offered) {
            (Some(kernel), offered) => {
                let newer = offered.ok().filter(|(_, version)| *version != kernel.version);
                let note =
                    newer.map_or_else(String::new, |(_, version)| format!(" ({version} is available: --refresh)"));
                println!("{series:<7} {:<22} {:<58} yes{note}", kernel.version, kernel.package);
            }
            (None, Ok((package, version))) => {
                println!("{series:<7} {version:<22} {package:<58} no");
            }
            (None, Err(reason)) => {
                println!("{series:<7} {reason}");
                missing += 1;
            }
        }
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
