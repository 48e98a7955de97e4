use proptest::prelude::*;

use super::*;

const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const POD: &str = "2f1ab5d4-8d4c-4b8e-9c53-6a3f0a7c1e22";

/// Path, name, kind, unit, slice, pod, container, runtime; `{A}` and so on stand for ids.
type Row<'a> = (&'a str, &'a str, Kind, &'a str, &'a str, &'a str, &'a str, &'a str);

fn fill(text: &str) -> String {
    let underscored = POD.replace('-', "_");
    text.replace("{A}", A).replace("{B}", B).replace("{POD}", POD).replace("{P_D}", &underscored)
}

fn check(rows: &[Row<'_>]) {
    for (path, name, kind, unit, slice, pod_uid, container_id, runtime) in rows {
        let expected = Workload {
            name: fill(name),
            kind: *kind,
            unit: fill(unit),
            slice: fill(slice),
            pod_uid: fill(pod_uid),
            container_id: fill(container_id),
            runtime: [Runtime::Docker, Runtime::Podman, Runtime::Crio, Runtime::Containerd, Runtime::Lxc]
                .into_iter()
                .find(|one| one.name() == *runtime),
            owner: Workload::at(&fill(path)).owner,
        };
        assert_eq!(Workload::at(&fill(path)), expected, "{path}");
    }
}

#[test]
fn systemd() {
    use Kind::{Cgroup, Slice, Unit};
    check(&[
        ("/system.slice/fio.service", "fio.service", Unit, "fio.service", "system.slice", "", "", ""),
        ("/system.slice/fio.service/worker/3", "fio.service", Unit, "fio.service", "system.slice", "", "", ""),
        (
            "/system.slice/system-postgresql.slice/postgresql@15-main.service",
            "postgresql@15-main.service",
            Unit,
            "postgresql@15-main.service",
            "system-postgresql.slice",
            "",
            "",
            "",
        ),
        (
            "/user.slice/user-1000.slice/session-3.scope",
            "session-3.scope",
            Unit,
            "session-3.scope",
            "user-1000.slice",
            "",
            "",
            "",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
            "user@1000.service/vte-spawn-1.scope",
            Unit,
            "vte-spawn-1.scope",
            "app-org.gnome.Terminal.slice",
            "",
            "",
            "",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "user@1000.service/init.scope",
            Unit,
            "init.scope",
            "user-1000.slice",
            "",
            "",
            "",
        ),
        (
            "/machine.slice/systemd-nspawn@c1.service/payload/system.slice/nginx.service",
            "systemd-nspawn@c1.service/nginx.service",
            Unit,
            "nginx.service",
            "system.slice",
            "",
            "",
            "",
        ),
        (
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/vcpu0",
            "machine-qemu\\x2d1\\x2dvm.scope",
            Unit,
            "machine-qemu\\x2d1\\x2dvm.scope",
            "machine.slice",
            "",
            "",
            "",
        ),
        ("/init.scope", "init.scope", Unit, "init.scope", "", "", "", ""),
        ("/user.slice", "user.slice", Slice, "", "user.slice", "", "", ""),
        ("/user.slice/user-0.slice", "user-0.slice", Slice, "", "user-0.slice", "", "", ""),
        ("/", "/", Cgroup, "", "", "", "", ""),
        ("", "/", Cgroup, "", "", "", "", ""),
        ("/batch/job17", "/batch/job17", Cgroup, "", "", "", "", ""),
        ("/.service/.slice", "/.service/.slice", Cgroup, "", "", "", "", ""),
    ]);
}

#[test]
fn containers() {
    use Kind::Container;
    check(&[
        ("/system.slice/docker-{A}.scope", "docker/0123456789ab", Container, "", "system.slice", "", "{A}", "docker"),
        (
            "/system.slice/docker-{A}.scope/system.slice/nginx.service",
            "docker/0123456789ab",
            Container,
            "",
            "system.slice",
            "",
            "{A}",
            "docker",
        ),
        ("/docker/{A}", "docker/0123456789ab", Container, "", "", "", "{A}", "docker"),
        ("/docker/{A}/init", "docker/0123456789ab", Container, "", "", "", "{A}", "docker"),
        (
            "/machine.slice/libpod-{A}.scope/container",
            "podman/0123456789ab",
            Container,
            "",
            "machine.slice",
            "",
            "{A}",
            "podman",
        ),
        ("/libpod_parent/libpod-{A}", "podman/0123456789ab", Container, "", "", "", "{A}", "podman"),
        ("/default/{A}", "container/0123456789ab", Container, "", "", "", "{A}", ""),
        (
            "/system.slice/nerdctl-{A}.scope",
            "containerd/0123456789ab",
            Container,
            "",
            "system.slice",
            "",
            "{A}",
            "containerd",
        ),
        ("/lxc.payload.web1/system.slice/nginx.service", "lxc/web1", Container, "", "", "", "web1", "lxc"),
        ("/lxc/web1", "lxc/web1", Container, "", "", "", "web1", "lxc"),
    ]);
}

#[test]
fn kubernetes() {
    use Kind::{Container, Pod};
    let slice = "kubepods-burstable-pod{P_D}.slice";
    check(&[
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{P_D}.slice/cri-containerd-{A}.scope",
            "pod/{POD}/0123456789ab",
            Container,
            "",
            slice,
            "{POD}",
            "{A}",
            "containerd",
        ),
        (
            "/kubepods.slice/kubepods-pod{P_D}.slice/crio-{A}.scope/container",
            "pod/{POD}/0123456789ab",
            Container,
            "",
            "kubepods-pod{P_D}.slice",
            "{POD}",
            "{A}",
            "crio",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{P_D}.slice/docker-{A}.scope",
            "pod/{POD}/0123456789ab",
            Container,
            "",
            "kubepods-besteffort-pod{P_D}.slice",
            "{POD}",
            "{A}",
            "docker",
        ),
        ("/kubepods/burstable/pod{POD}/{A}", "pod/{POD}/0123456789ab", Container, "", "", "{POD}", "{A}", ""),
        ("/kubepods/pod{POD}/{A}", "pod/{POD}/0123456789ab", Container, "", "", "{POD}", "{A}", ""),
        ("/kubepods/burstable/pod{POD}", "pod/{POD}", Pod, "", "", "{POD}", "", ""),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{P_D}.slice",
            "pod/{POD}",
            Pod,
            "",
            slice,
            "{POD}",
            "",
            "",
        ),
        // A static pod, whose UID is a digest.
        (
            "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/{A}",
            "pod/0123456789abcdef0123456789abcdef/0123456789ab",
            Container,
            "",
            "",
            "0123456789abcdef0123456789abcdef",
            "{A}",
            "",
        ),
        // A cluster inside a container (kind): what that makes is its own.
        (
            "/system.slice/docker-{B}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{P_D}.slice/cri-containerd-{A}.scope",
            "docker/fedcba987654/pod/{POD}/0123456789ab",
            Container,
            "",
            "system.slice",
            "",
            "{B}",
            "docker",
        ),
    ]);
}

#[test]
fn what_only_looks_like_one() {
    for (path, kind) in [
        ("/docker/buildx", Kind::Cgroup),
        ("/podcast", Kind::Cgroup),
        ("/system.slice/docker.service", Kind::Unit),
        ("/system.slice/docker-0123.scope", Kind::Unit),
        ("/podgarbage.slice", Kind::Slice),
        ("/kubepods.slice", Kind::Slice),
        // The monitor of a container, outside of it.
        (&format!("/machine.slice/libpod-conmon-{A}.scope"), Kind::Unit),
        (&format!("/system.slice/crio-conmon-{A}.scope"), Kind::Unit),
        (&format!("/{}", &A[1..]), Kind::Cgroup),
        (&format!("/{}", A.to_uppercase()), Kind::Cgroup),
    ] {
        assert_eq!(Workload::at(path).kind, kind, "{path}");
    }
}

/// Where whoever runs there makes the names, none of them is that of the machine's container or pod.
#[test]
fn names_cannot_be_forged() {
    let docker = format!("docker-{A}.scope");
    let pod = format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-{A}.scope", POD.replace('-', "_"));
    let user = "/user.slice/user-1000.slice/user@1000.service";
    let real = [format!("/system.slice/{docker}"), format!("/{pod}"), format!("/docker/{A}"), "/lxc/web1".to_owned()];
    let real = real.map(|path| Workload::at(&path));
    for below in
        [docker.clone(), pod.clone(), format!("docker/{A}"), format!("kubepods/pod{POD}"), "lxc/web1".to_owned()]
    {
        for above in [
            user.to_owned(),
            format!("{user}/app.slice"),
            format!("{user}/app.slice/x.service"),
            format!("/system.slice/docker-{B}.scope"),
            format!("/system.slice/docker-{B}.scope/system.slice"),
            "/system.slice/cron.service".to_owned(),
            "/batch".to_owned(),
            CUT.to_owned(),
        ] {
            let forged = Workload::at(&format!("{above}/{below}"));
            for real in &real {
                assert_ne!(forged.name, real.name, "{above}/{below}");
                assert!(forged.container_id != real.container_id || forged.container_id.is_empty(), "{above}/{below}");
            }
            assert!(forged.pod_uid.is_empty(), "{above}/{below}");
        }
    }
    // Nor is a unit the machine's.
    for above in [user, "/batch", CUT] {
        assert_ne!(Workload::at(&format!("{above}/fio.service")).name, "fio.service");
    }
}

#[test]
fn seats_are_shared_by_owner() {
    let owner = |path: &str| Workload::at(&fill(path)).owner;
    for (path, expected) in [
        ("/system.slice/fio.service/worker", "fio.service"),
        ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main.service"),
        ("/user.slice/user-1000.slice/session-3.scope", "user-1000.slice"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/run-7.scope", "user-1000.slice"),
        ("/machine.slice/systemd-nspawn@c1.service/payload/system.slice/nginx.service", "systemd-nspawn@c1.service"),
        ("/system.slice/docker-{A}.scope/system.slice/x.service", "docker/0123456789ab"),
        ("/system.slice/docker-{A}.scope/docker/{B}", "docker/0123456789ab"),
        ("/kubepods/burstable/pod{POD}/{A}", "pod/{POD}"),
        ("/kubepods/burstable/pod{POD}/{B}", "pod/{POD}"),
        ("/user.slice", "user.slice"),
        ("/batch/job17", "/batch"),
        ("/batch/job18/x", "/batch"),
    ] {
        assert_eq!(owner(path), fill(expected), "{path}");
    }
}

/// Names as they are, and whatever else a folder can be called.
fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^/]{0,20}",
        "[a-z@-]{0,8}(\\.service|\\.scope|\\.slice)",
        "(docker|libpod|crio|cri-containerd)-[0-9a-f]{63,65}(\\.scope)?",
        "(kubepods-)?(burstable-)?pod[0-9a-f_-]{30,38}(\\.slice)?",
        "[0-9a-f]{64}",
        "(docker|lxc|libpod_parent|kubepods)",
    ]
}

#[test]
fn a_name_that_shows_nothing_of_itself_is_none_of_a_label() {
    let workload = Workload::at("/system.slice/a\x1b\r\u{202e}.service");
    assert_eq!(workload.name, "a\u{fffd}\u{fffd}\u{fffd}.service");
    assert_eq!(workload, Workload::at("/system.slice/a\x07\n\u{200f}.service"));
}

proptest! {
    #[test]
    fn any_path_is_a_workload(names in prop::collection::vec(a_name(), 0..9), path in any::<String>()) {
        for path in [format!("/{}", names.join("/")), path] {
            let workload = Workload::at(&path);
            prop_assert!(!workload.name.is_empty());
            // Nothing a folder is called makes it one of those that stand for many.
            prop_assert!(!["other", "ended"].contains(&workload.name.as_str()));
            prop_assert!(!workload.kind.is_many());
            let is_container = workload.kind == Kind::Container;
            prop_assert_eq!(workload.container_id.is_empty(), !is_container);
            prop_assert_eq!(workload.unit.is_empty(), workload.kind != Kind::Unit);
        }
    }

    #[test]
    fn what_lies_below_a_unit_is_the_unit(below in "[a-z0-9]{1,10}") {
        prop_assert_eq!(Workload::at(&format!("/system.slice/a.service/{below}")), Workload::at("/system.slice/a.service"));
    }
}
