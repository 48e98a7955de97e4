//! Memory whose first access blocks until it is released (userfaultfd(2)).

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
};

const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;
/// `UFFD_API`, and `UFFDIO_REGISTER_MODE_MISSING`.
const API: u64 = 0xaa;
const MISSING: u64 = 1;

/// A range without pages.
pub struct Held {
    fd: OwnedFd,
    address: u64,
    length: u64,
}

impl Held {
    /// Registers anonymous, untouched memory.
    pub fn over(address: u64, length: u64) -> io::Result<Self> {
        // SAFETY: the call takes one integer.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so this is a new descriptor without another owner.
        let held = Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, address, length };
        held.control(UFFDIO_API, &mut [API, 0, 0])?;
        held.control(UFFDIO_REGISTER, &mut [address, length, MISSING, 0])?;
        Ok(held)
    }

    /// Provides the pages: blocked tasks continue.
    pub fn release(&self) -> io::Result<()> {
        self.control(UFFDIO_ZEROPAGE, &mut [self.address, self.length, 0, 0])
    }

    fn control<const N: usize>(&self, request: u64, argument: &mut [u64; N]) -> io::Result<()> {
        // SAFETY: the request's number encodes the size of its argument, and the argument has this size.
        let ret = unsafe { libc::ioctl(self.fd.as_raw_fd(), request as libc::Ioctl, argument.as_mut_ptr()) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
