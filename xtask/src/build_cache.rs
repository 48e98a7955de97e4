//! What cargo built of other people's packages, kept from one work tree to the next: most of what a clean clone builds.
//!
//! cargo itself says of each whether it can be used. Packages of this work tree are never kept.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    artifacts,
    cache::{Cache, remove},
    exec::{exec, read},
    workspace,
};

/// The folder of the cache.
const FOLDER: &str = "built";

/// What of a profile's folder is about packages.
const PARTS: [&str; 3] = ["deps", "build", ".fingerprint"];

/// Where cargo builds, below the target folder: this machine's tests and lints, and what goes into guests.
fn profiles() -> [PathBuf; 3] {
    let guest = Path::new(artifacts::FOLDER);
    ["debug".into(), guest.join("release"), guest.join(artifacts::TARGET).join("release")]
}

/// Puts what was kept into a work tree in which nothing is built for guests yet. Says whether it is such a one.
pub fn restore(cache: &Cache) -> Result<bool> {
    let target = workspace::target();
    if target.join(artifacts::FOLDER).exists() {
        return Ok(false);
    }
    let kept = cache.path(FOLDER).join(key()?);
    let _guard = cache.lock()?;
    for profile in profiles() {
        copy(&kept.join(&profile), &target.join(&profile))?;
    }
    Ok(true)
}

/// Keeps what was built, in place of what was kept of other versions.
pub fn save(cache: &Cache) -> Result<()> {
    let key = key()?;
    if cache.path(FOLDER).join(&key).is_dir() {
        return Ok(());
    }
    let ours = workspace_names(&read(workspace::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?)?;
    let guard = cache.lock()?;
    remove(&cache.path(FOLDER))?;
    let fill = |folder: &Path| {
        profiles().iter().try_for_each(|profile| {
            copy(&workspace::target().join(profile), &folder.join(profile))?;
            PARTS.iter().try_for_each(|part| prune(&folder.join(profile).join(part), &ours))
        })
    };
    cache.folder(&format!("{FOLDER}/{key}"), &guard, fill).map(drop)
}

/// The same where the same packages are built by the same compiler. cargo compares more; this tells what to throw away.
fn key() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for manifest in ["Cargo.lock", "Cargo.toml", "tracer/Cargo.toml", "xtask/Cargo.toml"] {
        let path = workspace::root().join(manifest);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hasher);
    }
    read(Command::new("rustc").current_dir(workspace::root()).arg("-vV"))?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Copies the parts that are there, with their times, by which cargo goes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for part in PARTS.map(|part| from.join(part)).iter().filter(|part| part.is_dir()) {
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        exec(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(part).arg(to))?;
    }
    Ok(())
}

/// The names of this work tree's packages and targets, as cargo's `metadata` has them and as files have them.
fn workspace_names(metadata: &str) -> Result<BTreeSet<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("cannot read cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let names = packages.iter().chain(targets).filter_map(|named| named["name"].as_str());
    Ok(names.flat_map(|name| [name.to_owned(), name.replace('-', "_")]).collect())
}

/// Removes what is of these packages.
fn prune(folder: &Path, ours: &BTreeSet<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_name().to_str().is_some_and(|name| ours.contains(package(name))) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Of `NAME-HASH`, `libNAME-HASH.rlib`, `NAME-HASH.d` the name.
fn package(file: &str) -> &str {
    let (name, hash) = file.rsplit_once('-').unwrap_or((file, ""));
    if hash.contains('.') { name.strip_prefix("lib").unwrap_or(name) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_wrote_is_kept() {
        let metadata =
            r#"{"packages": [{"name": "tracer-ebpf", "targets": [{"name": "tracer_ebpf"}, {"name": "shown"}]}]}"#;
        let folder = tempfile::tempdir().unwrap();
        let files = [
            "tracer-ebpf-0123456789abcdef",
            "libtracer_ebpf-0123456789abcdef.rlib",
            "tracer_ebpf-0123456789abcdef.d",
            "shown-0123456789abcdef",
            "libc-0123456789abcdef",
            "liblibc-0123456789abcdef.rmeta",
            "shown_by_others-0123456789abcdef.d",
        ];
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        prune(folder.path(), &workspace_names(metadata).unwrap()).unwrap();
        let left: BTreeSet<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(left, files[4..].iter().map(|&file| file.to_owned()).collect());
    }
}
