//! Builds the binaries that go into guests. They are static, so they do not depend on the guest's libraries.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{exec::show, workspace};

/// Target triple, passed explicitly: the flags then do not reach proc-macros and build scripts, which cannot be static.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Build folder below the target folder. In a shared folder, the different flags would make cargo rebuild everything on
/// each switch.
pub const FOLDER: &str = "guest";

/// Builds `pinscope`: release profile, static.
pub fn pinscope() -> Result<PathBuf> {
    build("pinscope", &["--bin", "pinscope"])
}

/// Builds the program that tests pinscope inside a guest.
pub fn guest() -> Result<PathBuf> {
    build("guest", &["--test", "guest"])
}

/// Builds one target of the user-space package and returns the path of its binary.
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
