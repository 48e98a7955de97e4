//! The one table of roles: which kernel functions can fill each, and which prototype is relied on.
//!
//! The prototypes are in the normal form of [`crate::kernel::Prototype`]. They stand here once; the eBPF
//! handlers read arguments by the positions that these forms fix.

use tracer_ebpf::{audit::Gup, operation::Operation};

use super::offsets;
use crate::{figure::Figure, kernel::Wanted};

/// What a hook is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The function of one operation, entry and return.
    Registration(Operation),
    /// The function that takes one buffer.
    Buffer,
    /// The part of it that pins the pages.
    Pin,
    /// A look-up of a VMA that the kernel makes while pinning.
    Lookup,
    /// The making of a ring.
    Ring,
    /// The kernel's own count of registrations.
    Ledger,
    /// The page faults that a pin takes.
    Fault,
    /// The charging of pinned pages to their user.
    Accounting,
    /// The waits for `mmap_lock`.
    Lock,
    /// The end of a ring's table of buffers, by whomever.
    Release,
    /// What is in the tables of rings, and the search for those that were there before.
    Table,
    /// The system call itself.
    Call,
    /// A function that takes hold of user pages, in an audit.
    Audit(Gup),
}

impl Role {
    /// The name used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registration(operation) => operation.name(),
            Self::Buffer => "buffer",
            Self::Pin => "pin",
            Self::Lookup => "look-up",
            Self::Ring => "ring",
            Self::Ledger => "ledger",
            Self::Fault => "fault",
            Self::Accounting => "accounting",
            Self::Lock => "lock",
            Self::Release => "release",
            Self::Table => "table",
            Self::Call => "call",
            Self::Audit(function) => function.name(),
        }
    }

    /// What its hooks give.
    pub const fn gives(self) -> &'static str {
        match self {
            Self::Registration(_) => "operation, result, duration",
            Self::Buffer => "range and result of each buffer, the walk over its VMAs",
            Self::Pin => "time in GUP, page faults",
            Self::Lookup => "VMA look-ups made by the kernel",
            Self::Ring => "age, fd and flags of the ring",
            Self::Ledger => "the end of each registration, an independent count",
            Self::Fault => "time of page faults in the pin",
            Self::Accounting => "time of the accounting of pinned pages",
            Self::Lock => "acquisitions of mmap_lock, and the waits for it",
            Self::Call => "the system call's own time, with the wait for the ring's lock",
            Self::Release => "the end of a table of buffers: what is registered now",
            Self::Table => "what is in the tables of rings, also of those that were there before",
            Self::Audit(_) => "who takes hold of user pages, and of which",
        }
    }
}

/// What a prototype means to the eBPF side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What the handler takes for granted.
    Plain,
    /// `io_sqe_buffer_register` returns an `io_rsrc_node` or an error pointer.
    ReturnsNode,
    /// The prototype is known, and says that this is not the function to hook.
    Declined(&'static str),
}

/// A prototype that is relied on.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// As [`crate::kernel::Prototype`] prints.
    pub prototype: &'static str,
    /// What it means.
    pub effect: Effect,
}

/// A function that can fill a role.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its name in the kernel's source.
    pub function: &'static str,
    /// The prototypes that are known, newest first.
    pub forms: &'static [Form],
    /// What to know when it is the one chosen.
    pub note: &'static str,
}

/// A role filled by hooks at functions.
#[derive(Clone, Copy, Debug)]
pub struct FunctionRole {
    /// The role.
    pub role: Role,
    /// Best first.
    pub candidates: &'static [Candidate],
    /// Name of the programs, without `_enter` and `_exit`.
    pub handler: &'static str,
    /// Whether the return is hooked too.
    pub returns: bool,
    /// A type that only kernels with this function have; without it the role does not apply.
    pub only_with: Option<&'static str>,
    /// The figures that are lost without it.
    pub figures: &'static [Figure],
}

/// A role filled by a raw tracepoint.
#[derive(Clone, Copy, Debug)]
pub struct TracepointRole {
    /// The role.
    pub role: Role,
    /// The tracepoint, without its group.
    pub tracepoint: &'static str,
    /// Name of the program.
    pub program: &'static str,
    /// The same program for a perf event, where there is one.
    pub classic: Option<Classic>,
    /// Types of the arguments that are read, from the first.
    pub arguments: &'static [&'static str],
    /// The figures that are lost without it.
    pub figures: &'static [Figure],
}

/// How a tracepoint is hooked as a perf event.
#[derive(Clone, Copy, Debug)]
pub struct Classic {
    /// Name of the program.
    pub program: &'static str,
    /// Members of the event's struct, and where the program reads them: fixed in its instructions, for the verifier takes no
    /// computed offset.
    pub event: [(&'static str, u32); 3],
    /// What a session with a raw tracepoint lacks from the start; the others say so only when runs were skipped.
    pub figure: Option<Figure>,
    /// What is missed then.
    pub misses: &'static str,
}

/// The group of those tracepoints.
pub const CLASSIC_GROUP: &str = "io_uring";

const fn plain(prototype: &'static str) -> Form {
    Form { prototype, effect: Effect::Plain }
}

/// The roles filled by functions, in the order of the call chain.
pub const FUNCTION_ROLES: [FunctionRole; 11] = [
    FunctionRole {
        role: Role::Registration(Operation::Register),
        candidates: &[Candidate {
            function: "io_sqe_buffers_register",
            forms: &[plain("int (struct io_ring_ctx *, void *, unsigned int, u64 *)")],
            note: "both register opcodes end here",
        }],
        handler: "register",
        returns: true,
        only_with: None,
        figures: &[Figure::RegisterDuration, Figure::PerRegistration],
    },
    FunctionRole {
        role: Role::Registration(Operation::Update),
        candidates: &[Candidate {
            function: "io_register_rsrc_update",
            forms: &[plain("int (struct io_ring_ctx *, void *, unsigned int, unsigned int)")],
            note: "type 1 is buffers; the functions below it are inlined",
        }],
        handler: "update",
        returns: true,
        only_with: None,
        figures: &[Figure::UpdateDuration, Figure::UpdateBuffers],
    },
    FunctionRole {
        role: Role::Registration(Operation::Clone),
        candidates: &[Candidate {
            function: "io_register_clone_buffers",
            forms: &[plain("int (struct io_ring_ctx *, void *)")],
            note: "the one function of the opcode",
        }],
        handler: "clone",
        returns: true,
        only_with: Some("io_uring_clone_buffers"),
        figures: &[Figure::CloneDuration],
    },
    FunctionRole {
        role: Role::Registration(Operation::Unregister),
        candidates: &[Candidate {
            function: UNREGISTER,
            forms: &[plain("int (struct io_ring_ctx *)")],
            note: "cleanup and ring exit call it too; those are told apart",
        }],
        handler: "unregister",
        returns: true,
        only_with: None,
        // The count itself comes from the ledger.
        figures: &[Figure::UnregisterDuration],
    },
    FunctionRole {
        role: Role::Buffer,
        candidates: &[Candidate {
            function: "io_sqe_buffer_register",
            forms: &[
                Form {
                    prototype: "struct io_rsrc_node * (struct io_ring_ctx *, struct iovec *)",
                    effect: Effect::ReturnsNode,
                },
                Form {
                    prototype: "struct io_rsrc_node * (struct io_ring_ctx *, struct iovec *, struct page **)",
                    effect: Effect::ReturnsNode,
                },
                plain("int (struct io_ring_ctx *, struct iovec *, struct io_mapped_ubuf **, struct page **)"),
            ],
            note: "its iovec is the kernel's own copy",
        }],
        handler: "buffer",
        returns: true,
        only_with: None,
        figures: &[Figure::Buffers, Figure::Bytes, Figure::Vmas, Figure::Backings, Figure::Files],
    },
    FunctionRole {
        role: Role::Pin,
        candidates: &[
            Candidate {
                function: "pin_user_pages",
                forms: &[
                    Form {
                        prototype: "long (unsigned long, unsigned long, unsigned int, struct page **)",
                        effect: Effect::Declined(
                            "a kernel since 6.5, where io_pin_pages holds the whole pin on every version",
                        ),
                    },
                    plain(
                        "long (unsigned long, unsigned long, unsigned int, struct page **, struct vm_area_struct **)",
                    ),
                ],
                note: "called under mmap_lock: waiting for the lock is not in its time",
            },
            Candidate {
                function: "io_pin_pages",
                forms: &[plain("struct page ** (unsigned long, unsigned long, int *)")],
                note: "takes mmap_lock itself where it needs it: waiting for the lock is in its time",
            },
        ],
        handler: "pin",
        returns: true,
        only_with: None,
        figures: &[Figure::PinTime, Figure::PinFaults, Figure::Lookups, Figure::Refusals],
    },
    FunctionRole {
        role: Role::Lookup,
        candidates: &[
            Candidate {
                function: "vma_lookup",
                forms: &[plain("struct vm_area_struct * (struct mm_struct *, unsigned long)")],
                note: "every look-up",
            },
            Candidate {
                function: "gup_vma_lookup",
                forms: &[plain("struct vm_area_struct * (struct mm_struct *, unsigned long)")],
                note: "one call for each look-up of the slow path, holes among them",
            },
            Candidate {
                function: "check_vma_flags",
                forms: &[plain("int (struct vm_area_struct *, unsigned long)")],
                note: "one call for each VMA found: a look-up that finds a hole is not counted",
            },
            Candidate {
                function: "find_extend_vma",
                forms: &[plain("struct vm_area_struct * (struct mm_struct *, unsigned long)")],
                note: "one call for each look-up of the slow path, holes among them",
            },
        ],
        handler: "lookup",
        returns: false,
        only_with: None,
        figures: &[Figure::Lookups],
    },
    FunctionRole {
        role: Role::Fault,
        candidates: &[Candidate {
            function: "handle_mm_fault",
            forms: &[plain("vm_fault_t (struct vm_area_struct *, unsigned long, unsigned int, struct pt_regs *)")],
            note: "every page fault of the machine passes it; counted inside pins",
        }],
        handler: "fault",
        returns: true,
        only_with: None,
        figures: &[Figure::FaultTime],
    },
    FunctionRole {
        role: Role::Accounting,
        candidates: &[
            Candidate {
                function: OUTER_ACCOUNTING,
                forms: &[
                    plain("int (struct user_struct *, struct mm_struct *, unsigned long)"),
                    plain("int (struct io_ring_ctx *, unsigned long)"),
                ],
                note: "called for every buffer, also where there is no user to charge (CAP_IPC_LOCK)",
            },
            Candidate {
                function: INNER_ACCOUNTING,
                forms: &[plain("int (struct user_struct *, unsigned long)")],
                note: "called only where the ring has a user to charge: not with CAP_IPC_LOCK",
            },
        ],
        handler: "accounting",
        returns: true,
        only_with: None,
        figures: &[Figure::AccountingTime],
    },
    FunctionRole {
        role: Role::Release,
        candidates: &[
            Candidate {
                function: INNER_UNREGISTER,
                forms: &[plain("void (struct io_ring_ctx *)")],
                note: "every table ends here: its user's call, the ring's end, a registration that failed",
            },
            Candidate {
                function: UNREGISTER,
                forms: &[plain("int (struct io_ring_ctx *)")],
                note: "the ring's end calls it too, since 6.13",
            },
        ],
        handler: "release",
        returns: false,
        only_with: None,
        figures: &[Figure::Registered],
    },
    FunctionRole {
        role: Role::Call,
        candidates: &[Candidate {
            function: LEDGER_RETURNS[0].0,
            forms: &[plain(SYSTEM_CALL)],
            note: "every opcode of io_uring_register(2), and nobody else; not that of 32-bit programs",
        }],
        handler: "call",
        returns: true,
        only_with: None,
        figures: &[Figure::CallTime],
    },
];

/// The figures of a pin whose hooks stand for its buffer's.
pub const PIN_AS_BUFFER: &[Figure] = &[
    Figure::PinTime,
    Figure::PinFaults,
    Figure::Lookups,
    Figure::Refusals,
    Figure::Buffers,
    Figure::Bytes,
    Figure::Vmas,
    Figure::Backings,
    Figure::Files,
];

/// How the names of the programs at the end of a table begin.
pub const RELEASES: &str = "release_enter";
/// The program that reads a table.
pub const LIST_TABLE: &str = "list_table";
/// The program that tells whether a call is under way still.
pub const UNDER_WAY: &str = "under_way";

/// An iterator of the kernel's that comes upon rings.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The program that it runs.
    pub program: &'static str,
    /// Its function in BTF.
    pub function: &'static str,
    /// Its name.
    pub target: &'static str,
}

/// Together they come upon every ring that a process holds by an fd or by an index.
pub const SEARCHES: [Search; 2] = [
    Search { program: "rings_of_files", function: "bpf_iter_task_file", target: "task_file" },
    Search { program: "rings_of_indexes", function: "bpf_iter_task", target: "task" },
];

/// The function that is inlined into `io_account_mem` where that one is out of line (since 6.16): it is there, and never
/// called.
pub const INNER_ACCOUNTING: &str = "__io_account_mem";
/// Unregisters for a user; since 6.13, where a slot of a table is an `io_rsrc_node`, for a ring that ends as well.
pub const UNREGISTER: &str = "io_sqe_buffers_unregister";
/// Up to 6.12 what [`UNREGISTER`] calls for its user, and the end of a ring for itself.
pub const INNER_UNREGISTER: &str = "__io_sqe_buffers_unregister";
/// See [`INNER_ACCOUNTING`].
pub const OUTER_ACCOUNTING: &str = "io_account_mem";

/// Names one of the tracepoint roles.
pub const LEDGER: TracepointRole = TracepointRole {
    role: Role::Ledger,
    tracepoint: "io_uring_register",
    program: "ledger",
    classic: Some(Classic {
        program: "ledger_classic",
        event: [
            ("trace_event_raw_io_uring_register.ctx", 8),
            ("trace_event_raw_io_uring_register.opcode", 16),
            ("trace_event_raw_io_uring_register.ret", 32),
        ],
        figure: Some(Figure::EveryCall),
        misses: "calls of tasks that preempt each other",
    }),
    // ctx, opcode; `ret` is found by its name.
    arguments: &["void *", "unsigned int"],
    figures: &[Figure::Results, Figure::UnregisterCount, Figure::Ledger],
};

/// The ledger at the return of the system call's function, by x86-64's names: of 64-bit callers, and of 32-bit ones.
pub const LEDGER_RETURNS: [(&str, &str); 2] = [
    ("__x64_sys_io_uring_register", "ledger_return_kretprobe"),
    ("__ia32_sys_io_uring_register", "ledger_return_compat_kretprobe"),
];

/// The prototype of both.
pub const SYSTEM_CALL: &str = "long (struct pt_regs *)";

/// Names one of the tracepoint roles.
pub const RING: TracepointRole = TracepointRole {
    role: Role::Ring,
    tracepoint: "io_uring_create",
    program: "ring_created",
    classic: Some(Classic {
        program: "ring_created_classic",
        event: [
            ("trace_event_raw_io_uring_create.fd", 8),
            ("trace_event_raw_io_uring_create.ctx", 16),
            ("trace_event_raw_io_uring_create.flags", 32),
        ],
        figure: None,
        misses: "rings of tasks that preempt each other",
    }),
    // fd, ctx, sq_entries, cq_entries, flags.
    arguments: &["int", "void *", "u32", "u32", "u32"],
    figures: &[Figure::Rings],
};

/// Names one of the tracepoint roles: the lock is asked for.
pub const LOCK_WANTED: TracepointRole = TracepointRole {
    role: Role::Lock,
    tracepoint: "mmap_lock_start_locking",
    program: "lock_wanted",
    classic: None,
    arguments: &["struct mm_struct *"],
    figures: &[Figure::LockWaits],
};

/// Names one of the tracepoint roles: it was taken, or not.
pub const LOCK_RETURNED: TracepointRole = TracepointRole {
    role: Role::Lock,
    tracepoint: "mmap_lock_acquire_returned",
    program: "lock_returned",
    classic: None,
    // mm; `write` and `success` are found by their names.
    arguments: &["struct mm_struct *"],
    figures: &[Figure::LockWaits],
};

/// Every function of the table, and those of [`SEARCHES`].
const FUNCTIONS: [&str; 19] = [
    "io_sqe_buffers_register",
    "io_register_rsrc_update",
    "io_register_clone_buffers",
    UNREGISTER,
    INNER_UNREGISTER,
    "io_sqe_buffer_register",
    "pin_user_pages",
    "io_pin_pages",
    "vma_lookup",
    "gup_vma_lookup",
    "check_vma_flags",
    "find_extend_vma",
    "handle_mm_fault",
    OUTER_ACCOUNTING,
    INNER_ACCOUNTING,
    SEARCHES[0].function,
    SEARCHES[1].function,
    LEDGER_RETURNS[0].0,
    LEDGER_RETURNS[1].0,
];

/// What the facts have to be asked about for a plan.
pub fn wanted() -> Wanted<'static> {
    Wanted {
        functions: &FUNCTIONS,
        members: &offsets::MEMBERS,
        tracepoints: &[LEDGER.tracepoint, RING.tracepoint, LOCK_WANTED.tracepoint, LOCK_RETURNED.tracepoint],
        helpers: &["find_vma", "loop", "get_func_ret", "task_storage_get", "get_current_task_btf", "task_pt_regs"],
        structs: &["io_uring_clone_buffers"],
        enumerators: &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kernel::Prototype;

    #[test]
    fn the_facts_are_asked_about_every_function() {
        let candidates = FUNCTION_ROLES.iter().flat_map(|role| role.candidates).map(|c| c.function);
        let candidates = candidates.chain(SEARCHES.map(|search| search.function));
        let candidates = candidates.chain(LEDGER_RETURNS.map(|(function, _)| function));
        assert_eq!(candidates.collect::<BTreeSet<_>>(), FUNCTIONS.into_iter().collect());
        for role in FUNCTION_ROLES {
            assert!(role.only_with.is_none_or(|name| wanted().structs.contains(&name)));
        }
    }

    #[test]
    fn the_forms_are_in_the_form_that_prototypes_print_in() {
        for form in FUNCTION_ROLES.iter().flat_map(|role| role.candidates).flat_map(|c| c.forms) {
            assert_eq!(Prototype::parse(form.prototype).to_string(), form.prototype);
        }
    }
}
