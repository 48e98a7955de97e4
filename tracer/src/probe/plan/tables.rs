//! What follows the tables of rings: how they are read, and how those that were there before are found.

use super::{Hook, Kind, Outcome, Plan, Wish};
use crate::{
    figure::Figure,
    kernel::{Facts, Types},
    probe::{
        offsets,
        table::{LIST_TABLE, Role, SEARCHES},
    },
};

/// Plans the reading of tables, and the search for those that were there before.
pub(super) fn tables(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    if !wish.tables {
        plan.chose(Role::Table, Outcome::NotWanted, "not asked for");
        return;
    }
    let release = plan.choices.iter().position(|choice| choice.role == Role::Release);
    let release = release.filter(|&place| matches!(plan.choices[place].chosen, Outcome::Hooked(_)));
    let Some(release) = release else {
        plan.chose(Role::Table, Outcome::Lost, "the end of a table is not seen here");
        return;
    };
    let missing = offsets::missing_for_tables(types).map(|member| format!("BTF has no {member}"));
    let no_loop = || (!types.helpers.contains("loop")).then(|| "the kernel has no bpf_loop (since 5.17)".to_owned());
    if let Some(reason) = missing.or_else(no_loop) {
        plan.hooks.retain(|hook| hook.role != Role::Release);
        plan.choices[release].chosen = Outcome::Lost;
        reason.clone_into(&mut plan.choices[release].why);
        plan.figures.lose(&[Figure::Registered], &reason);
        plan.chose(Role::Table, Outcome::Lost, reason);
        return;
    }
    let kernel = &mut plan.settings.kernel;
    kernel.table_nodes = types.offsets.contains_key(offsets::NODE).into();
    kernel.imu_length = offsets::length_of_buffer(types);
    kernel.imu_kernel = offsets::kernel_buffers(types);
    plan.chose(Role::Table, Outcome::Hooked(LIST_TABLE.to_owned()), "reads the kernel's own tables; attached nowhere");
    plan.hooks.push(Hook {
        role: Role::Table,
        program: LIST_TABLE.to_owned(),
        function: "BPF_PROG_TEST_RUN".to_owned(),
        kind: Kind::Call,
        figures: &[Figure::Registered],
    });
    search(plan, facts, types, wish);
}

fn search(plan: &mut Plan, facts: &Facts, types: &Types, wish: &Wish) {
    let missing = SEARCHES.iter().find(|search| !types.ids.contains_key(search.function));
    let member = offsets::missing(types, &offsets::SEARCH);
    let avoided = SEARCHES.iter().find(|search| wish.avoid.iter().any(|name| name == search.function));
    let reason = match (missing, member) {
        _ if avoided.is_some() => Some("avoided on request".to_owned()),
        (Some(search), _) => Some(format!("the kernel has no {}", search.function)),
        (None, Some(member)) => Some(format!("BTF has no {member}")),
        (None, None) => None,
    };
    if let Some(reason) = reason {
        return plan.figures.lose(&[Figure::RegisteredBefore], &reason);
    }
    for search in SEARCHES {
        plan.hooks.push(Hook {
            role: Role::Table,
            program: search.program.to_owned(),
            function: search.function.to_owned(),
            kind: Kind::Iterator,
            figures: &[Figure::RegisteredBefore],
        });
    }
    if facts.pid_namespace != Ok(0) {
        plan.figures.narrow(
            &[Figure::RegisteredBefore],
            "the kernel lists the processes of pinscope's own PID namespace only, which is not the initial one",
        );
    }
}
