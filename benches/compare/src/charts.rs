//! The charts.

use std::{error::Error, path::Path};

use plotters::{coord::Shift, prelude::*};

use crate::{
    measure::{Outcome, Role},
    report::by_work,
};

const OURS: RGBColor = RGBColor(40, 80, 160);
const PEER: RGBColor = RGBColor(200, 80, 60);
const LIMIT: RGBColor = RGBColor(70, 140, 90);
const LEGEND: [(RGBColor, &str); 3] =
    [(OURS, "this crate"), (PEER, "distkit 0.7.1"), (LIMIT, "raw client, or bare structure")];

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How many times as much as ours another one costs; less than 1 where it is cheaper.
fn relative_cost(outcome: &Outcome, role: Role) -> Option<f64> {
    let ratio = 1.0 / outcome.ratio(role)?;
    let cost = if outcome.metric.unit.more_is_better() { 1.0 / ratio } else { ratio };
    (cost.is_finite() && cost > 0.0).then_some(cost)
}

/// Draws each work that has somebody to compare with: what the others cost, ours being 1.
pub(crate) fn costs(outcomes: &[Outcome], path: &Path) -> Result<(), Box<dyn Error>> {
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
    legend(&root, LABELS, &LEGEND)?;
    for (row, outcome) in rows.iter().enumerate() {
        let y = 70 + (ROW * row as u32) as i32 + 8;
        let label = format!("{}: {}", outcome.work, outcome.metric.name);
        root.draw(&Text::new(label, (16, y - 7), small.clone()))?;
        for (role, color) in [(Role::Limit, LIMIT), (Role::Peer, PEER)] {
            if let Some(cost) = relative_cost(outcome, role) {
                root.draw(&PathElement::new(vec![(x(1.0), y), (x(cost), y)], color.mix(0.5)))?;
                root.draw(&Circle::new((x(cost), y), 5, color.filled()))?;
            }
        }
        root.draw(&Circle::new((x(1.0), y), 5, OURS.filled()))?;
    }
    root.present()?;
    Ok(())
}

fn legend(
    canvas: &Canvas<'_>,
    left: i32,
    entries: &[(RGBColor, &str)],
) -> Result<(), Box<dyn Error>> {
    let small = ("sans-serif", 13).into_font().color(&BLACK);
    for (place, (color, name)) in entries.iter().enumerate() {
        let at = left + 170 * place as i32;
        canvas.draw(&Circle::new((at, 46), 5, color.filled()))?;
        canvas.draw(&Text::new(*name, (at + 10, 39), small.clone()))?;
    }
    Ok(())
}

/// Draws each work that grows, over its size.
pub(crate) fn growth(outcomes: &[Outcome], path: &Path) -> Result<(), Box<dyn Error>> {
    let works = by_work(outcomes);
    let rows = works.len().div_ceil(2);
    let size = (1180, 80 + 300 * rows as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    let title = ("sans-serif", 18).into_font().color(&BLACK);
    root.draw(&Text::new("How cost grows (both axes logarithmic)", (16, 14), title))?;
    legend(&root, 16, &[LEGEND[0], LEGEND[2]])?;
    let (_, below) = root.split_vertically(70);
    for (panel, work) in below.split_evenly((rows, 2)).iter().zip(&works) {
        curve(panel, work)?;
    }
    root.present()?;
    Ok(())
}

fn curve(panel: &Canvas<'_>, work: &[&Outcome]) -> Result<(), Box<dyn Error>> {
    let points = |role: Role| -> Vec<(f64, f64)> {
        let point =
            |outcome: &&Outcome| Some((outcome.size?.number as f64, outcome.of(role)?.median()));
        work.iter().filter_map(point).collect()
    };
    let curves = [(points(Role::Limit), LIMIT), (points(Role::Ours), OURS)];
    let all = || curves.iter().flat_map(|(points, _)| points);
    let span = |of: fn(&(f64, f64)) -> f64| {
        all().map(of).fold((f64::MAX, 0.0_f64), |(least, most), n| (least.min(n), most.max(n)))
    };
    let ((left, right), (least, most)) = (span(|point| point.0), span(|point| point.1));
    // Whole decades: each has a label.
    let (least, most) = (least.log10().floor(), most.log10().ceil());
    let Outcome { work: name, metric, size, .. } = work[0];
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("{name}: {}", metric.name), ("sans-serif", 14))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (left..right * 1.1).log_scale(),
            (10_f64.powf(least)..10_f64.powf(most)).log_scale(),
        )?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc(size.map_or("", |size| size.of))
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|value| metric.unit.show(*value))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (points, color) in &curves {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, color.filled())))?;
    }
    Ok(())
}
