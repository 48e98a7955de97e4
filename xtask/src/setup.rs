//! `cargo xtask setup`: installs what is missing, and prints the reason for each item.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::Cache,
    exec::{exec, read, show, succeeds},
    toolchain::{self, Compiler, LINKER_VERSION},
    vm::{
        qemu::{self, Qemu},
        rootfs,
    },
};

/// Oldest compiler that builds the workspace, as the first two numbers of Debian's versions.
const OLDEST_RUST: (u32, u32) = (1, 95);
/// LLVM versions that bpf-linker can be built against.
const LLVM: std::ops::RangeInclusive<u32> = 20..=22;

pub fn setup() -> Result<ExitCode> {
    build_tools()?;
    let cache = Cache::open()?;
    guest_tools(&cache)?;
    println!("setup: everything is installed");
    Ok(ExitCode::SUCCESS)
}

/// Installs what a build needs: a compiler with `core` for BPF, and bpf-linker.
pub fn build_tools() -> Result<()> {
    let compiler = match toolchain::find_compiler() {
        Some(compiler) => compiler,
        None => install_compiler()?,
    };
    if toolchain::find_linker().is_none() {
        install_linker(&compiler)?;
    }
    Ok(())
}

/// Installs what the lints need in addition: clippy for the compiler of the eBPF side.
pub fn lint_tools(compiler: &Compiler) -> Result<()> {
    match compiler {
        Compiler::Prebuilt { cargo, .. } if !cargo.with_file_name("cargo-clippy").is_file() => {
            let package = if installed("rustc-web") { "rust-web-clippy" } else { "rust-clippy" };
            install(&[package], "the lints of the eBPF programs, by their own compiler")
        }
        _ => Ok(()),
    }
}

/// Installs what every guest needs, except a kernel: QEMU, the base layer, a disk.
pub fn guest_tools(cache: &Cache) -> Result<()> {
    qemu::check_host()?;
    let mut missing = Vec::new();
    if !has_program("mke2fs") {
        missing.push("e2fsprogs");
    }
    install(&missing, "makes the guests' scratch disk")?;
    Qemu::get(cache)?;
    rootfs::base(cache)?;
    rootfs::disk(cache)?;
    Ok(())
}

/// Installs Debian's compiler for BPF, the only one that needs neither nightly nor rust-src.
fn install_compiler() -> Result<Compiler> {
    /// Alternative packages. In releases whose own compiler is too old, Debian keeps a current one for its web
    /// browsers.
    const SETS: [[&str; 3]; 2] =
        [["libstd-rust-web-dev-bpf", "rustc-web", "cargo-web"], ["libstd-rust-dev-bpf", "rustc", "cargo"]];
    let why = "the compiler for the eBPF programs, with core for BPF (rustup's stable has none)";
    let recent = |set: &[&str; 3]| candidate(set[0]).is_some_and(|version| version >= OLDEST_RUST);
    let mut set = SETS.iter().find(|set| recent(set));
    if set.is_none() {
        // Perhaps apt has no package lists yet.
        as_root(Command::new("apt-get").args(["update", "--quiet", "--quiet"]), "apt's lists of packages")?;
        set = SETS.iter().find(|set| recent(set));
    }
    let Some(set) = set else {
        bail!(
            "apt offers no Rust compiler {}.{} or newer with core for BPF ({} or {}); install nightly Rust with rust-src \
             and bpf-linker instead",
            OLDEST_RUST.0,
            OLDEST_RUST.1,
            SETS[0][0],
            SETS[1][0]
        );
    };
    install(set, why)?;
    toolchain::find_compiler().context("the installed compiler has no core for BPF")
}

fn install_linker(compiler: &Compiler) -> Result<()> {
    let llvm = llvm_version(compiler)?;
    if !LLVM.contains(&llvm) {
        bail!("{} has LLVM {llvm}; bpf-linker {LINKER_VERSION} needs one of {LLVM:?}", compiler.describe());
    }
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if !fs::exists(format!("{prefix}/include/llvm-c"))? {
        install(&[&format!("llvm-{llvm}-dev")], "the LLVM of the eBPF compiler, to build bpf-linker against")?;
    }
    let cache = Cache::open()?;
    let guard = cache.lock()?;
    cache.folder(&format!("tools/bpf-linker-{LINKER_VERSION}"), &guard, |folder| {
        println!("setup: bpf-linker {LINKER_VERSION}, links the eBPF object; built by cargo into the cache");
        let mut cargo = crate::workspace::cargo();
        // Outside of the work tree, whose cargo configuration and build folder must not apply here.
        cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target")).env("LLVM_PREFIX", &prefix);
        cargo.args(["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION]);
        cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"]).arg(folder);
        exec(&mut cargo)?;
        crate::cache::remove(&folder.join("target"))
    })?;
    Ok(())
}

/// Major version of a compiler's LLVM.
fn llvm_version(compiler: &Compiler) -> Result<u32> {
    let mut rustc = match compiler {
        Compiler::Prebuilt { rustc, .. } => Command::new(rustc),
        Compiler::Nightly { .. } => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", "nightly", "rustc"]).env_remove("RUSTUP_TOOLCHAIN");
            rustup
        }
    };
    let said = read(rustc.args(["--version", "--verbose"]))?;
    said.lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
        .with_context(|| format!("`{}` names no LLVM version", show(&rustc)))
}

/// Installs those of these Debian packages that are missing.
pub fn install(packages: &[&str], why: &str) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: {}: {why}; installed by apt", missing.join(" "));
    if missing.iter().any(|package| candidate(package).is_none()) {
        as_root(Command::new("apt-get").args(["update", "--quiet", "--quiet"]), "apt's lists of packages")?;
    }
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"]).args(&missing);
    as_root(&mut apt, why)
}

/// Runs a command as root: directly if we are root, otherwise with sudo, if sudo needs no password.
pub fn as_root(command: &mut Command, why: &str) -> Result<()> {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if root {
        return exec(command.env("DEBIAN_FRONTEND", "noninteractive"));
    }
    let typed = show(command);
    if !succeeds(Command::new("sudo").args(["--non-interactive", "true"])) {
        bail!(
            "root is needed for {why}, and sudo asks for a password here. Run this and start again:\n    sudo {typed}"
        );
    }
    println!("setup: by sudo: {typed}");
    let mut sudo = Command::new("sudo");
    sudo.args(["--non-interactive", "env", "DEBIAN_FRONTEND=noninteractive"]);
    exec(sudo.arg(command.get_program()).args(command.get_args()))
}

pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(name).is_file())
}

fn installed(package: &str) -> bool {
    read(Command::new("dpkg-query").args(["--show", "--showformat", "${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// First two numbers of the version that apt would install.
fn candidate(package: &str) -> Option<(u32, u32)> {
    let policy = read(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package])).ok()?;
    candidate_version(&policy)
}

fn candidate_version(policy: &str) -> Option<(u32, u32)> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse().ok());
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_apt() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate_version(policy), Some((1, 96)));
        assert_eq!(candidate_version("x:\n  Candidate: 1:22.1.8-3\n"), Some((22, 1)));
        assert_eq!(candidate_version("x:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_version(""), None);
    }

    #[test]
    fn every_shell_is_found() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-anywhere"));
    }
}
