//! Checks the Kubernetes manifests: renders them as `kubectl apply -k` would, and validates them against the schemas.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Archive,
    cache::Cache,
    exec::{exec, read, succeeds},
    setup, workspace,
};

/// Folders with one kustomization each.
const OVERLAYS: [&str; 2] = ["base", "monitor"];
/// Python package that contains the schemas of all Kubernetes versions.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
const CHECK: &str = include_str!("kubernetes/check.py");
const MONITOR: &str = include_str!("kubernetes/servicemonitor.schema.json");
/// Debian suite that provides kubectl if the machine has none.
const SUITE: &str = "trixie";

/// Checks every overlay, and checks that validation refuses a broken manifest.
pub fn check() -> Result<()> {
    let cache = Cache::open()?;
    let (kubectl, python) = (kubectl(&cache)?, python(&cache)?);
    let folder = workspace::root().join("tracer/pkg/kubernetes");
    let work = workspace::target().join("kubernetes");
    fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let (script, monitor) = (work.join("check.py"), work.join("servicemonitor.schema.json"));
    fs::write(&script, CHECK)?;
    fs::write(&monitor, MONITOR)?;
    for overlay in OVERLAYS {
        let rendered = work.join(format!("{overlay}.yaml"));
        fs::write(&rendered, read(Command::new(&kubectl).arg("kustomize").arg(folder.join(overlay)))?)?;
        exec(Command::new(&python).arg(&script).arg(&rendered).arg(&monitor))
            .with_context(|| format!("the overlay {overlay} is invalid"))?;
        all_listed(&folder.join(overlay))?;
        // Repeat the validation with a mistake in the manifest.
        let broken = work.join(format!("{overlay}-broken.yaml"));
        fs::write(&broken, fs::read_to_string(&rendered)?.replace("hostPID:", "hostPid:"))?;
        if succeeds(Command::new(&python).arg(&script).arg(&broken).arg(&monitor)) {
            bail!("the check passes {}, which has a misspelt field", broken.display());
        }
    }
    Ok(())
}

/// Checks that each manifest is in its kustomization. A manifest outside of it would be neither applied nor validated.
fn all_listed(folder: &Path) -> Result<()> {
    let listed = fs::read_to_string(folder.join("kustomization.yaml"))?;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "kustomization.yaml" && !listed.lines().any(|line| line.trim() == format!("- {name}")) {
            bail!("{name} is not in the kustomization of {}", folder.display());
        }
    }
    Ok(())
}

/// The machine's own kubectl, otherwise Debian's in the cache.
fn kubectl(cache: &Cache) -> Result<PathBuf> {
    if setup::has_program("kubectl") {
        return Ok("kubectl".into());
    }
    let name = format!("packages/{SUITE}-kubernetes-client");
    let mut folder = cache.path(&name);
    if !folder.is_dir() {
        let guard = cache.lock()?;
        folder = cache.folder(&name, &guard, |folder| {
            println!("setup: kubectl, renders the Kubernetes manifests; Debian {SUITE}'s, unpacked into the cache");
            let archive = Archive::open(cache, &guard, SUITE, &[SUITE])?;
            archive.unpack(&["kubernetes-client".to_owned()], folder, folder)
        })?;
    }
    Ok(folder.join("usr/bin/kubectl"))
}

/// Python interpreter of a virtual environment that contains the validator.
fn python(cache: &Cache) -> Result<PathBuf> {
    let name = format!("tools/{}", VALIDATOR.replace("==", "-"));
    let mut folder = cache.path(&name);
    if !folder.is_dir() {
        if !succeeds(Command::new("python3").args(["-m", "ensurepip", "--version"])) {
            setup::install(&["python3-venv"], "validates the Kubernetes manifests")?;
        }
        let guard = cache.lock()?;
        folder = cache.folder(&name, &guard, |folder| {
            println!("setup: {VALIDATOR}, the schemas of Kubernetes; installed by pip into the cache");
            exec(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            let python = folder.join("bin/python");
            // Runs pip through the interpreter: pip's own script contains the folder's temporary name.
            exec(Command::new(python).args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                VALIDATOR,
            ]))
        })?;
    }
    Ok(folder.join("bin/python"))
}
