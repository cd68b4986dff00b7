//! Plots of what lies along an axis, drawn by plotters.
//!
//! plotters writes colours as numbers. The plots are drawn in colours that stand for the page's own, light or dark, and
//! these are put in their place afterwards.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::units::with_unit;
use crate::results::{Measure, Row, Section};

/// Pixels of a plot, before the page scales it.
const SIZE: (u32, u32) = (520, 400);

/// Stands for the colour of text.
const INK: RGBColor = RGBColor(2, 0, 1);

/// Stands for the colour of the grid.
const GRID: RGBColor = RGBColor(2, 0, 2);

/// How many series have colours of their own.
pub const COLOURS: usize = 11;

/// Stands for the colour of a series.
fn colour(series: usize) -> RGBColor {
    RGBColor(1, 0, (series % COLOURS) as u8)
}

/// Puts the page's colours in place.
fn with_page_colours(svg: &str) -> String {
    let name = |colour: RGBColor| format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
    let mut svg = svg.replace(&name(INK), "var(--ink)").replace(&name(GRID), "var(--grid)");
    for series in 0..COLOURS {
        svg = svg.replace(&name(colour(series)), &format!("var(--s{series})"));
    }
    svg
}

/// The names of a section's rows, in order.
pub fn names(section: &Section) -> Vec<&str> {
    let mut names = Vec::new();
    for row in &section.rows {
        if !names.contains(&row.who.as_str()) {
            names.push(row.who.as_str());
        }
    }
    names
}

/// A series: what lies where.
type Points = Vec<(f64, f64)>;

fn points(rows: &[Row], who: &str, measure: usize) -> Points {
    let of = |row: &Row| Some((row.at?, row.figures.get(measure)?.as_ref()?.median));
    let points = rows.iter().filter(|row| row.who == who).filter_map(of);
    points.filter(|(x, y)| *x > 0.0 && *y > 0.0 && x.is_finite() && y.is_finite()).collect()
}

/// What a logarithmic axis must span, with room at both ends.
fn span(values: impl Iterator<Item = f64> + Clone, room: f64) -> Option<Range<f64>> {
    let low = values.clone().reduce(f64::min)?;
    let high = values.reduce(f64::max)?;
    Some(low / room..high * room)
}

/// A plot of one measure of a section along its axis; `None` if there is nothing to plot.
pub fn along_axis(section: &Section, index: usize, measure: &Measure, axis: &str) -> Result<Option<String>> {
    let series: Vec<Points> = names(section).iter().map(|who| points(&section.rows, who, index)).collect();
    let all = || series.iter().flatten();
    let Some((x, y)) = span(all().map(|point| point.0), 1.15).zip(span(all().map(|point| point.1), 1.5)) else {
        return Ok(None);
    };
    let mut svg = String::new();
    draw(&mut svg, &series, (x, y), measure, axis).map_err(|error| anyhow!("drawing {}: {error}", section.id))?;
    Ok(Some(with_page_colours(&svg)))
}

fn draw(
    svg: &mut String,
    series: &[Points],
    (x, y): (Range<f64>, Range<f64>),
    measure: &Measure,
    axis: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .margin_right(18)
        .x_label_area_size(52)
        .y_label_area_size(92)
        .build_cartesian_2d(x.log_scale().base(2.0), y.log_scale())?;
    let text = ("sans-serif", 17).into_font().color(&INK);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(axis)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|at| place(at.round()))
        .y_label_formatter(&|value| with_unit(*value, measure.unit))
        .draw()?;
    for (index, points) in series.iter().enumerate() {
        // casblock is the first, and drawn thicker.
        let width = if index == 0 { 4 } else { 2 };
        chart.draw_series(LineSeries::new(points.iter().copied(), colour(index).stroke_width(width)))?;
        for &point in points {
            let (size, style) = (if index == 0 { 6 } else { 5 }, colour(index).filled());
            match index % 3 {
                0 => chart.draw_series([Circle::new(point, size, style)])?,
                1 => chart.draw_series([TriangleMarker::new(point, size + 1, style)])?,
                _ => chart.draw_series([Cross::new(point, size, colour(index).stroke_width(2))])?,
            };
        }
    }
    root.present()?;
    Ok(())
}

/// A place of an axis: large ones as powers of two.
pub fn place(at: f64) -> String {
    let power = at.log2().round();
    if power >= 14.0 { format!("2^{power}") } else { format!("{at}") }
}

/// The mark of a series, for a legend.
pub fn mark(series: usize) -> String {
    let colour = format!("var(--s{})", series % COLOURS);
    let shape = match series % 3 {
        0 => format!(r#"<circle cx="17" cy="6" r="5" fill="{colour}"/>"#),
        1 => format!(r#"<polygon points="17,0 23,11 11,11" fill="{colour}"/>"#),
        _ => format!(r#"<path d="M12 1L22 11M22 1L12 11" stroke="{colour}" stroke-width="2"/>"#),
    };
    let width = if series == 0 { 4 } else { 2 };
    format!(
        r#"<svg viewBox="0 0 34 12" aria-hidden="true"><path d="M0 6H34" stroke="{colour}" stroke-width="{width}"/>{shape}</svg>"#
    )
}
