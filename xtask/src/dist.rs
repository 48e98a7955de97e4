//! `cargo xtask dist`: builds a Debian package and a tarball from one staged tree.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    artifacts,
    cache::{self, Cache},
    documents,
    exec::{exec, read},
    setup, systemd_units,
    workspace::{cargo, root},
};

/// Version of cargo-deb, which builds the Debian package.
const CARGO_DEB_VERSION: &str = "3.8.0";
/// Architecture in the tarball's name.
const ARCHITECTURE: &str = "x86_64";
/// Shells for which `pinscope completions` generates a file, and where each shell looks for it.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/pinscope"),
    ("zsh", "usr/share/zsh/vendor-completions/_pinscope"),
    ("fish", "usr/share/fish/vendor_completions.d/pinscope.fish"),
];
/// Files that are packaged unchanged, with their destinations.
const FILES: [(&str, &str); 5] = [
    ("tracer/pkg/pinscope.toml", "etc/pinscope/pinscope.toml"),
    ("tracer/pkg/pinscope.service", "usr/lib/systemd/system/pinscope.service"),
    ("tracer/pkg/pinscope.socket", "usr/lib/systemd/system/pinscope.socket"),
    ("tracer/pkg/pinscope.sysusers", "usr/lib/sysusers.d/pinscope.conf"),
    ("CHANGELOG.md", "usr/share/doc/pinscope/changelog"),
];
/// Licence texts for systems other than Debian. On Debian, the package's `copyright` refers to the system's copies.
const LICENCES: [&str; 3] = ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL2"];
/// Folders, an extension, and a destination: every file with that extension is packaged.
const FOLDERS: [(&str, &str, &str); 4] = [
    ("dashboards", "json", "usr/share/pinscope/dashboards"),
    ("dashboards/rules", "yml", "usr/share/pinscope/rules"),
    ("dashboards", "md", "usr/share/pinscope"),
    ("tracer/pkg/schema", "json", "usr/share/pinscope/schema"),
];

/// Paths of the packages.
pub struct Packages {
    /// Package for Debian bookworm and later.
    pub deb: PathBuf,
    /// The same tree for all other distributions.
    pub tarball: PathBuf,
}

pub fn dist() -> Result<ExitCode> {
    let packages = packages()?;
    for path in [&packages.deb, &packages.tarball] {
        println!("dist: {} ({} KiB)", path.display(), fs::metadata(path)?.len() / 1024);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the binary, stages the tree, checks the units and packs.
pub fn packages() -> Result<Packages> {
    setup::build_tools()?;
    let cargo_deb = cargo_deb(&Cache::open()?)?;
    let binary = artifacts::pinscope()?;
    let dist = root().join("target/dist");
    cache::remove(&dist)?;
    let tree = dist.join("tree");
    stage(&tree, &binary)?;
    systemd_units::check(&tree.join("usr/lib/systemd/system"), &binary)?;
    let version = version(&binary)?;
    let deb = deb(&cargo_deb, &dist, &version)?;
    for name in LICENCES {
        copy(&root().join(name), &tree.join("usr/share/doc/pinscope").join(name))?;
    }
    copy(&root().join("tracer/pkg/debian/copyright"), &tree.join("usr/share/doc/pinscope/copyright"))?;
    Ok(Packages { deb, tarball: tarball(&dist, &tree, &version)? })
}

/// Path of cargo-deb in the user's cache. Builds it once.
fn cargo_deb(cache: &Cache) -> Result<PathBuf> {
    let guard = cache.lock()?;
    let folder = cache.folder(&format!("tools/cargo-deb-{CARGO_DEB_VERSION}"), &guard, |folder| {
        println!("setup: cargo-deb {CARGO_DEB_VERSION}, packs the Debian package; built by cargo into the cache");
        let mut cargo = cargo();
        cargo.current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
        cargo.args(["install", "--quiet", "--locked", "cargo-deb", "--version", CARGO_DEB_VERSION]);
        cargo.args(["--no-default-features", "--root"]).arg(folder);
        exec(&mut cargo)?;
        cache::remove(&folder.join("target"))
    })?;
    Ok(folder.join("bin/cargo-deb"))
}

/// Lays out the tree as it is on an installed machine.
fn stage(tree: &Path, binary: &Path) -> Result<()> {
    let installed = tree.join("usr/bin/pinscope");
    copy(binary, &installed)?;
    // The embedded eBPF object is data; strip leaves its symbols alone.
    exec(Command::new("strip").arg("--strip-all").arg(&installed))?;
    for (here, there) in FILES {
        copy(&root().join(here), &tree.join(there))?;
    }
    for (folder, ending, there) in FOLDERS {
        for file in files(&root().join(folder), ending)? {
            let name = file.file_name().context("a file without a name")?;
            copy(&file, &tree.join(there).join(name))?;
        }
    }
    write_documents(&tree.join(documents::FOLDER))?;
    for (shell, there) in COMPLETIONS {
        write(&tree.join(there), read(Command::new(binary).args(["completions", shell]))?.as_bytes())?;
    }
    manual(tree, binary)
}

/// Writes the documents and their pictures.
fn write_documents(there: &Path) -> Result<()> {
    let source = root().join(documents::SOURCE);
    for name in documents::SINGLE {
        write_document(name, &there.join(name))?;
    }
    for file in files(&source, "md")? {
        let name = file.file_name().context("a file without a name")?;
        write_document(&Path::new(documents::SOURCE).join(name).to_string_lossy(), &there.join(name))?;
    }
    for ending in ["svg", "png"] {
        for file in files(&source, ending)? {
            copy(&file, &there.join(file.file_name().context("a file without a name")?))?;
        }
    }
    Ok(())
}

fn write_document(name: &str, there: &Path) -> Result<()> {
    let text = fs::read_to_string(root().join(name)).with_context(|| format!("cannot read {name}"))?;
    write(there, documents::packaged(name, &text).as_bytes())
}

/// Writes the manual pages, compressed as Debian's policy demands: best compression, without a name or a time stamp.
fn manual(tree: &Path, binary: &Path) -> Result<()> {
    let made = tree.with_file_name("man");
    exec(Command::new(binary).arg("man").arg(&made))?;
    let mut pages = Vec::new();
    for section in ["1", "5"] {
        let folder = tree.join("usr/share/man").join(format!("man{section}"));
        for page in files(&made, section)? {
            let there = folder.join(page.file_name().context("a page without a name")?);
            copy(&page, &there)?;
            pages.push(there);
        }
    }
    if pages.is_empty() {
        bail!("`pinscope man` wrote no pages into {}", made.display());
    }
    exec(Command::new("gzip").args(["-9", "--no-name"]).args(&pages))
}

fn deb(cargo_deb: &Path, dist: &Path, version: &str) -> Result<PathBuf> {
    let changelog = root().join("tracer/pkg/debian/changelog");
    let first = fs::read_to_string(&changelog).with_context(|| format!("cannot read {}", changelog.display()))?;
    let revision = revision(&first, version)
        .with_context(|| format!("the first entry of {} is not for version {version}: add one", changelog.display()))?;
    let mut command = Command::new(cargo_deb);
    // cargo-deb asks cargo for the package's metadata.
    command.current_dir(root().join("tracer")).env_remove("CARGO_MANIFEST_DIR");
    command.args(["deb", "--quiet", "--no-build", "--no-strip", "--deb-revision", &revision, "--output"]).arg(dist);
    exec(&mut command)?;
    let mut debs = files(dist, "deb")?;
    debs.pop().with_context(|| format!("cargo-deb left no package in {}", dist.display()))
}

fn tarball(dist: &Path, tree: &Path, version: &str) -> Result<PathBuf> {
    let name = format!("pinscope-{version}-{ARCHITECTURE}-linux");
    let path = dist.join(format!("{name}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--xz", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg(format!("--transform=s,^\\.,{name},")).arg("--file").arg(&path);
    tar.arg("--directory").arg(tree).arg(".");
    exec(&mut tar)?;
    Ok(path)
}

/// Version that the program reports, such as `0.1.0`.
fn version(binary: &Path) -> Result<String> {
    let said = read(Command::new(binary).arg("--version"))?;
    let version = said.split_whitespace().nth(1).with_context(|| format!("not a version: {said}"))?;
    Ok(version.to_owned())
}

/// Debian revision of the changelog's first entry, if that entry is for `version`: `pinscope (0.1.0-1) unstable; ...`.
fn revision(changelog: &str, version: &str) -> Option<String> {
    let whole = changelog.split_once('(')?.1.split_once(')')?.0;
    let (upstream, revision) = whole.rsplit_once('-')?;
    (upstream == version).then(|| revision.to_owned())
}

/// Files of a folder with this extension, sorted; none if the folder does not exist.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    make_folder(path)?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

fn make_folder(of: &Path) -> Result<()> {
    let folder = of.parent().context("a path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_is_of_this_version() {
        assert_eq!(revision("pinscope (0.1.0-2) unstable; urgency=low\n", "0.1.0"), Some("2".to_owned()));
        assert_eq!(revision("pinscope (0.1.0-2) unstable; urgency=low\n", "0.2.0"), None);
        assert_eq!(revision("", "0.1.0"), None);
    }

    #[test]
    fn the_shipped_changelog_is_of_the_workspace_s_version() {
        let changelog = fs::read_to_string(root().join("tracer/pkg/debian/changelog")).unwrap();
        assert!(revision(&changelog, env!("CARGO_PKG_VERSION")).is_some(), "{changelog}");
    }

    #[test]
    fn the_documents_are_staged_with_their_pictures() {
        let folder = tempfile::tempdir().unwrap();
        write_documents(folder.path()).unwrap();
        for name in ["README.md", "SECURITY.md", "guide.md", "metrics.md", "commands.md", "report.svg", "page.png"] {
            assert!(folder.path().join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn only_files_with_the_ending_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", "c.yml", "json"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("d.json")).unwrap();
        let found = files(folder.path(), "json").unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.json", "b.json"]);
        assert!(files(&folder.path().join("none"), "json").unwrap().is_empty());
    }
}
