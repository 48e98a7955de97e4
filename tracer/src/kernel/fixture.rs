//! Kernels as plain facts, for the tests of what is built on them. Prototypes and offsets as in their BTF.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Facts, Lockdown, Preemption, Privileges, Prototype, Release, Symbols, Traceable, Trial, Types,
    symbols::{self, Symbol},
};
use crate::probe::{offsets, table};

const REGISTER: &str = "int (struct io_ring_ctx *, void *, unsigned int, u64 *)";
const UPDATE: &str = "int (struct io_ring_ctx *, void *, unsigned int, unsigned int)";
const CLONE: &str = "int (struct io_ring_ctx *, void *)";
const UNREGISTER: &str = "int (struct io_ring_ctx *)";
const RELEASE: (&str, &str) = ("__io_sqe_buffers_unregister", "void (struct io_ring_ctx *)");
const BUFFER_INT: &str = "int (struct io_ring_ctx *, struct iovec *, struct io_mapped_ubuf **, struct page **)";
const BUFFER_NODE: &str = "struct io_rsrc_node * (struct io_ring_ctx *, struct iovec *, struct page **)";
const BUFFER_LAST: &str = "struct io_rsrc_node * (struct io_ring_ctx *, struct iovec *)";
const PIN_PAGES: &str = "struct page ** (unsigned long, unsigned long, int *)";
const PIN_VMAS: &str = "long (unsigned long, unsigned long, unsigned int, struct page **, struct vm_area_struct **)";
const PIN: &str = "long (unsigned long, unsigned long, unsigned int, struct page **)";
const LOOKUP: &str = "struct vm_area_struct * (struct mm_struct *, unsigned long)";
const CHECK: &str = "int (struct vm_area_struct *, unsigned long)";

const FAULT: &str = "vm_fault_t (struct vm_area_struct *, unsigned long, unsigned int, struct pt_regs *)";
const CALL: (&str, &str) = ("__x64_sys_io_uring_register", "long (struct pt_regs *)");
const ACCOUNT: &str = "int (struct user_struct *, unsigned long)";

const LOCK_WANTED: &str = "void (struct mm_struct *:mm, bool:write)";
const LOCK_RETURNED: &str = "void (struct mm_struct *:mm, bool:write, bool:success)";
const LOCK_WANTED_6_12: &str = "void (struct mm_struct *:mm, char *:memcg_path, bool:write)";
const LOCK_RETURNED_6_12: &str = "void (struct mm_struct *:mm, char *:memcg_path, bool:write, bool:success)";

const LEDGER: &str = "void (void *:ctx, unsigned int:opcode, unsigned int:nr_files, unsigned int:nr_bufs, long:ret)";
const LEDGER_5_10: &str =
    "void (void *:ctx, unsigned int:opcode, unsigned int:nr_files, unsigned int:nr_bufs, bool:eventfd, long:ret)";
const CREATE: &str = "void (int:fd, void *:ctx, u32:sq_entries, u32:cq_entries, u32:flags)";

/// Every kernel here, by the name of its release.
pub(crate) fn all() -> Vec<Facts> {
    vec![debian_5_10(), debian_6_1(), debian_6_12(), debian_6_16(), debian_7_0(), debian_7_2(), debian_7_3()]
}

pub(crate) fn debian_5_10() -> Facts {
    let functions = [
        ("io_sqe_buffers_register", REGISTER),
        ("io_register_rsrc_update", UPDATE),
        CALL,
        ("io_sqe_buffer_register", BUFFER_INT),
        ("pin_user_pages", PIN_VMAS),
        ("find_extend_vma", LOOKUP),
        ("handle_mm_fault", FAULT),
    ];
    let mut facts = kernel("5.10.0-32-cloud-amd64", &functions, LEDGER_5_10);
    let types = facts.types.as_mut().expect("types");
    types.helpers.clear();
    types.structs.clear();
    types.tracepoints.retain(|name, _| !name.starts_with("mmap_lock"));
    for member in [offsets::TASK_STORAGE, "io_rsrc_node.buf", "io_mapped_ubuf.folio_shift", "io_ring_ctx.buf_table"] {
        types.offsets.remove(member);
    }
    mark(&mut facts, symbols::MEMLOCK);
    facts
}

pub(crate) fn debian_6_1() -> Facts {
    let functions = [
        ("io_sqe_buffers_register", REGISTER),
        ("io_register_rsrc_update", UPDATE),
        ("io_sqe_buffers_unregister", UNREGISTER),
        CALL,
        RELEASE,
        ("io_sqe_buffer_register", BUFFER_INT),
        ("io_pin_pages", PIN_PAGES),
        ("pin_user_pages", PIN_VMAS),
        ("check_vma_flags", CHECK),
        ("find_extend_vma", LOOKUP),
        ("handle_mm_fault", FAULT),
        ("__io_account_mem", ACCOUNT),
    ];
    let mut facts = with_memcg_path(kernel("6.1.0-40-cloud-amd64", &functions, LEDGER));
    let types = facts.types.as_mut().expect("types");
    types.structs.clear();
    for member in ["io_rsrc_node.buf", "io_mapped_ubuf.folio_shift", "io_ring_ctx.buf_table"] {
        types.offsets.remove(member);
    }
    facts
}

pub(crate) fn debian_6_12() -> Facts {
    let mut facts = with_memcg_path(since_6_12("6.12.107+deb13-cloud-amd64", BUFFER_INT));
    let types = facts.types.as_mut().expect("types");
    types.offsets.remove("io_rsrc_node.buf");
    types.offsets.remove("io_ring_ctx.buf_table");
    types.functions.insert(RELEASE.0.to_owned(), vec![Prototype::parse(RELEASE.1)]);
    mark(&mut facts, RELEASE.0);
    if let Traceable::List(list) = &mut facts.traceable {
        list.insert(RELEASE.0.to_owned());
    }
    facts
}

pub(crate) fn debian_6_16() -> Facts {
    since_6_12("6.16.12+deb13-cloud-amd64", BUFFER_NODE)
}

pub(crate) fn debian_7_0() -> Facts {
    since_6_12("7.0.13+deb14-cloud-amd64", BUFFER_NODE)
}

pub(crate) fn debian_7_2() -> Facts {
    inline_charge(since_6_12("7.2.13+deb14-cloud-amd64", BUFFER_LAST))
}

pub(crate) fn debian_7_3() -> Facts {
    inline_charge(since_6_12("7.3.4+deb14-cloud-amd64", BUFFER_LAST))
}

/// A 6.12 whose compiler kept `function` only as a specialised copy.
pub(crate) fn renamed(function: &str) -> Facts {
    let mut facts = debian_6_12();
    let copy = Symbol { count: 0, renamed: vec![format!("{function}.isra.0")] };
    facts.symbols.as_mut().expect("symbols").functions.insert(function.to_owned(), copy);
    facts
}

/// A 6.12 in which `function` has this prototype.
pub(crate) fn with_prototype(function: &str, prototype: &str) -> Facts {
    let mut facts = debian_6_12();
    let functions = &mut facts.types.as_mut().expect("types").functions;
    functions.insert(function.to_owned(), vec![Prototype::parse(prototype)]);
    facts
}

/// The same kernel, with these capabilities and nothing else.
pub(crate) fn holding(mut facts: Facts, capabilities: &[&str]) -> Facts {
    facts.privileges.euid = 1000;
    facts.privileges.capabilities = Ok(capabilities.iter().map(|&c| c.to_owned()).collect());
    facts
}

/// Without the member that goes with a charge through a function.
fn inline_charge(mut facts: Facts) -> Facts {
    facts.types.as_mut().expect("types").offsets.remove(offsets::CHARGED_PAGES);
    facts
}

/// The lock's tracepoints as they are up to 6.12.
fn with_memcg_path(mut facts: Facts) -> Facts {
    let tracepoints = &mut facts.types.as_mut().expect("types").tracepoints;
    tracepoints.insert("mmap_lock_start_locking".to_owned(), Prototype::parse(LOCK_WANTED_6_12));
    tracepoints.insert("mmap_lock_acquire_returned".to_owned(), Prototype::parse(LOCK_RETURNED_6_12));
    facts
}

fn since_6_12(release: &str, buffer: &str) -> Facts {
    let functions = [
        ("io_sqe_buffers_register", REGISTER),
        ("io_register_rsrc_update", UPDATE),
        ("io_register_clone_buffers", CLONE),
        CALL,
        ("io_sqe_buffers_unregister", UNREGISTER),
        ("io_sqe_buffer_register", buffer),
        ("io_pin_pages", PIN_PAGES),
        ("pin_user_pages", PIN),
        ("gup_vma_lookup", LOOKUP),
        ("check_vma_flags", CHECK),
        ("handle_mm_fault", FAULT),
        ("__io_account_mem", ACCOUNT),
    ];
    kernel(release, &functions, LEDGER)
}

fn mark(facts: &mut Facts, symbol: &str) {
    let functions = &mut facts.symbols.as_mut().expect("symbols").functions;
    functions.insert(symbol.to_owned(), Symbol { count: 1, renamed: Vec::new() });
}

fn kernel(release: &str, functions: &[(&str, &str)], ledger: &str) -> Facts {
    let wanted = table::wanted();
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let symbol = |name: &str| (name.to_owned(), Symbol { count: 1, renamed: Vec::new() });
    let tracepoints = [
        ("io_uring_register", ledger),
        ("io_uring_create", CREATE),
        ("mmap_lock_start_locking", LOCK_WANTED),
        ("mmap_lock_acquire_returned", LOCK_RETURNED),
    ];
    let release = Release::parse(release);
    // As Debian builds them.
    let preempts = release.is_from((6, 16));
    let mut facts = Facts {
        release,
        machine: "x86_64".to_owned(),
        types: Ok(Types {
            offsets: (0..)
                .zip(wanted.members)
                .map(|(i, &member)| (member.to_owned(), 8 * i))
                .chain(offsets::EVENTS.map(|(member, offset)| (member.to_owned(), offset)))
                .collect(),
            functions: functions.iter().map(|&(f, p)| (f.to_owned(), vec![Prototype::parse(p)])).collect(),
            ids: (1..)
                .zip(functions.iter().map(|(function, _)| *function).chain(table::SEARCHES.map(|s| s.function)))
                .map(|(id, function)| (function.to_owned(), id))
                .collect(),
            tracepoints: tracepoints.map(|(name, p)| (name.to_owned(), Prototype::parse(p))).into(),
            helpers: owned(wanted.helpers),
            structs: owned(wanted.structs),
            enumerators: BTreeMap::new(),
            subsystems: [("cpu", 1), ("memory", 4), ("pids", 8)].map(|(name, id)| (name.to_owned(), id)).into(),
        }),
        symbols: Ok(Symbols {
            functions: functions.iter().map(|&(name, _)| symbol(name)).collect::<BTreeMap<_, _>>(),
            addresses_hidden: false,
        }),
        traceable: Traceable::List(functions.iter().map(|&(name, _)| name.to_owned()).collect()),
        kprobe_pmu: Ok(true),
        ledger_event: Ok(true),
        fentry: Trial::Works,
        multi: if preempts { Trial::Works } else { Trial::Absent },
        preemption: Preemption { possible: preempts, why: "uname -v".to_owned() },
        privileges: root(),
        switches: super::Switches::default(),
        pid_namespace: Ok(0),
    };
    mark(&mut facts, symbols::TRAMPOLINES);
    facts
}

fn root() -> Privileges {
    let all = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_SYS_RESOURCE", "CAP_SYS_PTRACE"];
    Privileges {
        capabilities: Ok(all.map(str::to_owned).into()),
        user_namespace: false,
        euid: 0,
        perf_event_paranoid: Ok(3),
        unprivileged_bpf_disabled: Ok(2),
        kptr_restrict: Ok(0),
        lockdown: Ok(Lockdown::None),
        memlock: Some(64 * 1024),
    }
}
