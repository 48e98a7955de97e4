//! Switches that keep hooks from firing, and let them attach all the same.

use std::{fs, io::Read as _};

use super::{
    Sources, Unknown,
    mounts::{self, Lookup},
};

/// What is switched off. What cannot be read is taken to be on: it is by default, and a kernel without the switch has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `kernel.ftrace_enabled` is 0: trampolines and kprobes at functions' entries do not fire. Programs that were attached
    /// meanwhile make the kernel warn when they go, and nothing attaches any more until the machine boots again (seen on 7.3).
    pub ftrace_off: bool,
    /// `kprobes/enabled` in debugfs is 0: no kprobe fires.
    pub kprobes_off: bool,
}

impl Switches {
    /// Reads both.
    pub(super) fn read(sources: &Sources) -> Self {
        let ftrace = fs::read_to_string(sources.proc.join("sys/kernel/ftrace_enabled"));
        Self {
            ftrace_off: ftrace.is_ok_and(|text| text.trim() == "0"),
            kprobes_off: kprobes(sources).is_ok_and(|text| text.trim() == "0"),
        }
    }
}

fn kprobes(sources: &Sources) -> Result<String, Unknown> {
    let mounts = [sources.sys.join("kernel/debug")];
    match mounts::open("debugfs", &mounts, "kprobes", "kprobes/enabled", sources.ask_kernel) {
        Lookup::Found(mut file) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(|error| Unknown::new("kprobes/enabled", error))?;
            Ok(text)
        }
        Lookup::Absent => Err(Unknown("the kernel has no such switch".to_owned())),
        Lookup::Unknown(reason) => Err(Unknown(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_off_only_where_it_says_so() {
        let root = tempfile::tempdir().expect("a folder");
        let sources = Sources {
            proc: root.path().into(),
            sys: root.path().join("sys"),
            boot: root.path().into(),
            ask_kernel: false,
        };
        assert_eq!(Switches::read(&sources), Switches::default());
        let (kernel, probes) = (root.path().join("sys/kernel"), root.path().join("sys/kernel/debug/kprobes"));
        fs::create_dir_all(&probes).expect("folders");
        for (value, off) in [("1\n", false), ("0\n", true)] {
            fs::write(kernel.join("ftrace_enabled"), value).expect("a file");
            fs::write(probes.join("enabled"), value).expect("a file");
            assert_eq!(Switches::read(&sources), Switches { ftrace_off: off, kprobes_off: off });
        }
    }
}
