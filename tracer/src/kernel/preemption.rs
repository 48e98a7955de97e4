//! Whether a task can be preempted inside the kernel, and so inside a program of ours.

use std::{fs, io::Read as _};

use super::{
    Sources,
    mounts::{self, Lookup},
};

/// Whether the kernel preempts tasks inside itself, and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// It does, or it cannot be told that it does not.
    pub possible: bool,
    /// How that is known, in one clause.
    pub why: String,
}

impl Preemption {
    /// From `uname -v`, whose words name how the kernel was built; where that leaves it open, from the mode in force.
    pub(super) fn read(sources: &Sources, version: &str, release: &str) -> Self {
        let built = version.split_whitespace().find(|word| word.starts_with("PREEMPT"));
        match built {
            None => told(false, "the kernel is built without preemption"),
            Some("PREEMPT_DYNAMIC") => mode(sources, release),
            Some(word) => told(true, format!("uname -v says {word}")),
        }
    }
}

fn told(possible: bool, why: impl Into<String>) -> Preemption {
    Preemption { possible, why: why.into() }
}

/// Of a kernel whose mode is chosen when it boots, and can be changed by the file in debugfs.
fn mode(sources: &Sources, release: &str) -> Preemption {
    let by = |mode: &str, source: &str| told(preempts(mode), format!("its mode is {mode} ({source})"));
    if let Some(mode) = in_force(sources) {
        return by(&mode, "sched/preempt in debugfs");
    }
    let command_line = fs::read_to_string(sources.proc.join("cmdline")).unwrap_or_default();
    if let Some(mode) = command_line.split_whitespace().rev().find_map(|word| word.strip_prefix("preempt=")) {
        return by(mode, "preempt= on the kernel's command line");
    }
    let configuration = sources.boot.join(format!("config-{release}"));
    let configured = fs::read_to_string(&configuration).unwrap_or_default();
    match MODES.iter().find(|(option, _)| configured.lines().any(|line| line == *option)) {
        Some((_, mode)) => by(mode, &configuration.display().to_string()),
        None => told(true, "uname -v says PREEMPT_DYNAMIC, and the mode in force cannot be read"),
    }
}

/// The mode that a kernel boots with, by its configuration.
const MODES: [(&str, &str); 4] = [
    ("CONFIG_PREEMPT_NONE=y", "none"),
    ("CONFIG_PREEMPT_VOLUNTARY=y", "voluntary"),
    ("CONFIG_PREEMPT=y", "full"),
    ("CONFIG_PREEMPT_LAZY=y", "lazy"),
];

/// Lazy preemption waits for a tick, and then does preempt.
fn preempts(mode: &str) -> bool {
    !matches!(mode, "none" | "voluntary")
}

/// The mode in brackets: `none voluntary (full) lazy`.
fn in_force(sources: &Sources) -> Option<String> {
    let mounts = [sources.sys.join("kernel/debug")];
    let mut text = String::new();
    match mounts::open("debugfs", &mounts, "sched", "sched/preempt", sources.ask_kernel) {
        Lookup::Found(mut file) => file.read_to_string(&mut text).ok()?,
        Lookup::Absent | Lookup::Unknown(_) => return None,
    };
    let mode = text.split_once('(')?.1.split_once(')')?.0;
    Some(mode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_preempts_unless_it_is_known_not_to() {
        let root = tempfile::tempdir().expect("a folder");
        let (proc, sys, boot) = (root.path().join("proc"), root.path().join("sys"), root.path().join("boot"));
        let sources = Sources { proc: proc.clone(), sys: sys.clone(), boot: boot.clone(), ask_kernel: false };
        let possible = |version: &str| Preemption::read(&sources, version, "6.18").possible;
        assert!(!possible("#1 SMP Debian 6.1.140-1 (2025-05-22)"));
        assert!(possible("#1 SMP PREEMPT Debian") && possible("#1 SMP PREEMPT_RT Debian"));
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1";
        assert!(possible(dynamic));
        // Each is asked before the ones above it.
        fs::create_dir_all(&boot).expect("a folder");
        fs::write(boot.join("config-6.18"), "# CONFIG_PREEMPT=y\nCONFIG_PREEMPT_VOLUNTARY=y\n").expect("a file");
        assert!(!possible(dynamic));
        fs::create_dir_all(&proc).expect("a folder");
        fs::write(proc.join("cmdline"), "quiet preempt=none preempt=full\n").expect("a file");
        assert!(possible(dynamic));
        let debug = sys.join("kernel/debug/sched");
        fs::create_dir_all(&debug).expect("a folder");
        for (modes, expected) in [("none (voluntary) full\n", false), ("full (lazy) \n", true)] {
            fs::write(debug.join("preempt"), modes).expect("a file");
            assert_eq!(possible(dynamic), expected, "{modes}");
        }
    }
}
