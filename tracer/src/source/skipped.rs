//! Runs of programs that the kernel skipped.
//!
//! A tracing program does not run while it is running already on the same CPU: a task that preempts another inside the
//! program gets none, and nothing in the program can tell. The kernel counts such runs for each program since 5.12
//! (`recursion_misses`; of kprobes and classic tracepoints since 6.7), and shows the count in the fdinfo of the
//! program's descriptor.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::Ebpf;

/// Skipped runs by program, for the programs that are loaded and of which the kernel tells.
pub fn read(ebpf: &Ebpf) -> BTreeMap<String, u64> {
    let loaded = ebpf.programs().filter_map(|(name, program)| Some((name, program.fd().ok()?.as_fd().as_raw_fd())));
    let told = loaded.filter_map(|(name, fd)| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        Some((name.to_owned(), parse(&info)?))
    });
    told.collect()
}

fn parse(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_and_its_absence_is_no_zero() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t12\nverified_insns:\t90\n";
        assert_eq!(parse(info), Some(12));
        assert_eq!(parse("pos:\t0\nprog_type:\t26\n"), None);
    }
}
