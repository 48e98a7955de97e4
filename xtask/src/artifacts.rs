//! The binaries that go into guests: static, so that they run whatever else the guest has.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{exec::show, workspace};

/// What they are built for, by its name: then the flags do not reach proc-macros and build scripts, which cannot be static.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where they are built, below the target folder: in the same one other flags would make cargo build everything anew at each
/// turn.
pub const FOLDER: &str = "guest";

/// `pinscope`, released, static.
pub fn pinscope() -> Result<PathBuf> {
    build("pinscope", &["--bin", "pinscope"])
}

/// The program that tests pinscope inside a guest.
pub fn guest() -> Result<PathBuf> {
    build("guest", &["--test", "guest"])
}

/// Builds one target of the user-space package and says where the binary is.
fn build(name: &str, target: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo
        .args(["build", "--quiet", "--release", "--package", "tracer"])
        .args(target)
        .args(["--target", TARGET, "--message-format", "json-render-diagnostics"])
        .arg("--target-dir")
        .arg(workspace::target().join(FOLDER))
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    executable(&mut cargo, name)
}

fn executable(cargo: &mut Command, name: &str) -> Result<PathBuf> {
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", show(cargo)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", show(cargo), output.status);
    }
    pick(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("`{}` made no executable {name}", show(cargo)))
}

/// The executable of a target, from cargo's messages.
fn pick(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_the_one_of_the_target() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"pinscope","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"guest"},"executable":"/t/deps/guest-1"}
{"reason":"compiler-artifact","target":{"name":"pinscope","kind":["bin"]},"executable":"/t/pinscope"}
{"reason":"build-finished","success":true}
noise"#;
        assert_eq!(pick(messages, "pinscope"), Some(PathBuf::from("/t/pinscope")));
        assert_eq!(pick(messages, "guest"), Some(PathBuf::from("/t/deps/guest-1")));
        assert_eq!(pick(messages, "other"), None);
    }
}
