//! The map `WORKLOADS`: what each cgroup did, whose it is, and whether it is still there.
//!
//! A cgroup's path is what the kernel side noted when it first saw it; failing that, the folder with its inode number, which
//! is the kernel's id. A cgroup whose folder is gone has no tasks, cannot count any more, and gives up its entry. It is looked
//! for at every reading at first, and less and less often: most are gone soon, or stay. It is looked for in its place; only where
//! that does not tell are the folders walked, of which whoever may make cgroups may have made any number: [`FOLDERS`] at most.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::{Ebpf, maps::Map};
use rustix::io::Errno;
use tracer_ebpf::workload::{CgroupPath, NAME, OWNER, REST, WorkloadTotals};

use crate::{
    bpf::{
        self,
        entries::Entries,
        read::{ReadError, map},
    },
    decode::workload::{CUT, Workload},
    human,
    kernel::Hierarchy,
    probe::sizes::{Counted, OWNERS, PATHS, WORKLOADS},
    sample::workloads::Reading,
};

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PathNoted(CgroupPath);

// SAFETY: `repr(C)` over integers, with no padding, for which every bit pattern is a value.
unsafe impl aya::Pod for PathNoted {}

/// A cgroup that is there is looked for again after a quarter of the time for which it has been known, at the latest after
/// this.
const LOOKED_FOR_NS: u64 = 60_000_000_000;

/// Inode number of a hierarchy's root folder, on every kernel with 64-bit ids (since 5.5).
const ROOT_INODE: u64 = 1;

/// Deeper than this no folder is looked into.
const DEPTH: usize = 32;

/// A walk ends after so many folders. Those nearest to the root come first.
const FOLDERS: usize = 16_384;

/// Reads the maps, and keeps the workloads from one reading to the next.
pub struct Source {
    counts: Counts,
    owners: Counts,
    paths: Entries<u64, PathNoted>,
    /// Those with an entry.
    cgroups: HashMap<u64, Cgroup>,
    tree: Tree,
    /// The last walk ended before it had seen all folders.
    walk_was_cut: bool,
    /// What was counted before the session began: not its own.
    baseline: BTreeMap<u64, WorkloadTotals>,
}

impl Source {
    /// Of the maps of the loaded object; what they have counted so far is left out.
    ///
    /// # Errors
    /// The object has no such maps, or the kernel refuses to read them.
    pub fn start(ebpf: &Ebpf, iterator: u32, hierarchy: &Hierarchy) -> Result<Self, ReadError> {
        let mut source = Self {
            counts: Counts::of(ebpf, iterator, WORKLOADS)?,
            owners: Counts::of(ebpf, iterator, OWNERS)?,
            paths: Entries::of(ebpf, iterator, PATHS)?,
            cgroups: HashMap::new(),
            tree: Tree::new(hierarchy),
            walk_was_cut: false,
            baseline: BTreeMap::new(),
        };
        source.baseline = source.counted()?.into_iter().map(|(id, counted)| (id, counted.0)).collect();
        Ok(source)
    }

    /// What each cgroup has counted, and what those without an entry have. `now_ns` is of a clock that never goes back; where a
    /// cgroup `is_known` no workload is looked for.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn read(
        &mut self,
        now_ns: u64,
        is_known: impl Fn(u64) -> bool,
    ) -> Result<(Vec<Reading>, WorkloadTotals), ReadError> {
        let mut readings = Vec::new();
        let mut rest = WorkloadTotals::default();
        let all = self.counted()?;
        let paths = self.paths(all.iter().map(|(id, _)| *id))?;
        let mut look = self.tree.look();
        for (id, counted) in all {
            let totals = self.baseline.get(&id).map_or(counted.0, |before| counted.0.minus(before));
            if id == REST {
                rest = totals;
                continue;
            }
            let cgroup = self.cgroups.entry(id).or_insert_with(|| Cgroup::new(now_ns));
            if cgroup.noted.is_none() {
                cgroup.noted = paths.get(&id).cloned();
            }
            if cgroup.is_due(now_ns) {
                cgroup.looked_ns = now_ns;
                let found = look.find(id & !OWNER, cgroup.noted.as_ref());
                cgroup.gone = matches!(found, Found::Gone);
                if let Found::At(place) = found {
                    cgroup.noted = Some(place);
                }
            }
            let workload = if is_known(id) { None } else { look.path(id & !OWNER, cgroup.noted.as_ref()) };
            let workload = workload.map(|path| Workload::at(&path));
            readings.push(Reading { id, totals, workload, gone: cgroup.gone });
        }
        if let Some(folders) = look.folders {
            if folders.cut && !self.walk_was_cut {
                tracing::warn!(
                    "there are more than {FOLDERS} cgroups: those with long names or many levels may be shown by the end of \
                     their path, and keep their place in pinscope's maps when they are gone"
                );
            }
            self.walk_was_cut = folders.cut;
        }
        Ok((readings, rest))
    }

    /// Whether the last walk through the folders of cgroups ended before it had seen all.
    pub const fn walk_was_cut(&self) -> bool {
        self.walk_was_cut
    }

    /// Removes a cgroup's entry; whether it is gone.
    pub fn remove(&mut self, id: u64) -> bool {
        let counts = if id & OWNER == 0 { &self.counts } else { &self.owners };
        let gone = counts.remove(id);
        if gone {
            self.cgroups.remove(&id);
            self.baseline.remove(&id);
        }
        gone
    }

    /// By the cgroup's id; with [`OWNER`] of those in it that found no room.
    fn counted(&self) -> Result<Vec<(u64, Counted)>, ReadError> {
        let mut all = self.counts.read()?;
        all.extend(self.owners.read()?.into_iter().map(|(id, counted)| (id | OWNER, counted)));
        Ok(all)
    }
}

impl Source {
    /// The paths that are noted of those of these cgroups of which none is known: all are read if there is one such.
    fn paths(&self, mut ids: impl Iterator<Item = u64>) -> Result<HashMap<u64, Noted>, ReadError> {
        let is_known = |id: u64| id == REST || self.cgroups.get(&id).is_some_and(|cgroup| cgroup.noted.is_some());
        if ids.all(is_known) {
            return Ok(HashMap::new());
        }
        let paths = self.paths.read(|id, path| if is_known(id) { None } else { Some((id, noted(&path.0)?)) })?;
        Ok(paths.into_iter().flatten().collect())
    }
}

/// One of the two maps.
struct Counts {
    entries: Entries<u64, Counted>,
    /// Removes an entry and its path. By a call on the map the kernel would be kept from running programs on that CPU.
    remover: OwnedFd,
}

impl Counts {
    fn of(ebpf: &Ebpf, iterator: u32, name: &'static str) -> Result<Self, ReadError> {
        let maps = [descriptor(ebpf, name)?, descriptor(ebpf, PATHS)?];
        let remover = bpf::load_remover(maps).map_err(|error| ReadError::Iterator(name, error))?;
        Ok(Self { entries: Entries::of(ebpf, iterator, name)?, remover })
    }

    fn read(&self) -> Result<Vec<(u64, Counted)>, ReadError> {
        self.entries.read(|id, counted| (id, counted))
    }

    /// Whether it is gone.
    fn remove(&self, id: u64) -> bool {
        bpf::remove(self.remover.as_fd(), [id & !OWNER, id]).unwrap_or_else(|error| {
            tracing::debug!("cannot remove the entry of a cgroup: {error}");
            false
        })
    }
}

fn descriptor<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, ReadError> {
    match map(ebpf, name)? {
        Map::HashMap(map) => Ok(map.fd().as_fd()),
        _ => Err(ReadError::Missing(name)),
    }
}

/// What is known of a cgroup.
struct Cgroup {
    noted: Option<Noted>,
    /// When it was first read.
    first_ns: u64,
    /// When it was last looked for; before that it was not.
    looked_ns: u64,
    gone: bool,
}

impl Cgroup {
    fn new(now_ns: u64) -> Self {
        Self { noted: None, first_ns: now_ns, looked_ns: 0, gone: false }
    }

    /// Whether it is to be looked for.
    fn is_due(&self, now_ns: u64) -> bool {
        let known_ns = self.looked_ns.saturating_sub(self.first_ns);
        self.gone || now_ns.saturating_sub(self.looked_ns) >= LOOKED_FOR_NS.min(known_ns / 4)
    }
}

/// A path as the kernel side noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Noted {
    path: String,
    /// All of it is there.
    whole: bool,
}

/// `None` where nothing was noted (yet).
fn noted(noted: &CgroupPath) -> Option<Noted> {
    let depth = usize::try_from(noted.noted).ok()?.checked_sub(1)?;
    let mut whole = noted.cut == 0;
    let mut path = String::new();
    for name in noted.names.iter().take(depth).rev() {
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
        let shown = human::field(name);
        // Of one that is not UTF-8, what is shown does not lead to its folder.
        whole &= length + 1 < NAME && shown.as_bytes() == &name[..length];
        path.push('/');
        path.push_str(&shown);
    }
    if path.is_empty() {
        path.push('/');
    }
    Some(Noted { path, whole })
}

/// The path in a map's value of these bytes, if it has one.
#[cfg(any(test, fuzzing))]
pub(crate) fn path_of(bytes: &[u8]) -> Option<String> {
    let mut value = CgroupPath::ZERO;
    let (numbers, names) = bytes.split_at_checked(8)?;
    value.noted = u32::from_ne_bytes(*numbers.first_chunk()?);
    value.cut = u32::from_ne_bytes(*numbers.last_chunk()?);
    value.names.as_flattened_mut().iter_mut().zip(names).for_each(|(to, from)| *to = *from);
    noted(&value).map(|noted| noted.path)
}

/// The hierarchy's folders, as far as this process sees them.
struct Tree {
    mount: Option<PathBuf>,
    /// The mount is the root of the hierarchy: what is not there is gone.
    is_whole: bool,
    /// A cgroup may get another name: in hierarchies of version 1.
    renames: bool,
}

impl Tree {
    fn new(hierarchy: &Hierarchy) -> Self {
        let mount = hierarchy.mount.clone();
        let is_whole = mount.as_deref().is_some_and(|mount| inode(mount) == Some(ROOT_INODE));
        Self { mount, is_whole, renames: hierarchy.controller.is_some() }
    }

    /// Whether a cgroup's folder is in its place; `None` where that is not told.
    fn has(&self, id: u64, place: &Noted) -> Option<bool> {
        let mount = self.mount.as_ref().filter(|_| self.is_whole && place.whole)?;
        match fs::metadata(mount.join(place.path.trim_start_matches('/'))) {
            Ok(folder) => Some(folder.ino() == id),
            Err(error) if is_gone(&error) => Some(false),
            Err(_) => None,
        }
    }

    fn look(&self) -> Look<'_> {
        Look { tree: self, folders: None }
    }
}

/// The folders during one reading; all of them are walked at most once, and only where something is not in its place.
struct Look<'a> {
    tree: &'a Tree,
    folders: Option<Folders>,
}

/// What a look for a cgroup's folder tells.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It is where it was.
    InPlace,
    /// It is there.
    At(Noted),
    Gone,
    Unknown,
}

impl Look<'_> {
    fn find(&mut self, id: u64, noted: Option<&Noted>) -> Found {
        if !self.tree.is_whole {
            return Found::Unknown;
        }
        match noted.and_then(|place| self.tree.has(id, place)) {
            Some(true) => return Found::InPlace,
            Some(false) if !self.tree.renames => return Found::Gone,
            _ => {}
        }
        let folders = self.folders();
        match folders.paths.get(&id) {
            Some(folder) => Found::At(folder.clone()),
            None if folders.all_read => Found::Gone,
            None => Found::Unknown,
        }
    }

    /// The cgroup's path from the hierarchy's root, or as much of its end as is known.
    fn path(&mut self, id: u64, noted: Option<&Noted>) -> Option<String> {
        match noted {
            Some(noted) if noted.whole => Some(noted.path.clone()),
            noted => {
                let found = self.folders().paths.get(&id).map(|folder| folder.path.clone());
                found.or(noted.map(|noted| format!("{CUT}{}", noted.path)))
            }
        }
    }

    fn folders(&mut self) -> &Folders {
        let mount = &self.tree.mount;
        self.folders
            .get_or_insert_with(|| mount.as_deref().map_or_else(Folders::default, |mount| Folders::of(mount, FOLDERS)))
    }
}

/// The folders below a mount.
#[derive(Debug, Default)]
struct Folders {
    /// Where they are, by inode number.
    paths: HashMap<u64, Noted>,
    /// None was passed over but those that went away meanwhile.
    all_read: bool,
    /// There are more than were to be read.
    cut: bool,
}

impl Folders {
    /// At most so many of them.
    fn of(mount: &Path, most: usize) -> Self {
        let mut folders = Self { paths: HashMap::new(), all_read: true, cut: false };
        let root = Noted { path: "/".to_owned(), whole: true };
        folders.paths.extend(inode(mount).map(|inode| (inode, root)));
        let mut next = VecDeque::from([(mount.to_owned(), Noted { path: String::new(), whole: true }, DEPTH)]);
        while !folders.cut
            && let Some((folder, place, depth)) = next.pop_front()
        {
            if depth == 0 {
                folders.all_read = false;
                continue;
            }
            let read = folders.read(&folder, &place, most, |folder, place| next.push_back((folder, place, depth - 1)));
            // What went away meanwhile: its kind of error differs with the moment.
            folders.all_read &= read.as_ref().err().is_none_or(is_gone);
        }
        folders.all_read &= !folders.cut;
        folders
    }

    /// Takes up the folders in a folder, and hands each on.
    fn read(
        &mut self,
        folder: &Path,
        place: &Noted,
        most: usize,
        mut found: impl FnMut(PathBuf, Noted),
    ) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if self.paths.len() >= most {
                self.cut = true;
                break;
            }
            let name = entry.file_name();
            let whole = place.whole && name.to_str().is_some();
            let place = Noted { path: format!("{}/{}", place.path, name.to_string_lossy()), whole };
            self.paths.insert(entry.ino(), place.clone());
            found(entry.path(), place);
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str], cut: bool) -> CgroupPath {
        let mut path = CgroupPath { noted: names.len() as u32 + 1, cut: cut.into(), ..CgroupPath::ZERO };
        for (slot, name) in path.names.iter_mut().zip(names) {
            slot[..name.len()].copy_from_slice(name.as_bytes());
        }
        path
    }

    #[test]
    fn a_cgroup_is_looked_for_less_and_less_often() {
        const SECOND: u64 = 1_000_000_000;
        let mut cgroup = Cgroup::new(10 * SECOND);
        let mut looks = Vec::new();
        for second in 10..=1_000 {
            if cgroup.is_due(second * SECOND) {
                cgroup.looked_ns = second * SECOND;
                looks.push(second);
            }
        }
        assert_eq!(looks[..8], [10, 11, 12, 13, 14, 15, 17, 19]);
        assert!(looks.windows(2).all(|pair| pair[1] - pair[0] <= 60), "{looks:?}");
        assert!(looks.len() < 40, "{looks:?}");
        // One that is gone is about to give up its entry.
        cgroup.gone = true;
        assert!(cgroup.is_due(cgroup.looked_ns));
    }

    #[test]
    fn names_are_noted_from_the_leaf_up() {
        let path = |names: &[&str], cut| noted(&path(names, cut)).unwrap();
        let whole = path(&["fio.service", "system.slice"], false);
        assert_eq!(whole, Noted { path: "/system.slice/fio.service".to_owned(), whole: true });
        assert_eq!(path(&[], false), Noted { path: "/".to_owned(), whole: true });
        assert!(!path(&["a", "b"], true).whole);
        assert!(!path(&[&"x".repeat(NAME - 1)], false).whole);
        assert!(path(&[&"x".repeat(NAME - 2)], false).whole);
        assert_eq!(noted(&CgroupPath::ZERO), None);
        // A number that no kernel side writes.
        assert!(noted(&CgroupPath { noted: u32::MAX, ..CgroupPath::ZERO }).is_some());
    }

    #[test]
    fn a_folder_is_found_by_its_number() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b.service");
        fs::create_dir_all(&folder).unwrap();
        let (id, own) = (inode(&folder).unwrap(), inode(root.path()).unwrap());
        let mut tree = Tree { mount: Some(root.path().to_owned()), is_whole: true, renames: true };
        let told = |path: &str, whole| Noted { path: path.to_owned(), whole };
        assert_eq!(tree.look().path(id, None).as_deref(), Some("/a/b.service"));
        assert_eq!(tree.look().path(id, Some(&told("/c/b.service", false))).as_deref(), Some("/a/b.service"));
        assert_eq!(tree.look().path(id, Some(&told("/x", true))).as_deref(), Some("/x"));
        assert_eq!(tree.look().path(own, None).as_deref(), Some("/"));
        let there = || Found::At(told("/a/b.service", true));
        assert_eq!(tree.look().find(id, Some(&told("/a/b.service", true))), Found::InPlace);
        assert_eq!(tree.look().find(id, Some(&told("/renamed", true))), there());
        assert_eq!([tree.look().find(id, None), tree.look().find(id, Some(&told("/b", false)))], [there(), there()]);
        fs::remove_dir(&folder).unwrap();
        assert_eq!(tree.look().find(id, Some(&told("/a/b.service", true))), Found::Gone);
        assert_eq!(tree.look().path(id, Some(&told("/b.service", false))).as_deref(), Some("/…/b.service"));
        assert_eq!(tree.look().path(id, None), None);
        // Of what is not seen whole, nothing is known to be gone.
        tree.is_whole = false;
        assert_eq!(tree.look().find(id, None), Found::Unknown);
    }

    #[test]
    fn where_cgroups_keep_their_names_one_that_is_gone_takes_no_walk() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a.service");
        fs::create_dir(&folder).unwrap();
        let id = inode(&folder).unwrap();
        let place = Noted { path: "/a.service".to_owned(), whole: true };
        let tree = Tree { mount: Some(root.path().to_owned()), is_whole: true, renames: false };
        fs::remove_dir(&folder).unwrap();
        let mut look = tree.look();
        assert_eq!(look.find(id, Some(&place)), Found::Gone);
        assert!(look.folders.is_none());
        // Another has the name.
        fs::create_dir(root.path().join("other")).unwrap();
        fs::create_dir(&folder).unwrap();
        let other = inode(&root.path().join("other")).unwrap();
        assert_eq!(look.find(other, Some(&place)), Found::Gone);
        // Nobody may look there.
        let under_a_file = Noted { path: "/file/x".to_owned(), whole: true };
        fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(tree.has(id, &under_a_file), None);
    }

    #[test]
    fn a_walk_ends_and_says_so() {
        const MANY: usize = 500;
        let root = tempfile::tempdir().unwrap();
        for number in 0..MANY {
            fs::create_dir_all(root.path().join(format!("a/user/{number}"))).unwrap();
        }
        for number in 0..10 {
            fs::create_dir_all(root.path().join(format!("b/{number}.service"))).unwrap();
        }
        let all = Folders::of(root.path(), 2 * MANY);
        assert_eq!((all.paths.len(), all.all_read, all.cut), (MANY + 14, true, false));
        let some = Folders::of(root.path(), 100);
        assert_eq!((some.paths.len(), some.all_read, some.cut), (100, false, true));
        // What lies nearer to the root is among them.
        let services = some.paths.values().filter(|place| place.path.starts_with("/b/")).count();
        assert_eq!(services, 10);
        // Of one that was not seen nothing is told.
        let tree = Tree { mount: Some(root.path().to_owned()), is_whole: true, renames: false };
        let mut look = Look { tree: &tree, folders: Some(some) };
        assert_eq!(look.find(u64::MAX, None), Found::Unknown);
    }
}
