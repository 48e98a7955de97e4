//! What tracefs lists: the functions that ftrace can hook, and the tracepoints.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader},
};

use super::{
    Known, Sources, Unknown,
    mounts::{self, Lookup},
    symbols::each_line,
};

/// `available_filter_functions`, as far as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traceable {
    /// Those of the functions asked for that are in the list.
    List(BTreeSet<String>),
    /// The kernel is built without function tracing: it has no such list.
    NoFtrace,
    /// The list could not be read, and why.
    Unknown(String),
}

impl Traceable {
    /// Reads the list from tracefs, which need not be mounted.
    pub fn read(sources: &Sources, functions: &[&str]) -> Self {
        match open(sources, "available_filter_functions") {
            Lookup::Found(file) => match parse(BufReader::new(file), functions) {
                Ok(list) => Self::List(list),
                Err(error) => Self::Unknown(format!("available_filter_functions: {error}")),
            },
            Lookup::Absent => Self::NoFtrace,
            Lookup::Unknown(reason) => Self::Unknown(reason),
        }
    }
}

/// Whether there is a tracepoint of this group and name.
pub(super) fn has_event(sources: &Sources, event: &str) -> Known<bool> {
    match open(sources, &format!("events/{event}/id")) {
        Lookup::Found(_) => Ok(true),
        Lookup::Absent => Ok(false),
        Lookup::Unknown(reason) => Err(Unknown(reason)),
    }
}

fn open(sources: &Sources, name: &str) -> Lookup {
    let mounts = [sources.sys.join("kernel/tracing"), sources.sys.join("kernel/debug/tracing")];
    mounts::open("tracefs", &mounts, "trace_options", name, sources.ask_kernel)
}

pub(crate) fn parse(lines: impl BufRead, functions: &[&str]) -> io::Result<BTreeSet<String>> {
    let mut list = BTreeSet::new();
    each_line(lines, |line| {
        // A function of a module is followed by the module's name in brackets.
        if functions.contains(&line) {
            list.insert(line.to_owned());
        }
    })?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sources() -> (tempfile::TempDir, Sources) {
        let root = tempfile::tempdir().expect("a folder");
        let sys = root.path().join("sys");
        fs::create_dir_all(sys.join("kernel/tracing")).expect("a mount point");
        let sources = Sources { proc: root.path().join("proc"), sys, boot: root.path().into(), ask_kernel: false };
        (root, sources)
    }

    #[test]
    fn an_empty_mount_point_is_not_a_kernel_without_ftrace() {
        let (_root, sources) = sources();
        assert_eq!(Traceable::read(&sources, &[]), Traceable::Unknown("tracefs is not mounted".to_owned()));
        fs::write(sources.sys.join("kernel/tracing/trace_options"), "").expect("a marker");
        assert_eq!(Traceable::read(&sources, &[]), Traceable::NoFtrace);
    }

    #[test]
    fn only_the_functions_asked_for_are_kept() {
        let (_root, sources) = sources();
        let list = "io_sqe_buffers_register\nvfs_read\ngup_vma_lookup [kvm]\n";
        fs::write(sources.sys.join("kernel/tracing/available_filter_functions"), list).expect("a list");
        assert_eq!(
            Traceable::read(&sources, &["io_sqe_buffers_register", "gup_vma_lookup"]),
            Traceable::List(BTreeSet::from(["io_sqe_buffers_register".to_owned()]))
        );
    }
}
