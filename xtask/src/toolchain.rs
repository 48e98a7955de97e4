//! Locates the eBPF toolchain: a compiler with `core` for BPF, and bpf-linker.
//!
//! Shared by `cargo xtask`, which installs it, and `tracer/build.rs`, which uses it and includes this file by path. The
//! two can therefore not disagree on what counts as installed. Uses the standard library only.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Target of the eBPF object; x86-64 and arm64 are both little-endian.
pub const TARGET: &str = "bpfel-unknown-none";
/// Version of bpf-linker that `cargo xtask setup` installs.
pub const LINKER_VERSION: &str = "0.13.0";
/// Environment variable with a bpf-linker that takes precedence over any other.
pub const LINKER_ENV: &str = "PINSCOPE_BPF_LINKER";

/// A compiler that can build `core`-only code for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A compiler with a prebuilt `core` for BPF, as in Debian's packages.
    Prebuilt { rustc: PathBuf, cargo: PathBuf, version: String },
    /// rustup's nightly with rust-src. `core` is built together with the programs.
    Nightly { version: String },
}

impl Compiler {
    /// A `cargo` command that uses this compiler, without a sub-command.
    pub fn cargo(&self) -> Command {
        match self {
            Self::Prebuilt { rustc, cargo, .. } => {
                let mut command = Command::new(cargo);
                // aya-ebpf needs one unstable feature; a stable compiler allows it only with this variable.
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly { .. } => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]);
                command
            }
        }
    }

    /// Arguments that must follow the sub-command.
    pub fn arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Prebuilt { .. } => &[],
            Self::Nightly { .. } => &["-Zbuild-std=core"],
        }
    }

    /// Description of this compiler for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Prebuilt { rustc, version, .. } => {
                format!("{version} with core for BPF prebuilt ({})", rustc.display())
            }
            Self::Nightly { version } => format!("{version} with -Zbuild-std=core"),
        }
    }
}

/// Finds a compiler: first one with a prebuilt `core` (which needs only one unstable feature), then a nightly.
pub fn find_compiler() -> Option<Compiler> {
    prebuilt(Path::new("/usr/bin/rustc"), Path::new("/usr/bin/cargo")).or_else(nightly)
}

/// Finds bpf-linker: named by the environment, on the PATH, or in the user's cache.
pub fn find_linker() -> Option<PathBuf> {
    if let Some(named) = env::var_os(LINKER_ENV) {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let on_path = env::var_os("PATH")
        .and_then(|path| env::split_paths(&path).map(|folder| folder.join("bpf-linker")).find(|file| file.is_file()));
    on_path.or_else(|| cached_linker().filter(|file| file.is_file()))
}

/// Path at which `cargo xtask setup` installs bpf-linker.
pub fn cached_linker() -> Option<PathBuf> {
    Some(cache_dir()?.join(format!("tools/bpf-linker-{LINKER_VERSION}/bin/bpf-linker")))
}

/// Folder of the user's cache directory for everything that is downloaded.
pub fn cache_dir() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("pinscope"))
}

fn prebuilt(rustc: &Path, cargo: &Path) -> Option<Compiler> {
    if !cargo.is_file() {
        return None;
    }
    let libdir = stdout(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let has_core = std::fs::read_dir(libdir)
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
    if !has_core {
        return None;
    }
    Some(Compiler::Prebuilt {
        rustc: rustc.to_owned(),
        cargo: cargo.to_owned(),
        version: stdout(Command::new(rustc).arg("--version"))?,
    })
}

fn nightly() -> Option<Compiler> {
    let rustc = |argument: &[&str]| stdout(Command::new("rustup").args(["run", "nightly", "rustc"]).args(argument));
    let sysroot = rustc(&["--print", "sysroot"])?;
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        return None;
    }
    Some(Compiler::Nightly { version: rustc(&["--version"])? })
}

/// Trimmed output of a command that must succeed. The outer cargo's variables are removed: with them, rustup or rustc
/// would answer for another toolchain.
fn stdout(command: &mut Command) -> Option<String> {
    for name in ["RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
