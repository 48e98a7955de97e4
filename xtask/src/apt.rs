//! Debian's archive: downloads packages without touching the system's own apt.
//!
//! An [`Archive`] is a private set of apt folders in the cache, for suites that the system does not need to know. Apt
//! itself does the work: it takes the mirror and proxy from its configuration, checks signatures and hashes, and
//! resolves dependencies.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cache::{Cache, Guard},
    exec::{exec, read, show},
};

/// Environment variable that overrides the mirror of apt's configuration.
pub const MIRROR_ENV: &str = "PINSCOPE_DEBIAN_MIRROR";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Package lists older than this are fetched again before a download.
const FRESH: Duration = Duration::from_hours(24);
/// Packages that others depend on only for their installation. None of them is run in a guest or by QEMU.
const NOT_NEEDED: [&str; 14] = [
    "adduser",
    "debconf",
    "dmsetup",
    "dpkg",
    "init-system-helpers",
    "libpam-modules",
    "passwd",
    "perl",
    "perl-base",
    "python3",
    "tar",
    "ucf",
    "usr-is-merged",
    "usrmerge",
];

/// Kind of packages that an archive offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Binary,
    Source,
}

impl Kind {
    /// The first word of a line of sources.list.
    fn word(self) -> &'static str {
        match self {
            Self::Binary => "deb",
            Self::Source => "deb-src",
        }
    }

    /// Suffix of apt's list files for this kind.
    fn list(self) -> &'static str {
        match self {
            Self::Binary => "_Packages",
            Self::Source => "_Sources",
        }
    }
}

/// One or more suites of Debian's archive, accessed through private apt folders.
pub struct Archive {
    folder: PathBuf,
    lists: PathBuf,
    kind: Kind,
    /// apt's complaints about suites whose lists could not be fetched. The other suites stay usable, so these are no
    /// errors.
    pub complaints: Vec<String>,
}

impl Archive {
    /// Opens the archive for `suites` and updates its package lists. `name` names its folder.
    pub fn open(cache: &Cache, guard: &Guard, name: &str, suites: &[&str]) -> Result<Self> {
        Self::open_for(Kind::Binary, cache, guard, name, suites)
    }

    /// Like [`Archive::open`], but for source packages, for which apt is rarely configured.
    pub fn open_sources(cache: &Cache, guard: &Guard, name: &str, suites: &[&str]) -> Result<Self> {
        Self::open_for(Kind::Source, cache, guard, name, suites)
    }

    fn open_for(kind: Kind, cache: &Cache, guard: &Guard, name: &str, suites: &[&str]) -> Result<Self> {
        let _: &Guard = guard;
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: packages of Debian could not be verified (is this a Debian system?)");
        }
        let mut archive =
            Self { folder: cache.path("apt").join(name), lists: cache.path("apt/lists"), kind, complaints: Vec::new() };
        for folder in [archive.lists.join("partial"), archive.folder.join("archives/partial")] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mirrors = Mirrors::of_apt()?;
        let mut sources = String::new();
        let mut left_out = Vec::new();
        for suite in suites {
            match mirrors.of(suite) {
                Some(mirror) => writeln!(sources, "{} [signed-by={KEYRING}] {mirror} {suite} main", kind.word())?,
                None => left_out.push(format!("{suite} was left out: apt has no mirror of Debian's security archive")),
            }
        }
        let mut installed = String::new();
        for name in NOT_NEEDED {
            writeln!(
                installed,
                "Package: {name}\nStatus: install ok installed\nVersion: 999\nArchitecture: amd64\n\
                 Multi-Arch: foreign\nMaintainer: none\nDescription: not needed\n"
            )?;
        }
        write_if_other(&archive.folder.join("sources.list"), &sources)?;
        write_if_other(&archive.folder.join("status"), &installed)?;
        write_if_other(&archive.folder.join("apt.conf"), &archive.configuration())?;
        archive.refresh()?;
        archive.complaints.extend(left_out);
        Ok(archive)
    }

    /// The names of packages that match a regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = read(self.apt("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Version of a package that apt would install.
    pub fn version(&self, package: &str) -> Result<String> {
        let shown = read(self.apt("apt-cache").args(["show", "--no-all-versions", package]))?;
        shown
            .lines()
            .find_map(|line| line.strip_prefix("Version: "))
            .map(str::to_owned)
            .with_context(|| format!("apt-cache show {package} names no version"))
    }

    /// Packages with all their run-time dependencies, as `name=version`. `release` is the suite that takes precedence.
    pub fn closure(&self, packages: &[&str], release: &str) -> Result<Vec<String>> {
        let plan = read(
            self.apt("apt-get")
                .args(["install", "--simulate", "--no-install-recommends", "--target-release", release])
                .args(packages),
        )?;
        Ok(plan.lines().filter_map(planned).collect())
    }

    /// Downloads packages (`name` or `name=version`) into a folder and unpacks them into another.
    pub fn unpack(&self, packages: &[String], work: &Path, root: &Path) -> Result<()> {
        let folder = work.join("debs");
        for path in [&folder, root] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        exec(self.apt("apt-get").args(["download", "--quiet", "--quiet"]).args(packages).current_dir(&folder))
            .inspect_err(|_| self.mark_stale())?;
        let mut debs = 0;
        for entry in fs::read_dir(&folder)? {
            exec(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(root))?;
            debs += 1;
        }
        if debs != packages.len() {
            bail!("apt-get downloaded {debs} of {} packages", packages.len());
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    /// Downloads a source package into a folder and unpacks it there with Debian's patches. Returns the folder of the
    /// sources. Needs dpkg-source.
    pub fn unpack_source(&self, package: &str, work: &Path) -> Result<PathBuf> {
        fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
        exec(
            self.apt("apt-get")
                .args(["source", "--download-only", "--only-source", "--quiet", "--quiet", package])
                .current_dir(work),
        )
        .inspect_err(|_| self.mark_stale())
        .with_context(|| {
            let said = self.complaints.join("\n");
            format!("cannot fetch the source package {package} from Debian's archive\n{said}")
        })?;
        let description = fs::read_dir(work)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
            .with_context(|| format!("apt-get downloaded no .dsc of {package}"))?;
        let sources = work.join("sources");
        // Apt has verified the files against its signed lists; the uploader's own key is not in the keyring here.
        read(Command::new("dpkg-source").args(["--no-check", "--extract"]).arg(&description).arg(&sources))?;
        Ok(sources)
    }

    /// Marks the package lists as outdated, so that the next run fetches them again: the archive may have changed
    /// since.
    fn mark_stale(&self) {
        let _ = fs::remove_file(self.folder.join("updated"));
    }

    fn refresh(&mut self) -> Result<()> {
        let stamp = self.folder.join("updated");
        let sources = self.folder.join("sources.list");
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        let fresh = changed(&stamp).is_some_and(|updated| {
            changed(&sources).is_some_and(|written| written <= updated)
                && SystemTime::now().duration_since(updated).is_ok_and(|age| age < FRESH)
        });
        if fresh {
            self.complaints = fs::read_to_string(&stamp)?.lines().map(str::to_owned).collect();
            return Ok(());
        }
        let mut update = self.apt("apt-get");
        update.args(["update", "--quiet", "--quiet"]);
        let output = update.output().with_context(|| format!("cannot run `{}`", show(&update)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        self.complaints = said.lines().filter(|line| is_complaint(line)).map(str::to_owned).collect();
        let any_list = fs::read_dir(&self.lists)?
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains(self.kind.list()));
        if !any_list {
            bail!("`{}` fetched no package list:\n{}", show(&update), said.trim_end());
        }
        fs::write(&stamp, self.complaints.join("\n")).with_context(|| format!("cannot write {}", stamp.display()))
    }

    /// An apt command that uses the private folders. A file given with `-c` overrides the system's configuration, which
    /// still supplies the proxy.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn configuration(&self) -> String {
        let mut text = String::from(
            "APT::Architecture \"amd64\";\n\
             #clear APT::Architectures;\n\
             APT::Architectures { \"amd64\"; };\n\
             // The archives share their lists; apt would throw away those of the others.\n\
             APT::Get::List-Cleanup \"false\";\n\
             // Private folders are not open to apt's own user.\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\n\
             Acquire::Check-Valid-Until \"false\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::CNF::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n",
        );
        let folders = [
            ("Dir::Etc::SourceList", self.folder.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::Etc::Preferences", PathBuf::from("/dev/null")),
            ("Dir::Etc::PreferencesParts", PathBuf::from("/dev/null")),
            ("Dir::State", self.folder.clone()),
            ("Dir::State::Lists", self.lists.clone()),
            ("Dir::State::status", self.folder.join("status")),
            ("Dir::State::extended_states", self.folder.join("extended_states")),
            ("Dir::Cache", self.folder.clone()),
            ("Dir::Cache::Archives", self.folder.join("archives")),
            // Container images disable these caches; every call would then parse all lists again.
            ("Dir::Cache::pkgcache", self.folder.join("pkgcache.bin")),
            ("Dir::Cache::srcpkgcache", self.folder.join("srcpkgcache.bin")),
        ];
        for (option, path) in folders {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{option} \"{}\";", path.display());
        }
        text
    }
}

/// A line of sources.list for a suite, with the mirror of apt's configuration. For programs that run their own apt.
pub fn source(suite: &str) -> Result<String> {
    let mirrors = Mirrors::of_apt()?;
    let mirror = mirrors.of(suite).with_context(|| format!("apt has no mirror with {suite}"))?;
    Ok(format!("deb [signed-by={KEYRING}] {mirror} {suite} main"))
}

/// The mirrors in apt's configuration.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: Option<String>,
}

impl Mirrors {
    fn of_apt() -> Result<Self> {
        let targets = read(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL)|$(CODENAME)|$(REPO_URI)",
            "Created-By: Packages",
        ]))?;
        let mut mirrors = Self::pick(&targets);
        if let Ok(main) = std::env::var(MIRROR_ENV) {
            let security = mirrors.take().and_then(|mirrors| mirrors.security);
            mirrors = Some(Self { main, security });
        }
        mirrors.with_context(|| format!("apt has no Debian mirror configured; name one in {MIRROR_ENV}"))
    }

    /// Picks mirrors by their labels, or by their addresses while apt has no lists and therefore no labels.
    fn pick(targets: &str) -> Option<Self> {
        let entries: Vec<_> = targets
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, '|');
                Some((fields.next()?, fields.next()?, fields.next()?))
            })
            .collect();
        let find = |wanted: &str, path: &str| {
            entries
                .iter()
                .find(|(label, ..)| *label == wanted)
                .or_else(|| {
                    entries
                        .iter()
                        .find(|(label, _, address)| label.is_empty() && address.trim_end_matches('/').ends_with(path))
                })
                .map(|(_, _, address)| (*address).to_owned())
        };
        Some(Self { main: find("Debian", "/debian")?, security: find("Debian-Security", "/debian-security") })
    }

    fn of(&self, suite: &str) -> Option<&str> {
        if suite.ends_with("-security") { self.security.as_deref() } else { Some(&self.main) }
    }
}

/// Turns `Inst libfoo (1.2-3 Debian:12 [amd64]) []` into `libfoo=1.2-3`.
fn planned(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.split_once('(')?.1.split([' ', ')']).next()?;
    Some(format!("{name}={version}"))
}

/// Whether a line reports a list that could not be fetched. Apt only warns about it and continues without the list.
fn is_complaint(line: &str) -> bool {
    line.starts_with("E:") || line.starts_with("W: Failed to fetch")
}

fn write_if_other(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_apt_is_read() {
        assert_eq!(
            planned("Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64]) []").as_deref(),
            Some("libc6=2.36-9+deb12u14")
        );
        assert_eq!(planned("Conf libc6 (2.36-9 Debian:12 [amd64])"), None);
        assert_eq!(planned("Reading package lists..."), None);
    }

    #[test]
    fn a_list_that_failed_is_a_complaint() {
        assert!(is_complaint("W: Failed to fetch http://m/debian/dists/trixie/InRelease  Could not connect"));
        assert!(is_complaint("E: The repository is not signed."));
        assert!(!is_complaint("W: Some index files failed to download."));
    }

    #[test]
    fn mirrors_are_identified_by_label_or_address() {
        let both = Mirrors { main: "http://m/debian/".into(), security: Some("http://m/debian-security/".into()) };
        let labelled = "Debian-Security|bookworm-security|http://m/debian-security/\nNode|nodistro|http://n/debian/\n\
                        Debian|bookworm|http://m/debian/";
        assert_eq!(Mirrors::pick(labelled).as_ref(), Some(&both));
        assert_eq!(both.of("trixie-security"), Some("http://m/debian-security/"));
        assert_eq!(both.of("trixie"), Some("http://m/debian/"));
        let bare = "||http://m/debian-security/\n||http://m/debian/";
        assert_eq!(Mirrors::pick(bare), Some(both));
        let main_only = Mirrors::pick("Debian|sid|http://m/debian").unwrap();
        assert_eq!(main_only.of("sid-security"), None);
        assert_eq!(Mirrors::pick("Ubuntu|noble|http://u/ubuntu/"), None);
    }
}
