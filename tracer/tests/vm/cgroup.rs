//! Cgroups created by the tests.

use std::{
    ffi::CString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Mount point of the default hierarchy in the guest.
pub const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup, with those of its ancestors that were created for it.
pub struct Cgroup {
    folder: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Creates the cgroup. `path` is relative to the root of the hierarchy mounted at `mount`.
    pub fn new(mount: impl AsRef<Path>, path: &str) -> anyhow::Result<Self> {
        let mut folder = mount.as_ref().to_owned();
        let mut made = Vec::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            folder.push(name);
            if !folder.exists() {
                fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
                made.push(folder.clone());
            }
        }
        Ok(Self { folder, made })
    }

    /// A command whose process starts inside the cgroup.
    pub fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        command.arg(program).args(arguments);
        command
    }

    /// Moves this process with all its threads into the cgroup.
    pub fn enter(&self) -> io::Result<()> {
        enter(&self.folder)
    }

    /// Removes the cgroup and the ancestors created for it. Exiting tasks may keep it busy for a moment.
    pub fn remove(self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for folder in self.made.iter().rev() {
            while let Err(error) = fs::remove_dir(folder) {
                // An ancestor that others use as well stays.
                if error.kind() == io::ErrorKind::DirectoryNotEmpty || fs::read_dir(folder)?.flatten().any(is_folder) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(error).with_context(|| format!("removing {}", folder.display()));
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "an iterator passes references")]
fn is_folder(entry: fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Moves this process to the root of the hierarchy.
pub fn leave(mount: impl AsRef<Path>) -> io::Result<()> {
    enter(mount.as_ref())
}

fn enter(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.procs"), "0")
}

/// A version 1 hierarchy of one controller, mounted until dropped.
pub struct Version1 {
    /// Mount point.
    pub mount: PathBuf,
    /// Name of the controller.
    pub controller: &'static str,
}

impl Version1 {
    /// Mounts the first of these controllers that the kernel accepts in a version 1 hierarchy; otherwise returns the
    /// last error.
    pub fn mount(controllers: &[&'static str]) -> io::Result<Self> {
        let mut refusal = io::Error::other("no controller was named");
        for controller in controllers {
            let mount = PathBuf::from(format!("/run/cgroup-{controller}"));
            fs::create_dir_all(&mount)?;
            match mount_at(&mount, controller) {
                Ok(()) => return Ok(Self { mount, controller }),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

fn mount_at(mount: &Path, controller: &str) -> io::Result<()> {
    let target = CString::new(mount.as_os_str().as_encoded_bytes())?;
    let options = CString::new(controller)?;
    // SAFETY: all strings are NUL-terminated and outlive the call.
    let ret =
        unsafe { libc::mount(c"cgroup".as_ptr(), target.as_ptr(), c"cgroup".as_ptr(), 0, options.as_ptr().cast()) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Version1 {
    fn drop(&mut self) {
        if let Ok(target) = CString::new(self.mount.as_os_str().as_encoded_bytes()) {
            // SAFETY: the string is NUL-terminated and outlives the call.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
