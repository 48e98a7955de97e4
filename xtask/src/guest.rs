//! `cargo xtask guest`: runs your own script on a kernel of the matrix.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    artifacts,
    cache::Cache,
    liburing, setup,
    vm::{BPFTRACE, Debian, Ending, FIO, Guest, Kernel, kernel::USUAL},
};

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent switches of a command line")]
pub struct Options {
    /// Series of the kernel
    #[arg(long, default_value = USUAL)]
    kernel: String,
    /// Install pinscope into /usr/bin
    #[arg(long)]
    pinscope: bool,
    /// Install Debian's fio
    #[arg(long)]
    fio: bool,
    /// Install Debian's bpftrace
    #[arg(long)]
    bpftrace: bool,
    /// Install some of liburing's own tests into /usr/lib/liburing, built from Debian's source package
    #[arg(long)]
    liburing: bool,
    /// Run the script in a Debian system of this suite, under systemd
    #[arg(long, value_name = "SUITE", value_parser = Debian::named)]
    debian: Option<Debian>,
    /// Make the guest's clock count instructions: one instruction is one nanosecond
    #[arg(long)]
    counted: bool,
    /// Copy a file of this machine into the guest, as an executable
    #[arg(long, value_name = "HERE=THERE", value_parser = file)]
    file: Vec<(PathBuf, String)>,
    /// Add to the kernel's command line
    #[arg(long, value_name = "WORDS")]
    append: Vec<String>,
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    #[arg(long, value_name = "MIB", default_value_t = 3072)]
    memory: u32,
    /// End the guest after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    deadline: u64,
    /// Script for busybox's sh
    script: PathBuf,
}

pub fn guest(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    setup::guest_tools(&cache)?;
    let script =
        fs::read_to_string(&options.script).with_context(|| format!("cannot read {}", options.script.display()))?;
    let mut guest = Guest::new(Kernel::get(&cache, &options.kernel)?, "script", script)
        .cpus(options.cpus)
        .memory_mib(options.memory)
        .deadline(Duration::from_secs(options.deadline));
    if options.counted {
        guest = guest.counted();
    }
    if let Some(debian) = options.debian {
        guest = guest.debian(debian);
    }
    for words in &options.append {
        guest = guest.append(words);
    }
    for (here, there) in &options.file {
        guest = guest.file(there, 0o755, here);
    }
    if options.pinscope {
        setup::build_tools()?;
        guest = guest.file("/usr/bin/pinscope", 0o755, artifacts::pinscope()?);
    }
    for (wanted, packages) in [(options.fio, FIO), (options.bpftrace, BPFTRACE)] {
        if wanted {
            guest = guest.packages(packages);
        }
    }
    if options.liburing {
        for (there, here) in liburing::programs(&cache)? {
            guest = guest.file(there, 0o755, here);
        }
    }
    let outcome = guest.run(&cache, &mut |line| println!("{line}"))?;
    if let Some(trouble) = outcome.trouble()? {
        eprintln!("{trouble}");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("{}: {:.1} s; log: {}", outcome.kernel.release, outcome.elapsed.as_secs_f64(), outcome.log.display());
    Ok(match outcome.ending {
        Ending::Exited(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        _ => ExitCode::FAILURE,
    })
}

/// Parses `target/release/x=/usr/bin/x`.
fn file(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once('=') {
        Some((here, there)) if !here.is_empty() && there.starts_with('/') => Ok((here.into(), there.to_owned())),
        _ => Err("not HERE=THERE with a whole path in the guest, such as target/x=/usr/bin/x".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_two_places() {
        assert_eq!(file("a/b=/usr/bin/b"), Ok(("a/b".into(), "/usr/bin/b".to_owned())));
        for bad in ["", "a", "=/b", "a=b", "a="] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }
}
