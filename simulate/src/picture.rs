use std::{error::Error, ops::Range, path::Path};

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::engine::{Config, Report, Sample, Span, SpanKind};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const WIDTH: u32 = 1400;
const HEADER: u32 = 92;
const TOTALS: u32 = 430;
const LANE: u32 = 24;
const HOURS_AXIS: u32 = 48;
/// Left of the plots, for the labels of their axes.
const MARGIN: u32 = 78;
const EDGE: u32 = 10;
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(38, 44, 56);
const PALE_INK: RGBColor = RGBColor(120, 126, 138);
const TOTAL: RGBColor = RGBColor(18, 78, 150);
const OPEN: RGBColor = RGBColor(150, 196, 232);
const BELIEF: RGBColor = RGBColor(226, 132, 24);
const ALIVE: RGBColor = RGBColor(226, 238, 228);

fn look(kind: SpanKind) -> (RGBColor, &'static str) {
    match kind {
        SpanKind::Dead => (RGBColor(52, 56, 66), "crashed"),
        SpanKind::Cut => (RGBColor(216, 64, 58), "cut off"),
        SpanKind::Hung => (RGBColor(146, 84, 178), "hung"),
        SpanKind::Flaky => (RGBColor(240, 184, 64), "slow or lossy"),
        SpanKind::StoreDown => (RGBColor(110, 118, 130), "store down"),
        SpanKind::NodeDown => (RGBColor(70, 110, 200), "node down"),
        SpanKind::StoreLost => (RGBColor(196, 24, 90), "store emptied"),
        SpanKind::Evicted => (RGBColor(120, 84, 40), "members lost"),
        SpanKind::ClockStep => (RGBColor(40, 140, 140), "clock steps"),
    }
}

pub(crate) fn draw(path: &Path, config: &Config, report: &Report) -> Drawn {
    let lanes = LANE * u32::try_from(config.instances)? + HOURS_AXIS;
    let area = SVGBackend::new(path, (WIDTH, HEADER + TOTALS + lanes)).into_drawing_area();
    area.fill(&WHITE)?;
    let (header, rest) = area.split_vertically(HEADER);
    let (upper, lower) = rest.split_vertically(TOTALS);
    let hours = 0.0..hours(report.simulated);
    draw_header(&header, config, report)?;
    draw_totals(&upper, report, hours.clone())?;
    draw_lanes(&lower, config, report, hours)?;
    area.present()?;
    Ok(())
}

fn hours(ms: u64) -> f64 {
    ms as f64 / 3_600_000.0
}

fn draw_header(area: &Area<'_>, config: &Config, report: &Report) -> Drawn {
    let Config { seed, instances, .. } = config;
    let title = format!("{instances} processes count their open connections (seed {seed})");
    area.draw(&Text::new(title, (MARGIN as i32, 14), (FONT, 24).into_font().color(&INK)))?;
    let verdict = if report.violation.is_none() { "all rules held" } else { "A RULE WAS BROKEN" };
    let stats = &report.stats;
    let subtitle = format!(
        "{} operations, {} crashes, {} cuts, {} hangs, {} restarts of the store: {verdict}",
        stats.acknowledged + stats.not_applied + stats.unknown,
        stats.crashes,
        stats.cuts,
        stats.hangs,
        stats.store_restarts,
    );
    area.draw(&Text::new(subtitle, (MARGIN as i32, 42), (FONT, 15).into_font().color(&PALE_INK)))?;

    // The width of a letter is a guess: it is the viewer that has the font.
    let mut x = MARGIN as i32;
    let mut entry = |width: i32, label: &str, draw: &dyn Fn(i32) -> Drawn| -> Drawn {
        draw(x)?;
        area.draw(&Text::new(
            label.to_owned(),
            (x + width + 6, 69),
            (FONT, 14).into_font().color(&INK),
        ))?;
        x += width + 30 + 7 * i32::try_from(label.len())?;
        Ok(())
    };
    let boxed = |color: RGBColor| {
        move |x: i32| -> Drawn {
            Ok(area.draw(&Rectangle::new([(x, 69), (x + 16, 83)], color.filled()))?)
        }
    };
    let line = |color: RGBColor, width: u32| {
        move |x: i32| -> Drawn {
            let style = color.stroke_width(width);
            Ok(area.draw(&PathElement::new([(x, 76), (x + 22, 76)], style))?)
        }
    };
    entry(16, "open", &boxed(OPEN))?;
    entry(22, "total in the store", &line(TOTAL, 3))?;
    entry(22, "estimates", &line(BELIEF, 1))?;
    // What cannot happen needs no entry.
    let of_clusters = (config.shards > 1).then_some(SpanKind::NodeDown);
    let kinds = [
        SpanKind::Dead,
        SpanKind::Cut,
        SpanKind::Hung,
        SpanKind::Flaky,
        SpanKind::StoreDown,
        SpanKind::StoreLost,
        SpanKind::Evicted,
        SpanKind::ClockStep,
    ];
    for kind in kinds.into_iter().chain(of_clusters) {
        let (color, label) = look(kind);
        entry(16, label, &boxed(color))?;
    }
    Ok(())
}

fn draw_totals(area: &Area<'_>, report: &Report, hours: Range<f64>) -> Drawn {
    let samples = &report.samples;
    let numbers = |sample: &Sample| {
        sample.beliefs.iter().flatten().copied().chain([sample.total, sample.open]).max()
    };
    let most = samples.iter().filter_map(numbers).max().unwrap_or(0).max(10) as f64 * 1.06;
    let least = samples.iter().map(|sample| sample.total).min().unwrap_or(0).min(0) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_right(24)
        .margin_top(8)
        .x_label_area_size(16)
        .margin_left(EDGE)
        .y_label_area_size(MARGIN - EDGE)
        .build_cartesian_2d(hours, least..most)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.08))
        .axis_style(INK.mix(0.4))
        .x_labels(13)
        .x_label_formatter(&|_| String::new())
        .y_labels(8)
        .y_label_formatter(&|total| format!("{total:.0}"))
        .y_desc("connections")
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()?;

    for span in report.spans.iter().filter(|span| span.slot.is_none()) {
        let (from, to) = visible(span, report);
        let color = look(span.kind).0.mix(0.35).filled();
        chart.draw_series([Rectangle::new([(from, least), (to, most)], color)])?;
    }
    let open = samples.iter().map(|sample| (hours_of(sample), sample.open as f64));
    chart.draw_series(AreaSeries::new(open, 0.0, OPEN.mix(0.55)))?;
    let slots = samples.first().map_or(0, |sample| sample.beliefs.len());
    for slot in 0..slots {
        let belief = |sample: &Sample| Some((hours_of(sample), sample.beliefs[slot]? as f64));
        // A process that has crashed has no estimate: the line has a gap.
        for stretch in samples.split(|sample| sample.beliefs[slot].is_none()) {
            let points = stretch.iter().filter_map(belief);
            chart.draw_series(LineSeries::new(points, BELIEF.mix(0.45)))?;
        }
    }
    let totals = samples.iter().map(|sample| (hours_of(sample), sample.total as f64));
    chart.draw_series(LineSeries::new(totals, TOTAL.stroke_width(2)))?;
    Ok(())
}

fn draw_lanes(area: &Area<'_>, config: &Config, report: &Report, hours: Range<f64>) -> Drawn {
    let count = config.instances as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_right(24)
        .x_label_area_size(HOURS_AXIS)
        .margin_left(EDGE)
        .y_label_area_size(MARGIN - EDGE)
        .build_cartesian_2d(hours.clone(), count..0.0)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(INK.mix(0.4))
        .x_labels(13)
        .x_label_formatter(&|hours| format!("{}", (hours * 1000.0).round() / 1000.0))
        .y_labels(0)
        .x_desc("hours")
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()?;
    let lane = |slot: usize| (slot as f64 + 0.12, slot as f64 + 0.88);
    for slot in 0..config.instances {
        let (top, bottom) = lane(slot);
        chart.draw_series([Rectangle::new(
            [(hours.start, top), (hours.end, bottom)],
            ALIVE.filled(),
        )])?;
        let style = (FONT, 13).into_font().color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
        let middle = LANE as i32 * i32::try_from(slot)? + LANE as i32 / 2;
        let name = format!("p{:02}", slot + 1);
        area.draw(&Text::new(name, (MARGIN as i32 - 10, middle), style))?;
    }
    for span in &report.spans {
        let (from, to) = visible(span, report);
        let (top, bottom) = span.slot.map_or((0.0, count), lane);
        let opacity = if span.slot.is_some() { 1.0 } else { 0.45 };
        let color = look(span.kind).0.mix(opacity).filled();
        chart.draw_series([Rectangle::new([(from, top), (to, bottom)], color)])?;
    }
    Ok(())
}

fn hours_of(sample: &Sample) -> f64 {
    hours(sample.at)
}

/// A span in hours, wide enough to be seen.
fn visible(span: &Span, report: &Report) -> (f64, f64) {
    let whole = hours(report.simulated);
    let from = hours(span.from);
    let to = hours(span.to).min(whole).max(from + whole / 700.0);
    (from, to)
}
