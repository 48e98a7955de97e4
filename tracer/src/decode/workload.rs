//! From the path of a cgroup to the workload that runs there: a systemd unit, a slice, a container, a pod.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::human;

/// What a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WorkloadKind")]
pub enum Kind {
    /// A systemd service or scope.
    Unit,
    /// A systemd slice, its own processes.
    Slice,
    /// A container.
    Container,
    /// A Kubernetes pod, its processes in no container that is known.
    Pod,
    /// A cgroup that is none of these.
    Cgroup,
    /// All that find no series of their own.
    Other,
    /// All whose series ended.
    Ended,
}

impl Kind {
    /// It stands for many workloads.
    pub const fn is_many(self) -> bool {
        matches!(self, Self::Other | Self::Ended)
    }

    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Slice => "slice",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Cgroup => "cgroup",
            Self::Other => "other",
            Self::Ended => "ended",
        }
    }
}

/// What makes containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Docker.
    Docker,
    /// Podman, by libpod.
    Podman,
    /// CRI-O.
    Crio,
    /// containerd, nerdctl's containers among them.
    Containerd,
    /// LXC, Incus.
    Lxc,
}

impl Runtime {
    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::Containerd => "containerd",
            Self::Lxc => "lxc",
        }
    }
}

/// A workload. What does not apply is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// What it is called in every output; two workloads with one name are one.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The innermost systemd service or scope.
    pub unit: String,
    /// The innermost systemd slice around it.
    pub slice: String,
    /// A Kubernetes pod's UID, with hyphens.
    pub pod_uid: String,
    /// A container's whole id.
    pub container_id: String,
    /// What made the container, where the path tells.
    pub runtime: Option<Runtime>,
    /// Who shares seats with other workloads: a top-level unit, a user's slice, a pod, a container.
    pub owner: String,
}

/// Characters of a container's id in a workload's name, as `docker ps` shows it.
const SHORT: usize = 12;

/// Characters of a container's id.
const ID: usize = 64;

/// What runtimes put before a container's id in the name of its cgroup.
const PREFIXES: [(&str, Runtime); 5] = [
    ("docker-", Runtime::Docker),
    ("libpod-", Runtime::Podman),
    ("crio-", Runtime::Crio),
    ("cri-containerd-", Runtime::Containerd),
    ("nerdctl-", Runtime::Containerd),
];

/// Folders of managers between the root and a container, besides slices and pods.
const MANAGED: [&str; 7] = ["docker", "libpod_parent", "lxc", "kubepods", "burstable", "besteffort", "guaranteed"];

/// Folders under which runtimes put containers by their plain ids.
const FOLDERS: [(&str, Runtime); 3] =
    [("docker", Runtime::Docker), ("libpod_parent", Runtime::Podman), ("lxc", Runtime::Lxc)];

impl Workload {
    /// All workloads that find no series of their own.
    pub fn other() -> Self {
        Self::called("other", Kind::Other)
    }

    /// All workloads that are gone, and whose series ended.
    pub fn ended() -> Self {
        Self::called("ended", Kind::Ended)
    }

    fn called(name: impl Into<String>, kind: Kind) -> Self {
        let none = String::new;
        let name = name.into();
        Self {
            owner: name.clone(),
            name,
            kind,
            unit: none(),
            slice: none(),
            pod_uid: none(),
            container_id: none(),
            runtime: None,
        }
    }

    /// The workload at a cgroup's path from its hierarchy's root, such as `/system.slice/fio.service`; [`CUT`] stands for
    /// upper names that are not known.
    ///
    /// Below a unit or a container whoever runs there makes folders and names as he likes, so no name there stands for a
    /// container or a pod of the machine: it is the unit's or container's own.
    pub fn at(path: &str) -> Self {
        // Names are labels, and equal labels are one workload.
        let path = human::seen(path);
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let managed = managed(&names);
        // containerd puts containers below a folder that is its namespace, at the root.
        let in_namespace = managed == 1 && names.get(1).is_some_and(|name| is_id(name)) && names.first() != Some(&"…");
        let outermost = (0..managed).find(|place| container(&names, *place).is_some()).or(in_namespace.then_some(1));
        if let Some(place) = outermost {
            let outer = in_container(&names, place);
            let below = names.get(place + 1..).unwrap_or_default();
            return nested(outer, below);
        }
        if let Some(place) = (0..managed).rev().find(|place| names.get(*place).is_some_and(|name| pod(name).is_some()))
        {
            return in_pod(&names, place);
        }
        of_systemd(&names)
    }
}

/// Before a path whose upper names are not known.
pub const CUT: &str = "/…";

/// Names at the beginning of a path that a manager of the machine made: slices and the folders of container managers, and the
/// first that is none of these.
fn managed(names: &[&str]) -> usize {
    let all = names.iter().take_while(|name| is_managed(name)).count();
    names.len().min(all + 1)
}

/// A folder in which managers put containers.
fn is_managed(name: &str) -> bool {
    is_slice(name) || MANAGED.contains(&name) || pod(name).is_some()
}

/// Inside a container: its name, and that of a container or pod which it makes itself.
fn nested(outer: Workload, below: &[&str]) -> Workload {
    let inner = Workload::at(&format!("/{}", below.join("/")));
    match inner.kind {
        Kind::Container | Kind::Pod => Workload { name: format!("{}/{}", outer.name, inner.name), ..outer },
        _ => outer,
    }
}

/// Id and runtime of the container whose cgroup is the name at that place.
fn container<'a>(names: &[&'a str], place: usize) -> Option<(&'a str, Option<Runtime>)> {
    let name = *names.get(place)?;
    if let Some(id) = name.strip_prefix("lxc.payload.").filter(|id| !id.is_empty()) {
        return Some((id, Some(Runtime::Lxc)));
    }
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = bare.strip_prefix(prefix).filter(|id| is_id(id)) {
            return Some((id, Some(runtime)));
        }
    }
    let folder = place.checked_sub(1).and_then(|above| names.get(above).copied()).unwrap_or_default();
    let runtime = FOLDERS.iter().find(|(name, _)| *name == folder).map(|(_, runtime)| *runtime);
    if runtime == Some(Runtime::Lxc) {
        return Some((name, runtime));
    }
    is_id(name).then_some((name, runtime))
}

fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The UID of the pod whose cgroup has this name: `podUID` by the cgroupfs driver; by systemd's
/// `kubepods-burstable-podUID.slice`, in which the UID's hyphens are underscores, or `kubelet-kubepods-…` in nested clusters.
fn pod(name: &str) -> Option<String> {
    let bare = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once('-').filter(|(above, _)| above.contains("kubepods"))?.1,
        None => name,
    };
    let uid = bare.strip_prefix("pod")?.replace('_', "-");
    // A UUID; static pods have the digest of their manifest.
    let is_hex = uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (is_hex && matches!(uid.len(), 32 | 36)).then_some(uid)
}

fn in_container(names: &[&str], place: usize) -> Workload {
    let (id, runtime) = container(names, place).unwrap_or_default();
    let short: String = if is_id(id) { id.chars().take(SHORT).collect() } else { id.to_owned() };
    let uid = names.iter().take(place).rev().find_map(|name| pod(name)).unwrap_or_default();
    let name = match (uid.as_str(), runtime.map(Runtime::name)) {
        ("", None) => format!("container/{short}"),
        ("", Some(runtime)) => format!("{runtime}/{short}"),
        (uid, _) => format!("pod/{uid}/{short}"),
    };
    let owner = if uid.is_empty() { name.clone() } else { format!("pod/{uid}") };
    Workload {
        slice: innermost(names.get(..place).unwrap_or_default(), is_slice),
        pod_uid: uid,
        container_id: id.to_owned(),
        runtime,
        owner,
        ..Workload::called(name, Kind::Container)
    }
}

fn in_pod(names: &[&str], place: usize) -> Workload {
    let uid = names.get(place).and_then(|name| pod(name)).unwrap_or_default();
    Workload {
        slice: innermost(names.get(..=place).unwrap_or_default(), is_slice),
        pod_uid: uid.clone(),
        ..Workload::called(format!("pod/{uid}"), Kind::Pod)
    }
}

/// A unit is named with the units around it: `user@1000.service/app.service` is not the machine's `app.service`. Below
/// another folder nobody knows who made what looks like one.
fn of_systemd(names: &[&str]) -> Workload {
    let slices = names.iter().take_while(|name| is_slice(name)).count();
    let top = names.get(slices).copied().unwrap_or_default();
    let user = names.iter().take(slices).find(|name| name.starts_with("user-"));
    let owned = |workload: Workload, top: &str| {
        let owner = user.map_or_else(|| top.to_owned(), |user| (*user).to_owned());
        Workload { owner, ..workload }
    };
    if is_unit(top) {
        let units: Vec<&str> = names.iter().copied().filter(|name| is_unit(name)).collect();
        let place = names.iter().rposition(|name| is_unit(name)).unwrap_or_default();
        let unit = Workload {
            unit: innermost(names, is_unit),
            slice: innermost(names.get(..place).unwrap_or_default(), is_slice),
            ..Workload::called(units.join("/"), Kind::Unit)
        };
        return owned(unit, top);
    }
    let slice = innermost(names.get(..slices).unwrap_or_default(), is_slice);
    if slice.is_empty() {
        let name = format!("/{}", names.join("/"));
        let top = format!("/{top}");
        Workload { owner: top, ..Workload::called(name, Kind::Cgroup) }
    } else {
        owned(Workload { slice: slice.clone(), ..Workload::called(slice.clone(), Kind::Slice) }, &slice)
    }
}

fn innermost(names: &[&str], is: fn(&str) -> bool) -> String {
    names.iter().rev().find(|name| is(name)).map_or_else(String::new, |name| (*name).to_owned())
}

fn is_unit(name: &str) -> bool {
    [".service", ".scope"].iter().any(|end| name.strip_suffix(end).is_some_and(|stem| !stem.is_empty()))
}

fn is_slice(name: &str) -> bool {
    name.strip_suffix(".slice").is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests;
