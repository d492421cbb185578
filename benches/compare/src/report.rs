//! The table and the chart.

use std::{fmt::Write as _, path::Path};

use plotters::prelude::*;

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

/// How many times as much as ours another one costs; less than 1 where it is cheaper.
fn relative_cost(outcome: &Outcome, role: Role) -> Option<f64> {
    let ratio = 1.0 / outcome.ratio(role)?;
    let cost = if outcome.metric.unit.more_is_better() { 1.0 / ratio } else { ratio };
    (cost.is_finite() && cost > 0.0).then_some(cost)
}

/// Draws each work that has somebody to compare with: what the others cost, ours being 1.
pub(crate) fn chart(outcomes: &[Outcome], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut rows: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.metric.goal.is_some())
        .filter(|outcome| {
            [Role::Peer, Role::Limit].iter().any(|role| relative_cost(outcome, *role).is_some())
        })
        .collect();
    // One with two goals is there twice.
    rows.dedup_by_key(|outcome| (&*outcome.work, outcome.metric.name));
    const ROW: u32 = 26;
    const LABELS: i32 = 430;
    let size = (1180, 110 + ROW * rows.len() as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let small = ("sans-serif", 13).into_font().color(&BLACK);
    let title = ("sans-serif", 18).into_font().color(&BLACK);
    root.draw(&Text::new(
        "What it costs, this crate being 1 (logarithmic; further left is cheaper)",
        (16, 14),
        title,
    ))?;

    let costs = rows.iter().flat_map(|outcome| {
        [Role::Peer, Role::Limit].into_iter().filter_map(|role| relative_cost(outcome, role))
    });
    let (least, most) =
        costs.fold((0.5_f64, 2.0_f64), |(least, most), cost| (least.min(cost), most.max(cost)));
    let (left, right) = (least.log10() - 0.1, most.log10() + 0.1);
    let width = f64::from(size.0 as i32 - LABELS - 30);
    let x = |cost: f64| LABELS + ((cost.log10() - left) / (right - left) * width) as i32;
    let bottom = 70 + (ROW * rows.len() as u32) as i32;

    for power in left.floor() as i32..=right.ceil() as i32 {
        let cost = 10_f64.powi(power);
        if cost.log10() < left || cost.log10() > right {
            continue;
        }
        let at = x(cost);
        let color = if power == 0 { BLACK.mix(0.7) } else { BLACK.mix(0.15) };
        root.draw(&PathElement::new(vec![(at, 60), (at, bottom)], color))?;
        root.draw(&Text::new(format!("{cost} x"), (at - 12, bottom + 8), small.clone()))?;
    }
    let (peer, limit, ours) = (RGBColor(200, 80, 60), RGBColor(70, 140, 90), RGBColor(40, 80, 160));
    for (place, (color, name)) in
        [(ours, "this crate"), (peer, "distkit 0.7.1"), (limit, "raw client, or bare structure")]
            .iter()
            .enumerate()
    {
        let at = LABELS + 170 * place as i32;
        root.draw(&Circle::new((at, 46), 5, color.filled()))?;
        root.draw(&Text::new(*name, (at + 10, 39), small.clone()))?;
    }
    for (row, outcome) in rows.iter().enumerate() {
        let y = 70 + (ROW * row as u32) as i32 + 8;
        let label = format!("{}: {}", outcome.work, outcome.metric.name);
        root.draw(&Text::new(label, (16, y - 7), small.clone()))?;
        for (role, color) in [(Role::Limit, limit), (Role::Peer, peer)] {
            if let Some(cost) = relative_cost(outcome, role) {
                root.draw(&PathElement::new(vec![(x(1.0), y), (x(cost), y)], color.mix(0.5)))?;
                root.draw(&Circle::new((x(cost), y), 5, color.filled()))?;
            }
        }
        root.draw(&Circle::new((x(1.0), y), 5, ours.filled()))?;
    }
    root.present()?;
    Ok(())
}

/// What was measured with what, one line for each contender of each work.
pub(crate) fn contenders(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut last = "";
    for outcome in outcomes {
        if outcome.work == last {
            continue;
        }
        last = &outcome.work;
        let names = |series: &Series| format!("{}: {}", series.role, series.name);
        let all: Vec<_> = outcome.series.iter().map(names).collect();
        let _ = writeln!(text, "- {}: {}", outcome.work, all.join("; "));
    }
    text
}
