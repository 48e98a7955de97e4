//! Which hierarchy of cgroups tells workloads apart, and where it is mounted.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use super::{Known, Unknown};

/// Controllers of version 1 that service managers and container runtimes put every workload under, the surest first.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// A hierarchy of cgroups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controller whose hierarchy of version 1 it is; `None` for the default hierarchy.
    pub controller: Option<&'static str>,
    /// Where it is mounted, as far as this process sees.
    pub mount: Option<PathBuf>,
}

impl Hierarchy {
    /// Looks at this process's mounts and its own cgroups, under `/proc`.
    ///
    /// # Errors
    /// One of the two files cannot be read.
    pub fn find(proc: &Path) -> Known<Self> {
        let read = |name: &str| {
            let path = proc.join(name);
            std::fs::read(&path).map_err(|error| Unknown::new(path.display(), error))
        };
        Ok(Self::choose(read("self/mountinfo")?, &String::from_utf8_lossy(&read("self/cgroup")?)))
    }

    /// The default hierarchy, unless this process is in none of its cgroups but the root and a controller has a hierarchy of
    /// version 1.
    pub(crate) fn choose(mountinfo: impl AsRef<[u8]>, own: &str) -> Self {
        let mounts: Vec<_> = mountinfo.as_ref().split(|byte| *byte == b'\n').filter_map(Mount::parse).collect();
        let default = Self { controller: None, mount: place(&mounts, |mount| mount.filesystem == "cgroup2") };
        let in_default = own.lines().any(|line| line.strip_prefix("0::").is_some_and(|path| path != "/"));
        if in_default {
            return default;
        }
        let is_in = |controller: &str| {
            let mut hierarchies = own.lines().filter_map(|line| line.split(':').nth(1));
            hierarchies.any(|controllers| controllers.split(',').any(|name| name == controller))
        };
        let version_1 = CONTROLLERS.into_iter().filter(|controller| is_in(controller)).find_map(|controller| {
            let has = |mount: &Mount<'_>| mount.options.split(',').any(|option| option == controller);
            let mount = place(&mounts, |mount| mount.filesystem == "cgroup" && has(mount))?;
            Some(Self { controller: Some(controller), mount: Some(mount) })
        });
        version_1.unwrap_or(default)
    }
}

/// A line of `/proc/self/mountinfo`. Mount points are any bytes; what else is looked at is the kernel's own.
struct Mount<'a> {
    is_root: bool,
    point: &'a [u8],
    filesystem: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        const BETWEEN: &[u8] = b" - ";
        let between = line.windows(BETWEEN.len()).position(|part| part == BETWEEN)?;
        let mut words = line.get(..between)?.split(|byte| *byte == b' ').skip(3);
        let (root, point) = (words.next()?, words.next()?);
        let mut words = line.get(between + BETWEEN.len()..)?.split(|byte| *byte == b' ');
        let (filesystem, _, options) = (words.next()?, words.next()?, words.next()?);
        let text = |bytes| std::str::from_utf8(bytes).ok();
        Some(Self { is_root: root == b"/", point, filesystem: text(filesystem)?, options: text(options)? })
    }
}

/// The first mount that fits; one of the hierarchy's root before others.
fn place(mounts: &[Mount<'_>], fits: impl Fn(&Mount<'_>) -> bool) -> Option<PathBuf> {
    let fitting = || mounts.iter().filter(|mount| fits(mount));
    let mount = fitting().find(|mount| mount.is_root).or_else(|| fitting().next())?;
    Some(OsString::from_vec(unescape(mount.point)).into())
}

/// Spaces, tabs, ends of lines and backslashes stand as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = if *first == b'\\' { octal(behind) } else { None };
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[3..] } else { behind };
    }
    plain
}

/// The byte that three octal digits stand for.
fn octal(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..3)?).ok()?;
    digits.bytes().all(|digit| matches!(digit, b'0'..=b'7')).then(|| u8::from_str_radix(digits, 8).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "29 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
30 29 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
31 29 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
35 29 0:32 / /sys/fs/cgroup/pids rw shared:16 - cgroup cgroup rw,pids
36 29 0:33 / /sys/fs/cgroup/cpu,cpuacct rw shared:17 - cgroup cgroup rw,cpu,cpuacct
";

    fn v1(controller: &'static str, mount: &str) -> Hierarchy {
        Hierarchy { controller: Some(controller), mount: Some(mount.into()) }
    }

    fn v2(mount: Option<&str>) -> Hierarchy {
        Hierarchy { controller: None, mount: mount.map(PathBuf::from) }
    }

    #[test]
    fn the_default_hierarchy_is_taken_where_it_is_in_use() {
        let unified = v2(Some("/sys/fs/cgroup"));
        assert_eq!(Hierarchy::choose(V2, "0::/system.slice/pinscope.service\n"), unified);
        assert_eq!(Hierarchy::choose(V2, "0::/\n"), unified);
        // Hybrid, with processes in the default hierarchy.
        let hybrid = "8:pids:/system.slice/a.service\n0::/system.slice/a.service\n";
        assert_eq!(Hierarchy::choose(V1, hybrid), v2(Some("/sys/fs/cgroup/unified")));
        assert_eq!(Hierarchy::choose("", "0::/\n"), v2(None));
        assert_eq!(Hierarchy::choose("", ""), v2(None));
    }

    #[test]
    fn a_mount_point_that_is_no_utf_8_hides_no_other() {
        let odd = [b"28 22 0:5 / /mnt/\xff rw - ext4 /dev/x rw\n", V2.as_bytes()].concat();
        assert_eq!(Hierarchy::choose(odd, "0::/a\n"), v2(Some("/sys/fs/cgroup")));
        let own = b"29 22 0:26 / /mnt/\xff\\040x\\134 rw - cgroup2 cgroup2 rw\n";
        let mount = PathBuf::from(OsString::from_vec(b"/mnt/\xff x\\".to_vec()));
        assert_eq!(Hierarchy::choose(own, "0::/a\n").mount, Some(mount));
        // A file may say so; the kernel does not.
        assert_eq!(unescape(b"\\999\\04\\400"), b"\\999\\04\\400");
    }

    #[test]
    fn a_controller_is_taken_where_the_default_hierarchy_holds_nothing() {
        let own = "9:pids:/a\n4:cpu,cpuacct:/a\n3:memory:/a\n1:name=systemd:/a\n";
        assert_eq!(Hierarchy::choose(V1, own), v1("pids", "/sys/fs/cgroup/pids"));
        assert_eq!(Hierarchy::choose(V1, &format!("{own}0::/\n")), v1("pids", "/sys/fs/cgroup/pids"));
        let cpu = "4:cpu,cpuacct:/a\n0::/\n";
        assert_eq!(Hierarchy::choose(V1, cpu), v1("cpu", "/sys/fs/cgroup/cpu,cpuacct"));
        let memory = format!("{V1}40 29 0:40 / /mnt/my\\040cgroups rw - cgroup cgroup rw,memory\n");
        assert_eq!(Hierarchy::choose(&memory, own), v1("memory", "/mnt/my cgroups"));
    }

    #[test]
    fn the_whole_hierarchy_is_taken_before_a_part_of_it() {
        let part = "50 22 0:26 /docker/x /cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchy::choose(format!("{part}{V2}"), "0::/\n"), v2(Some("/sys/fs/cgroup")));
        assert_eq!(Hierarchy::choose(part, "0::/\n"), v2(Some("/cgroup")));
    }
}
