//! What the kernel tells of a program in the fdinfo of its descriptor.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// The text.
pub fn read(program: BorrowedFd<'_>) -> Option<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()
}

/// One number of it; `None` where this kernel does not tell.
pub fn count(program: BorrowedFd<'_>, name: &str) -> Option<u64> {
    number(&read(program)?, name)
}

/// The same, of a text.
pub fn number(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_and_its_absence_is_no_zero() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t12\nverified_insns:\t90\n";
        assert_eq!(number(info, "recursion_misses"), Some(12));
        assert_eq!(number("pos:\t0\nprog_type:\t26\n", "recursion_misses"), None);
    }
}
