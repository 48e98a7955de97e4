//! tracefs where nobody has mounted it, for as long as it is read.

use std::{io, path::Path, thread};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Where a tracepoint's number is looked for.
const MOUNT_POINT: &str = "/sys/kernel/tracing";

/// Does `work` where tracefs is mounted: here, or else in a thread with a view of the mounts of its own, which goes
/// away with the thread, so that nobody else sees a mount come and go.
///
/// # Errors
/// It is not mounted and cannot be, in one line.
pub fn mounted<T: Send>(work: &mut (impl FnMut() -> T + Send)) -> Result<T, String> {
    if Path::new(MOUNT_POINT).join("events").exists() {
        return Ok(work());
    }
    let aside = || mount_aside().map(|()| work());
    let done = thread::scope(|scope| scope.spawn(aside).join());
    done.unwrap_or_else(|_| Err(io::Error::other("its thread ended early")))
        .map_err(|error| format!("tracefs is not mounted, and mounting it aside failed: {error}"))
}

fn mount_aside() -> io::Result<()> {
    // SAFETY: only this thread's view of the mounts changes, and with it that of the working directory, which
    // nothing in this thread uses.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // What is mounted from now on is not to spread to the others' views.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount("tracefs", MOUNT_POINT, "tracefs", MountFlags::RDONLY, None)?;
    Ok(())
}
