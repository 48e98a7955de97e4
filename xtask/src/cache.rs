//! The user's cache directory, which holds everything that is downloaded. An entry is created under a temporary name
//! and renamed when complete, so an entry under its final name is always complete.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::toolchain;

/// The folder `pinscope/` of the user's cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Lock held while the cache is modified. A second xtask waits instead of downloading the same files.
pub struct Guard(#[expect(dead_code, reason = "holds the lock until it is dropped")] File);

impl Cache {
    pub fn open() -> Result<Self> {
        let root = toolchain::cache_dir().context("neither XDG_CACHE_HOME nor HOME says where the user's cache is")?;
        Self::at(root)
    }

    fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        Ok(Self { root })
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub fn lock(&self) -> Result<Guard> {
        let path = self.path("lock");
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            println!("another cargo xtask is filling the cache; waiting for it");
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Guard(file))
    }

    /// Returns the folder `name`, and creates it with `fill` if it is missing. `fill` writes to a temporary folder that
    /// is renamed only after success. Leftovers of an interrupted run are removed first.
    pub fn folder(&self, name: &str, _guard: &Guard, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let whole = self.path(name);
        if whole.is_dir() {
            return Ok(whole);
        }
        let partial = self.path(format!("{name}.partial"));
        remove(&partial)?;
        fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        fill(&partial)?;
        rename(&partial, &whole)?;
        Ok(whole)
    }

    /// Like [`Cache::folder`], for a single file: `make` writes it under a temporary name.
    pub fn file(&self, name: &str, _guard: &Guard, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let whole = self.path(name);
        if whole.is_file() {
            return Ok(whole);
        }
        let partial = self.path(format!("{name}.partial"));
        remove(&partial)?;
        if let Some(folder) = whole.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        make(&partial)?;
        rename(&partial, &whole)?;
        Ok(whole)
    }
}

/// Removes a file or a folder. A missing one is not an error.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

fn rename(partial: &Path, whole: &Path) -> Result<()> {
    fs::rename(partial, whole).with_context(|| format!("cannot rename {} to {}", partial.display(), whole.display()))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn an_incomplete_entry_is_never_found() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path().join("pinscope")).unwrap();
        let guard = cache.lock().unwrap();
        let half = cache.folder("kernels/1.0", &guard, |folder| {
            fs::write(folder.join("vmlinuz"), "half")?;
            bail!("the connection broke")
        });
        assert!(half.is_err());
        assert!(!cache.path("kernels/1.0").exists());

        let whole = cache
            .folder("kernels/1.0", &guard, |folder| {
                assert_eq!(fs::read_dir(folder)?.count(), 0, "remains of the broken attempt");
                Ok(fs::write(folder.join("vmlinuz"), "whole")?)
            })
            .unwrap();
        assert_eq!(fs::read_to_string(whole.join("vmlinuz")).unwrap(), "whole");
        let again = cache.folder("kernels/1.0", &guard, |_| bail!("downloaded twice")).unwrap();
        assert_eq!(again, whole);
    }

    #[test]
    fn a_file_is_made_once() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path().to_owned()).unwrap();
        let guard = cache.lock().unwrap();
        assert!(cache.file("disks/a", &guard, |_| bail!("no")).is_err());
        assert!(!cache.path("disks/a").exists());
        let path = cache.file("disks/a", &guard, |file| Ok(fs::write(file, "x")?)).unwrap();
        assert_eq!(cache.file("disks/a", &guard, |_| bail!("twice")).unwrap(), path);
    }
}
