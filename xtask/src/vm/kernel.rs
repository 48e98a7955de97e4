//! Debian's cloud kernels: the newest of each series, downloaded once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Archive,
    cache::{Cache, Guard, remove},
};

/// The series that pinscope is tested on, oldest first.
pub const SERIES: [&str; 11] = ["5.10", "6.1", "6.12", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3"];
/// Series of `--quick`: the oldest, Debian stable's, the newest.
pub const QUICK: [&str; 3] = ["5.10", "6.12", "7.3"];
/// Default series of `run`, and the series of single scenarios.
pub const USUAL: &str = "6.12";

/// Whether Debian's kernel of this series is preemptible; on such kernels, pinscope uses kprobe.multi.
pub fn preempts(series: &str) -> bool {
    !["5.10", "6.1", "6.12"].contains(&series)
}

/// Suites that the kernels come from.
const SUITES: [&str; 9] = [
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "bookworm-backports",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "sid",
];
/// Pattern of the names of packages with a cloud kernel: `linux-image-`, or `linux-binary-` from 6.19 on.
const PATTERN: &str = "^linux-(image|binary)-[0-9].*-cloud-amd64(-unsigned)?$";

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// For example `6.12`.
    pub series: String,
    /// Release as reported by `uname -r`, such as `6.12.107+deb13-cloud-amd64`.
    pub release: String,
    /// Package that contained it.
    pub package: String,
    /// Version of the package, such as `6.12.107-1`.
    pub version: String,
    pub vmlinuz: PathBuf,
}

impl Kernel {
    /// The kernel of a series, if it is cached. Needs no network.
    pub fn cached(cache: &Cache, series: &str) -> Option<Self> {
        let folder = cache.path(place(series));
        let described = fs::read_to_string(folder.join("package")).ok()?;
        let mut lines = described.lines();
        let (package, version) = (lines.next()?.to_owned(), lines.next()?.to_owned());
        Some(Self {
            series: series.to_owned(),
            release: release_of(&package)?.to_owned(),
            package,
            version,
            vmlinuz: folder.join("vmlinuz"),
        })
    }

    /// The kernel of a series. Downloads it if it is not cached.
    pub fn get(cache: &Cache, series: &str) -> Result<Self> {
        if !SERIES.contains(&series) {
            bail!("unknown kernel series {series}; known are {}", SERIES.join(", "));
        }
        if let Some(kernel) = Self::cached(cache, series) {
            return Ok(kernel);
        }
        let guard = cache.lock()?;
        if let Some(kernel) = Self::cached(cache, series) {
            return Ok(kernel);
        }
        let archive = archive(cache, &guard)?;
        let packages = candidates(&archive.names(PATTERN)?, series);
        let Some(first) = packages.first() else {
            bail!("{}", missing(series, &archive));
        };
        println!("setup: Linux {series} ({first}), to run guests on; downloaded into the cache");
        cache.folder(&place(series), &guard, |folder| download(&archive, &packages, folder))?;
        Self::cached(cache, series).with_context(|| format!("the kernel of {series} is not in the cache after all"))
    }
}

/// Caches a newer kernel of a series, if there is one. The old one stays until the new one is complete.
pub fn refresh(cache: &Cache, series: &str) -> Result<()> {
    let Some(old) = Kernel::cached(cache, series) else { return Ok(()) };
    let guard = cache.lock()?;
    let archive = archive(cache, &guard)?;
    let packages = candidates(&archive.names(PATTERN)?, series);
    let newer: Vec<_> = packages.into_iter().take_while(|package| *package != old.package).collect();
    if newer.is_empty() {
        return Ok(());
    }
    let name = format!("{}.new", place(series));
    match cache.folder(&name, &guard, |folder| download(&archive, &newer, folder)) {
        Ok(new) => {
            let current = cache.path(place(series));
            remove(&current)?;
            fs::rename(&new, &current).with_context(|| format!("cannot rename {}", new.display()))
        }
        Err(error) => {
            println!("Linux {series} stays at {}: {error:#}", old.package);
            Ok(())
        }
    }
}

/// A package and its version, or the reason why there is none.
pub type Offer = Result<(String, String), String>;

/// For each series, the package that the archive offers and its version, or the reason why there is none.
pub fn offered(cache: &Cache) -> Result<Vec<(&'static str, Offer)>> {
    let guard = cache.lock()?;
    let archive = archive(cache, &guard)?;
    let names = archive.names(PATTERN)?;
    SERIES
        .into_iter()
        .map(|series| {
            let found = match candidates(&names, series).into_iter().next() {
                Some(package) => {
                    let version = archive.version(&package)?;
                    Ok((package, version))
                }
                None => Err(missing(series, &archive)),
            };
            Ok((series, found))
        })
        .collect()
}

fn archive(cache: &Cache, guard: &Guard) -> Result<Archive> {
    Archive::open(cache, guard, "kernels", &SUITES)
}

fn place(series: &str) -> String {
    format!("kernels/{series}")
}

fn missing(series: &str, archive: &Archive) -> String {
    let mut reason =
        format!("Linux {series} is unavailable: no package of this series matches {PATTERN} in {}", SUITES.join(", "));
    for complaint in &archive.complaints {
        reason.push_str("; apt: ");
        reason.push_str(complaint);
    }
    reason
}

/// Downloads the packages in order and takes the kernel of the first one that contains it. From 6.19 on, some image
/// packages are empty, and some listed packages are no longer in the archive.
fn download(archive: &Archive, packages: &[String], folder: &Path) -> Result<()> {
    const TRIED: usize = 6;
    let mut reasons = Vec::new();
    for package in packages.iter().take(TRIED) {
        let root = folder.join("root");
        match unpack(archive, package, folder, &root) {
            Ok(()) => return remove(&root),
            Err(error) => {
                println!("setup: {package} is unavailable; trying the next");
                reasons.push(format!("{error:#}"));
            }
        }
        remove(&root)?;
    }
    bail!("none of the packages contained a kernel: {}", reasons.join("; "));
}

fn unpack(archive: &Archive, package: &str, folder: &Path, root: &Path) -> Result<()> {
    let version = archive.version(package)?;
    archive.unpack(&[package.to_owned()], folder, root)?;
    let release = release_of(package).context("a package name without a release")?;
    let vmlinuz = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")]
        .map(|place| root.join(place))
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("there is no kernel in {package}"))?;
    fs::rename(&vmlinuz, folder.join("vmlinuz")).with_context(|| format!("cannot move {}", vmlinuz.display()))?;
    let described = folder.join("package");
    fs::write(&described, format!("{package}\n{version}\n"))
        .with_context(|| format!("cannot write {}", described.display()))
}

/// Turns `linux-image-6.12.107+deb13-cloud-amd64-unsigned` into `6.12.107+deb13-cloud-amd64`.
fn release_of(package: &str) -> Option<&str> {
    let release = package.strip_prefix("linux-image-").or_else(|| package.strip_prefix("linux-binary-"))?;
    Some(release.strip_suffix("-unsigned").unwrap_or(release))
}

/// Packages of a series, newest release first. Within a release, those most likely to contain the kernel come first.
fn candidates(names: &[String], series: &str) -> Vec<String> {
    let of_series = |release: &str| release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.'));
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let release = release_of(name).filter(|release| of_series(release))?;
            Some((numbers(release), name.starts_with("linux-binary-"), name.ends_with("-unsigned"), name))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(.., name)| name.clone()).collect()
}

/// Numbers of a release in order. Releases of one series sort by them from old to new.
fn numbers(release: &str) -> Vec<u64> {
    release
        .split_once("-cloud")
        .map_or(release, |(head, _)| head)
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_newest_comes_first_and_the_full_package_before_the_empty_one() {
        let names = names(&[
            "linux-image-6.12.95+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64-unsigned",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
            "linux-image-6.19.14+deb13-cloud-amd64",
            "linux-binary-6.19.14+deb13-cloud-amd64",
            "linux-binary-6.19.8+deb13-cloud-amd64",
        ]);
        assert_eq!(
            candidates(&names, "6.12"),
            [
                "linux-image-6.12.107+deb13-cloud-amd64-unsigned",
                "linux-image-6.12.107+deb13-cloud-amd64",
                "linux-image-6.12.95+deb12-cloud-amd64-unsigned",
            ]
        );
        assert_eq!(candidates(&names, "6.19")[0], "linux-binary-6.19.14+deb13-cloud-amd64");
        assert_eq!(candidates(&names, "6.1"), ["linux-image-6.1.0-50-cloud-amd64-unsigned"]);
        assert!(candidates(&names, "7.1").is_empty());
    }

    #[test]
    fn a_rebuild_of_a_release_is_newer() {
        let names = names(&["linux-image-6.12.90+deb12-cloud-amd64", "linux-image-6.12.90+deb12.1-cloud-amd64"]);
        assert_eq!(candidates(&names, "6.12")[0], names[1]);
    }

    #[test]
    fn the_release_is_what_uname_says() {
        assert_eq!(release_of("linux-image-5.10.0-32-cloud-amd64-unsigned"), Some("5.10.0-32-cloud-amd64"));
        assert_eq!(release_of("linux-headers-5.10"), None);
    }
}
