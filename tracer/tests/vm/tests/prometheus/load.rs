//! Load that runs while Prometheus scrapes: fio in several kinds of memory and the generators, each as a unit of its
//! own, with an account of all calls.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::server::INTERVAL;
use crate::{
    call_counts::CallCounts,
    generate,
    pinscope::{Running, piped},
    scenario::Account,
    sys::PAGE,
    systemd::{last_words, succeed},
};

/// Minimum duration of the load.
pub const SECONDS: u64 = 60;
/// Folder of the accounts.
const ACCOUNTS: &str = "/run/load";
/// File that fio reads.
const DATA: &str = "/mnt/ext4/fio-data";
const TIME: Duration = Duration::from_mins(8);
/// Number of buffers that each fio job registers, of one page each.
const DEPTH: u64 = 8;

/// A fio job: memory, backing, and whether the kernel refuses it.
struct Job {
    name: &'static str,
    memory: &'static str,
    class: &'static str,
    refused: bool,
}

const JOBS: [Job; 5] = [
    Job { name: "malloc", memory: "malloc", class: "anon", refused: false },
    Job { name: "mmap", memory: "mmap", class: "anon", refused: false },
    Job { name: "shm", memory: "shm", class: "shmem", refused: false },
    Job { name: "huge", memory: "mmaphuge:/mnt/huge/fio", class: "hugetlb", refused: false },
    Job { name: "file", memory: "mmapshared:/mnt/ext4/fio-memory", class: "file", refused: true },
];

/// Scenarios with their options; each accounts for all of its calls.
const SCENARIOS: [(&str, &[&str]); 8] = [
    ("setup_only", &["--seconds", "60"]),
    ("switch_sets", &["--count", "300"]),
    ("update_slots", &["--count", "300"]),
    ("many_rings", &[]),
    ("many_vmas", &["--count", "50", "--vmas", "64"]),
    ("two_memfds", &["--count", "20"]),
    ("private_file", &["--count", "20"]),
    ("shared_file", &["--count", "20"]),
];

/// Totals of the load.
#[derive(Default)]
pub struct Load {
    pub results: CallCounts,
    /// Of registers and updates, like all figures below.
    pub buffers: u64,
    pub bytes: u64,
    pub vmas: u64,
    /// Sum over the buffers.
    pub buffers_vmas: u64,
    /// Buffers, VMAs and bytes by class of backing.
    pub classes: BTreeMap<String, [u64; 3]>,
    /// Registers, updates and clones of each unit: successful and failed ones.
    pub units: BTreeMap<String, [u64; 2]>,
}

impl Load {
    /// Runs all of the load at the same time, until the last unit has ended.
    pub fn run() -> anyhow::Result<Self> {
        let _ = fs::remove_dir_all(ACCOUNTS);
        fs::create_dir_all(ACCOUNTS)?;
        // The file is complete beforehand, so that no job writes it first.
        succeed(&["truncate", "--size=1M", DATA])?;
        let mut units = Vec::new();
        for job in &JOBS {
            let name = format!("load-fio-{}", job.name);
            units.push((start(&name, &fio(job))?, name, job.refused));
        }
        for (name, options) in SCENARIOS {
            let account = account(name);
            let words = [&["scenario", name, "--out", &account], options].concat();
            units.push((start(&unit(name), &ourselves(&words)?)?, unit(name), false));
        }
        for (running, name, refused) in units {
            let code = finish(running, &name)?;
            ensure!((code != 0) == refused, "{name} ended with {code}: {}", last_words(&name)?);
        }
        let mut load = Self::default();
        for (name, _) in SCENARIOS {
            load.add(&unit(name), &Account::read(&account(name))?);
        }
        for job in &JOBS {
            load.add_fio(job);
        }
        Ok(load)
    }

    fn add(&mut self, unit: &str, account: &Account) {
        let count = |result| ["register", "update", "clone"].map(|operation| account.results.count(operation, result));
        let installed = count("ok").iter().sum();
        self.units.insert(format!("{unit}.service"), [installed, account.failed]);
        self.results.merge(&account.results);
        self.buffers += account.buffers;
        self.bytes += account.bytes;
        self.vmas += account.vmas;
        self.buffers_vmas += account.buffers_vmas;
        for under in &account.backings {
            self.add_class(&under.backing.class, [under.buffers, under.vmas, under.bytes]);
        }
    }

    /// fio registers once, and its ring ends with it. The kernel refuses a table at its first buffer.
    fn add_fio(&mut self, job: &Job) {
        let (result, buffers) = if job.refused { ("EFAULT", 1) } else { ("ok", DEPTH) };
        self.results.add("register", result, 1);
        self.units.insert(format!("load-fio-{}.service", job.name), [u64::from(!job.refused), u64::from(job.refused)]);
        self.buffers += buffers;
        self.bytes += buffers * PAGE;
        // All of its buffers are in one allocation.
        self.vmas += 1;
        self.buffers_vmas += buffers;
        self.add_class(job.class, [buffers, buffers, buffers * PAGE]);
    }

    fn add_class(&mut self, class: &str, more: [u64; 3]) {
        let counts = self.classes.entry(class.to_owned()).or_default();
        for (count, more) in counts.iter_mut().zip(more) {
            *count += more;
        }
    }
}

/// Random calls, about half of which are refused; their sizes are in no account.
pub fn storm() -> anyhow::Result<CallCounts> {
    let account = account("storm");
    let words = ["gen", "--out", &account, "storm", "--threads", "4", "--count", "20000", "--seed", "11"];
    let code = finish(start("load-storm", &ourselves(&words)?)?, "load-storm")?;
    ensure!(code == 0, "the storm ended with {code}: {}", last_words("load-storm")?);
    generate::read(&account)
}

fn account(name: &str) -> String {
    format!("{ACCOUNTS}/{name}.json")
}

fn unit(scenario: &str) -> String {
    format!("load-{}", scenario.replace('_', "-"))
}

fn ourselves(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let binary = std::env::current_exe()?.display().to_string();
    Ok([binary].into_iter().chain(arguments.iter().map(|&argument| argument.to_owned())).collect())
}

fn fio(job: &Job) -> Vec<String> {
    let words = [
        "/usr/bin/fio",
        &format!("--name={}", job.name),
        "--ioengine=io_uring",
        "--fixedbufs=1",
        &format!("--iodepth={DEPTH}"),
        "--rw=randread",
        "--bs=4k",
        "--size=1M",
        &format!("--filename={DATA}"),
        // Its presence suffices; the machine has other work to do.
        "--rate_iops=20",
        "--time_based",
        &format!("--runtime={SECONDS}"),
        &format!("--mem={}", job.memory),
    ];
    words.map(str::to_owned).to_vec()
}

/// Starts a command as a unit of this name, and records its exit code. The unit outlives its command by a few scrapes:
/// once its cgroup is removed, its name is unknown.
fn start(name: &str, words: &[String]) -> anyhow::Result<Running> {
    let script = format!("\"$@\"; echo $? >{}; sleep {}", ending(name), 3 * INTERVAL);
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "--wait", &format!("--unit={name}"), "--"]);
    command.args(["/bin/sh", "-c", &script, "sh"]).args(words);
    Running::start(piped(&mut command)).context(name.to_owned())
}

/// Waits for a unit and returns its command's exit code. (`exit $code` in the script would not work: systemd
/// substitutes its own variable, which is empty.)
fn finish(running: Running, name: &str) -> anyhow::Result<i32> {
    running.finish(TIME)?;
    let path = ending(name);
    let text = fs::read_to_string(&path).with_context(|| format!("{path}: {name} did not run to its end"))?;
    Ok(text.trim().parse()?)
}

fn ending(unit: &str) -> String {
    format!("{ACCOUNTS}/{unit}.ending")
}
