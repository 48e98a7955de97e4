//! Table of a kernel's figures for people, in 80 columns. Pure.

use std::fmt::Write as _;

use super::{
    figures::{Attach, Case, Mode, Round},
    goals::{Subject, goal, verdicts, within},
};

/// Width of the column of names. Each column of figures has the width [`COLUMN`].
const NAMES: usize = 17;
const COLUMN: usize = 9;

/// Table of one kernel, with goals below the figures that have some; `!` marks a figure that misses its goal.
pub fn table(title: &str, series: &str, alone: &Round, rounds: &[Round]) -> String {
    let mut table = format!("{title}: instructions added\n");
    line(&mut table, "", programs(rounds));
    line(&mut table, "", std::iter::once("alone".to_owned()).chain(rounds.iter().map(attach)));
    for subject in Case::ALL.map(Subject::Case).into_iter().chain([Subject::FurtherVma]) {
        rows(&mut table, series, subject, alone, rounds);
    }
    for round in rounds {
        notes(&mut table, round);
    }
    for verdict in verdicts(series, alone, rounds).iter().filter(|verdict| !verdict.met()) {
        let (mode, subject) = (verdict.mode, verdict.subject.title());
        let (added, goal) = (figure(verdict.added), figure(f64::from(verdict.goal)));
        // Writing to a string cannot fail.
        let _ = writeln!(table, "missed: {mode}, {subject}: {added}, the goal is {goal}");
    }
    table
}

/// A row of figures, and a row of goals if there are any.
fn rows(table: &mut String, series: &str, subject: Subject, alone: &Round, rounds: &[Round]) {
    let added: Vec<_> = rounds.iter().map(|round| subject.added(alone, round)).collect();
    if added.iter().all(Option::is_none) {
        return;
    }
    let goals: Vec<_> = rounds.iter().map(|round| goal(series, round.mode, subject)).collect();
    let base = match subject {
        Subject::Case(case) => alone.figure(case).map_or_else(String::new, |alone| figure(alone as f64)),
        Subject::FurtherVma => String::new(),
    };
    let cells = added.iter().zip(&goals).map(|(added, goal)| match (added, goal) {
        (Some(added), Some(goal)) if !within(*added, *goal, subject) => format!("{}!", figure(*added)),
        (Some(added), _) => figure(*added),
        (None, _) => "-".to_owned(),
    });
    line(table, subject.title(), std::iter::once(base).chain(cells));
    if goals.iter().any(Option::is_some) {
        let goals = goals.iter().map(|goal| goal.map_or_else(String::new, |goal| figure(f64::from(goal))));
        line(table, "  goal", std::iter::once(String::new()).chain(goals));
    }
}

fn notes(table: &mut String, round: &Round) {
    for line in round.self_cost.lines(&round.mode.to_string()) {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{line}");
    }
    for line in round.start.lines(&round.mode.to_string()) {
        let _ = writeln!(table, "{line}");
    }
    if let Some(kib) = round.resident_kib {
        let _ = writeln!(table, "{}, idle: {:.1} MiB resident", round.mode, kib as f64 / 1024.0);
    }
    match round.lost {
        Some(0) => {}
        Some(lost) => {
            let _ = writeln!(table, "{}: {} records lost", round.mode, figure(lost as f64));
        }
        None if matches!(round.mode, Mode::Trace(_)) => {
            let _ = writeln!(table, "{}: number of lost records unknown", round.mode);
        }
        None => {}
    }
}

/// Name of each program, above the first of its columns.
fn programs(rounds: &[Round]) -> impl Iterator<Item = String> {
    let mut last = "";
    let names = rounds.iter().map(move |round| {
        let (program, _) = round.mode.parts();
        let shown = if program == last { "" } else { program };
        last = program;
        shown.to_owned()
    });
    std::iter::once(String::new()).chain(names)
}

fn attach(round: &Round) -> String {
    round.mode.parts().1.map_or("", Attach::name).to_owned()
}

fn line(table: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let mut text = format!("{name:<NAMES$}");
    for cell in cells {
        let _ = write!(text, "{cell:>COLUMN$}");
    }
    table.push_str(text.trim_end());
    table.push('\n');
}

/// Formats `1,234`, and from a million on `1,235 k`, to fit a column.
fn figure(value: f64) -> String {
    let rounded = value.round() as i64;
    if rounded.abs() < 1_000_000 { grouped(rounded) } else { format!("{} k", grouped((value / 1000.0).round() as i64)) }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::{super::figures::tests::round, *};

    #[test]
    fn figures_fit_a_column() {
        for (value, shown) in [
            (0.0, "0"),
            (-17.0, "-17"),
            (512.4, "512"),
            (999_999.0, "999,999"),
            (1_000_000.0, "1,000 k"),
            (-1_510_088.0, "-1,510 k"),
            (39_999_600.0, "40,000 k"),
        ] {
            assert_eq!(figure(value), shown);
            assert!(shown.len() < COLUMN);
        }
    }

    #[test]
    fn goals_stand_under_the_figures_and_misses_are_marked() {
        let alone = round(Mode::Alone, &[(Case::Pages1, 2663), (Case::Vmas64, 23_892), (Case::Fault, 6836)]);
        let mut rounds = [
            round(Mode::DAEMON[0], &[(Case::Pages1, 6497), (Case::Vmas64, 52_926), (Case::Fault, 6836)]),
            round(Mode::DAEMON[1], &[(Case::Pages1, 6463), (Case::Vmas64, 55_000), (Case::Fault, 6836)]),
        ];
        rounds[0].resident_kib = Some(32_740);
        let expected = "\
Linux 6.12.1: instructions added
                             daemon
                     alone   fentry   kprobe
1 page               2,663   3,834!    3,800
  goal                        2,200    3,800
64 VMAs             23,892   29,034   31,108
page fault           6,836        0        0
  goal                            0        0
a further VMA                   400     433!
  goal                          400      400
daemon fentry, idle: 32.0 MiB resident
missed: daemon fentry, 1 page: 3,834, the goal is 2,200
missed: daemon kprobe, a further VMA: 433, the goal is 400
";
        assert_eq!(table("Linux 6.12.1", "6.12", &alone, &rounds), expected);
    }

    #[test]
    fn a_full_table_fits_80_columns() {
        let medians = Case::ALL.map(|case| (case, 39_000_000));
        let alone = round(Mode::Alone, &Case::ALL.map(|case| (case, 10)));
        let mut rounds: Vec<_> =
            [Mode::DAEMON, Mode::TRACE, Mode::BPFTRACE].concat().iter().map(|mode| round(*mode, &medians)).collect();
        rounds[2].lost = Some(3);
        let table = table("Linux 6.12.117+deb13-cloud-amd64 (6.12.117-1)", "6.12", &alone, &rounds);
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
        assert!(table.contains("trace fentry: 3 records lost\n"), "{table}");
        assert!(table.contains("trace kprobe: number of lost records unknown\n"), "{table}");
    }
}
