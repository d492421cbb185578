//! The tables.

use std::fmt::Write as _;

use crate::measure::{Outcome, Role, Series};

fn cell(outcome: &Outcome, role: Role) -> String {
    let Some(series) = outcome.of(role) else { return "-".to_owned() };
    let show = |value| outcome.metric.unit.show(value);
    if series.min() == series.max() {
        return show(series.median());
    }
    format!("{} ({} to {})", show(series.median()), show(series.min()), show(series.max()))
}

fn ratio(outcome: &Outcome, against: Role) -> String {
    match outcome.ratio(against) {
        Some(ratio) if ratio.is_finite() => {
            let decimals = if ratio < 0.1 {
                4
            } else if ratio < 10.0 {
                2
            } else {
                0
            };
            format!("{ratio:.decimals$}")
        }
        _ => "-".to_owned(),
    }
}

/// The outcomes as a table in Markdown.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| work | figure | ours | peer | limit | ours / peer | ours / limit | to reach | reached |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for outcome in outcomes {
        let goal = outcome.metric.goal.map_or_else(|| "-".to_owned(), |goal| goal.to_string());
        let reached = match outcome.reached() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "-",
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {goal} | {reached} |",
            outcome.work,
            outcome.metric.name,
            cell(outcome, Role::Ours),
            cell(outcome, Role::Peer),
            cell(outcome, Role::Limit),
            ratio(outcome, Role::Peer),
            ratio(outcome, Role::Limit),
        );
    }
    text
}

/// The outcomes of works that grow, a table for each work.
pub(crate) fn growth(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for work in by_work(outcomes) {
        let of = work[0].size.map_or("", |size| size.of);
        let _ = writeln!(
            text,
            "**{}: {}**\n\n| {of} | ours | limit | ours / limit |\n| ---: | --- | --- | --- |",
            work[0].work, work[0].metric.name,
        );
        for outcome in work {
            let number = outcome.size.map_or(0, |size| size.number);
            let (ours, limit) = (cell(outcome, Role::Ours), cell(outcome, Role::Limit));
            let _ =
                writeln!(text, "| {number} | {ours} | {limit} | {} |", ratio(outcome, Role::Limit));
        }
        text.push('\n');
    }
    text
}

/// The outcomes of each work, in the order of the works' first ones.
pub(crate) fn by_work(outcomes: &[Outcome]) -> Vec<Vec<&Outcome>> {
    let mut works: Vec<Vec<&Outcome>> = Vec::new();
    for outcome in outcomes {
        match works.iter_mut().find(|work| work[0].work == outcome.work) {
            Some(work) => work.push(outcome),
            None => works.push(vec![outcome]),
        }
    }
    works
}

/// What was measured with what, one line for each contender of each work.
pub(crate) fn contenders(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for work in by_work(outcomes) {
        let names = |series: &Series| format!("{}: {}", series.role, series.name);
        let all: Vec<_> = work[0].series.iter().map(names).collect();
        let _ = writeln!(text, "- {}: {}", work[0].work, all.join("; "));
    }
    text
}
