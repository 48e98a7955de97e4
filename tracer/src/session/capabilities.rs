//! From the health of the probes to what can be told.

use tracer_ebpf::operation::Operation;

use crate::{
    decode::Capabilities,
    figure::{Availability, Figure, FigureSet},
    probe::{
        health::Health,
        plan::{Kind, Plan, Wish, no_accounting_times, no_lookup_times},
        table::{LIST_TABLE, Role, SEARCHES},
    },
};

/// Whether the tables that were there before can be found, all of them.
pub fn tables_before(results: &[(String, Result<(), String>)], health: &Health) -> bool {
    let loaded = |name: &str| results.iter().any(|(program, result)| program == name && result.is_ok());
    SEARCHES.iter().all(|search| loaded(search.program))
        && health.figures.of(Figure::RegisteredBefore) == Availability::Available
}

/// What the attached probes can tell.
pub fn capabilities(
    plan: &Plan,
    results: &[(String, Result<(), String>)],
    health: &Health,
    wish: &Wish,
) -> Capabilities {
    let attached = |role: Role, at_return: bool| {
        plan.hooks.iter().any(|hook| {
            let returns = matches!(hook.kind, Kind::Kretprobe | Kind::MultiReturn | Kind::Fexit);
            let ok = || results.iter().any(|(program, result)| *program == hook.program && result.is_ok());
            hook.role == role && returns == at_return && ok()
        })
    };
    let both = |role: Role| attached(role, false) && attached(role, true);
    let hooked = |role: Role| {
        let mut hooks = plan.hooks.iter().filter(|hook| hook.role == role).peekable();
        let ok = |name: &str| results.iter().any(|(program, result)| program == name && result.is_ok());
        hooks.peek().is_some() && hooks.all(|hook| ok(&hook.program))
    };
    // Where the ledger is at that return, it stands for the call's own hook.
    let call_ends = attached(Role::Call, true) || attached(Role::Ledger, true);
    let loaded = |name: &str| results.iter().any(|(program, result)| program == name && result.is_ok());
    let phases = wish.phases && both(Role::Pin);
    let mut figures = health.figures.clone();
    let untimed = [(Figure::LookupTime, no_lookup_times(plan)), (Figure::AccountingTime, no_accounting_times(plan))];
    for (figure, reason) in untimed {
        if let Some(reason) = reason.filter(|_| phases) {
            figures.lose(&[figure], reason);
        }
    }
    figures.leave_out(unasked(wish));
    // Where the pin's hooks stand for the buffer's.
    let pin_is_buffer = plan.settings.kernel.pin_is_buffer != 0;
    let per_buffer = if pin_is_buffer { Role::Pin } else { Role::Buffer };
    // The programs take a call without bytes for one that installs nothing, if they were to see its buffers.
    let installs = plan.settings.kernel.buffers == 0 || attached(per_buffer, false);
    // By the user's function since 6.13; before that by an inner one, through which all come.
    let by_users = attached(Role::Registration(Operation::Unregister), false);
    let cleanups = by_users && (plan.ring_exits || attached(Role::Release, false));
    let capabilities = Capabilities {
        entries: Operation::ALL.map(|operation| attached(Role::Registration(operation), false)),
        returns: Operation::ALL.map(|operation| attached(Role::Registration(operation), true)),
        ledger: attached(Role::Ledger, false) || attached(Role::Ledger, true),
        buffers: attached(per_buffer, false),
        buffer_returns: attached(per_buffer, true),
        pins: both(Role::Pin),
        lean: pin_is_buffer,
        walk: attached(per_buffer, false) && health.figures.missing(Figure::Vmas).is_none(),
        huge_pages: plan.settings.kernel.pin_is_slow == 0 || plan.settings.kernel.walks != 0,
        lookups: attached(Role::Lookup, false),
        processes: wish.processes,
        descent: wish.filters.descent,
        records: wish.records,
        rings: wish.ring && attached(Role::Ring, false) && installs,
        tables: wish.tables
            && attached(Role::Release, false)
            && (attached(Role::Ledger, false) || attached(Role::Ledger, true))
            && attached(Role::Registration(Operation::Register), false)
            && loaded(LIST_TABLE),
        ring_requests: plan.settings.kernel.ring_requests != 0 && installs,
        file_names: plan.settings.kernel.file_names != 0,
        cleanups,
        ring_exits: cleanups && plan.ring_tables && wish.session().filtered == 0,
        policy: plan.policy.clone(),
        calls: plan.settings.kernel.calls != 0 && attached(Role::Call, false) && call_ends,
        locks: wish.locks && hooked(Role::Lock),
        phases,
        fault_times: phases && both(Role::Fault),
        lookup_times: phases && both(Role::Lookup),
        accounting_times: phases && both(Role::Accounting),
        slow_pins: phases && (plan.settings.kernel.pin_is_slow != 0 || attached(Role::Lookup, false)),
        figures,
    };
    Capabilities { figures: capabilities.told(), ..capabilities }
}

/// What a session leaves out that its plan would give.
fn unasked(wish: &Wish) -> FigureSet {
    const OF_PROCESSES: &[Figure] = &[Figure::Processes, Figure::FileNames];
    let unasked = [
        (wish.processes, OF_PROCESSES),
        (wish.ring, &[Figure::Rings]),
        (wish.tables, &[Figure::Registered, Figure::RegisteredBefore]),
        (wish.locks, &[Figure::LockWaits]),
        (
            wish.phases,
            &[Figure::Phases, Figure::FaultTime, Figure::LookupTime, Figure::AccountingTime, Figure::SlowPins],
        ),
    ];
    let unasked = unasked.into_iter().filter(|(asked, _)| !asked).flat_map(|(_, figures)| figures);
    unasked.fold(FigureSet::NONE, |set, figure| set.with(*figure))
}

#[cfg(test)]
mod tests;
