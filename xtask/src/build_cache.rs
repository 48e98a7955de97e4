//! Cache of compiled third-party packages, shared between work trees. These are most of what a clean clone builds.
//!
//! cargo itself decides which of them can be reused. Packages of this work tree are never cached.

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

/// Name of the folder in the cache.
const FOLDER: &str = "built";

/// Subfolders of a profile's folder that hold compiled packages.
const PARTS: [&str; 3] = ["deps", "build", ".fingerprint"];

/// Build folders below the target folder: for tests and lints on this machine, and for the binaries of guests.
fn profiles() -> [PathBuf; 3] {
    let guest = Path::new(artifacts::FOLDER);
    ["debug".into(), guest.join("release"), guest.join(artifacts::TARGET).join("release")]
}

/// Copies the cached packages into a work tree that has built nothing for guests yet. Returns whether this is such a
/// work tree.
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

/// Stores the compiled packages and removes those stored for other versions.
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

/// Cache key: equal for the same packages and compiler. cargo compares more than this; the key only decides when to
/// discard the old copy.
fn key() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for manifest in ["Cargo.lock", "Cargo.toml", "tracer/Cargo.toml", "xtask/Cargo.toml"] {
        let path = workspace::root().join(manifest);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hasher);
    }
    read(Command::new("rustc").current_dir(workspace::root()).arg("-vV"))?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// Copies the subfolders that exist. Keeps the modification times, because cargo relies on them.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for part in PARTS.map(|part| from.join(part)).iter().filter(|part| part.is_dir()) {
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        exec(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(part).arg(to))?;
    }
    Ok(())
}

/// Names of this work tree's packages and targets, both with hyphens (as in cargo's metadata) and with underscores (as
/// in file names).
fn workspace_names(metadata: &str) -> Result<BTreeSet<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("cannot read cargo's metadata")?;
    let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let names = packages.iter().chain(targets).filter_map(|named| named["name"].as_str());
    Ok(names.flat_map(|name| [name.to_owned(), name.replace('-', "_")]).collect())
}

/// Removes the files of these packages.
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

/// Extracts `NAME` from `NAME-HASH`, `libNAME-HASH.rlib` or `NAME-HASH.d`.
fn package(file: &str) -> &str {
    let (name, hash) = file.rsplit_once('-').unwrap_or((file, ""));
    if hash.contains('.') { name.strip_prefix("lib").unwrap_or(name) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_third_party_packages_are_cached() {
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
