//! Privileges of the running service, according to the kernel.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, ensure};

use super::fresh;
use crate::{
    context::Context,
    kernel::Version,
    protocol::{Test, TestResult, Verdict},
};

/// CAP_PERFMON and CAP_BPF, which attaching requires.
const TO_ATTACH: u64 = 1 << 38 | 1 << 39;
/// Since this kernel, maps can be read through an open descriptor without a capability, whatever
/// `unprivileged_bpf_disabled` says.
const READS_WITHOUT: Version = Version(5, 19);

pub fn tests() -> Vec<Test> {
    vec![Test::new("debian_privileges", privileges).within(Duration::from_mins(5))]
}

/// Checks all threads, since each has its own capabilities.
fn privileges(context: &Context) -> TestResult {
    let status = fresh()?;
    let user = user("pinscope").context("there is no user pinscope")?;
    ensure!(user != "0", "the user pinscope is root");
    // It has served a scrape, so it was able to read the maps.
    super::scrape()?;
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{}/task", status.main_pid()))?.flatten().collect();
    ensure!(!tasks.is_empty(), "no threads");
    for task in tasks {
        let text = fs::read_to_string(task.path().join("status"))?;
        let held = parse(&text);
        of_thread(context, &held, &user).with_context(|| format!("thread {}: {held:?}", task.path().display()))?;
    }
    let unit = [("NoNewPrivileges", "yes"), ("ProtectSystem", "strict"), ("ProtectHome", "yes"), ("User", "pinscope")];
    for (name, wanted) in unit {
        ensure!(status.get(name) == wanted, "{name}={}", status.get(name));
    }
    Ok(Verdict::Passed)
}

fn of_thread(context: &Context, held: &BTreeMap<String, Vec<String>>, user: &str) -> anyhow::Result<()> {
    let words = |name: &str| held.get(name).map(Vec::as_slice).unwrap_or_default();
    let mask = |name: &str| words(name).first().and_then(|text| u64::from_str_radix(text, 16).ok());
    ensure!(words("Uid").len() == 4 && words("Uid").iter().all(|id| id == user), "not the user {user}");
    ensure!(words("NoNewPrivs") == ["1"], "it may gain privileges");
    ensure!(words("Seccomp") == ["2"], "no filter for system calls");
    let bound = mask("CapBnd").context("no CapBnd")?;
    ensure!(bound & !TO_ATTACH == 0, "bounded by {bound:x}");
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        let held = mask(name).with_context(|| format!("no {name}"))?;
        let needed = if context.kernel.version < READS_WITHOUT { TO_ATTACH } else { 0 };
        ensure!(held & !needed == 0, "{name} is {held:x} after attaching");
    }
    Ok(())
}

fn parse(status: &str) -> BTreeMap<String, Vec<String>> {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, rest)| (name.to_owned(), rest.split_whitespace().map(str::to_owned).collect())).collect()
}

/// Id of a user.
fn user(name: &str) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().map(|line| line.split(':').collect()).find_map(|fields: Vec<_>| match fields.as_slice() {
        [found, _, number, ..] if *found == name => Some((*number).to_owned()),
        _ => None,
    })
}
