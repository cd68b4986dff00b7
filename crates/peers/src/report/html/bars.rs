//! One measure of all contestants: a bar each, or a mark on a stem where the axis is logarithmic.

use std::fmt::Write;

use crate::results::{Figure, Kind, Measure, Row, Section};

use super::compared::{self, Verdict, advantage_by};
use super::scale::Scale;
use super::text::{self, escaped, tick, times};

/// From what ratio of the greatest to the least on the axis is logarithmic.
const LOGARITHMIC_FROM: f64 = 30.0;

/// A plot of one measure of a section without an axis; nothing where it has no figures.
pub fn bars(section: &Section, index: usize, measure: &Measure) -> String {
    let figures: Vec<(&Row, Option<&Figure>)> =
        section.rows.iter().map(|row| (row, compared::figure(row, index))).collect();
    let Some(scale) = scale(section, index) else { return String::new() };
    let ground = ground(&scale, measure, &figures);
    let has_factors = figures.iter().any(|(row, _)| shown_factor(section, row, index).is_some());
    let mut text = String::new();
    for (row, figure) in &figures {
        let factor = shown_factor(section, row, index);
        let factor = factor.map_or_else(String::new, |it| {
            format!("<b class=\"factor {}\">{}</b>", Verdict::of(it).class(), times(it))
        });
        let class = match row.kind {
            Kind::Casblock => "own",
            Kind::Peer => "peer",
            Kind::Limit => "limit",
        };
        let value = figure.map_or("not measured".to_owned(), |figure| text::figure(figure, measure.unit));
        let lane = figure.map_or_else(String::new, |figure| lane(figure, &scale));
        let _ = writeln!(
            text,
            "<div class=\"row {class}\" role=\"listitem\"><span class=\"who\">{}</span>\
             <span class=\"lane\"><svg aria-hidden=\"true\">{ground}{lane}</svg></span>\
             <span class=\"value\">{value}</span>{factor}</div>",
            escaped(&row.who)
        );
    }
    let width = if has_factors { "" } else { " plain" };
    let label = escaped(&format!("{}: {}", section.title, measure.label));
    format!("<div class=\"bars{width}\" role=\"list\" aria-label=\"{label}\">\n{text}{}</div>\n", axis(&scale, measure))
}

/// The axis of one measure.
fn scale(section: &Section, index: usize) -> Option<Scale> {
    let figures = section.rows.iter().filter_map(|row| compared::figure(row, index));
    Scale::of(figures.flat_map(compared::shown), LOGARITHMIC_FROM)
}

/// How many times better casblock is than a row; only for those that it is compared with.
fn shown_factor(section: &Section, row: &Row, index: usize) -> Option<f64> {
    if row.kind == Kind::Peer { advantage_by(section, row, index) } else { None }
}

/// In percent of the lane.
fn percent(scale: &Scale, value: f64) -> f64 {
    100.0 * scale.share(value)
}

/// The grid, and a line at the limits.
fn ground(scale: &Scale, measure: &Measure, figures: &[(&Row, Option<&Figure>)]) -> String {
    let line = |class: &str, at: f64| {
        let x = percent(scale, at);
        format!("<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"100%\"/>")
    };
    let grid: String = scale.ticks(measure.unit, 5).into_iter().map(|at| line("grid", at)).collect();
    let limits = figures.iter().filter(|(row, _)| row.kind == Kind::Limit).filter_map(|(_, figure)| *figure);
    grid + &limits.filter(|figure| figure.median.is_finite()).map(|it| line("least", it.median)).collect::<String>()
}

/// A bar, or a mark on a stem, and a whisker from one quartile to the other.
fn lane(figure: &Figure, scale: &Scale) -> String {
    if !figure.median.is_finite() {
        return String::new();
    }
    let [at, low, high] = [figure.median, figure.low, figure.high].map(|value| percent(scale, value));
    let shape = if scale.is_logarithmic {
        format!(
            "<line class=\"stem\" x1=\"0\" x2=\"{at:.2}%\" y1=\"50%\" y2=\"50%\"/>\
             <circle class=\"dot\" cx=\"{at:.2}%\" cy=\"50%\" r=\"5.5\"/>"
        )
    } else {
        format!("<rect class=\"bar\" y=\"20%\" width=\"{:.2}%\" height=\"60%\" rx=\"2\"/>", at.max(0.3))
    };
    // Less than that hides behind the mark.
    if high - low < 0.4 {
        return shape;
    }
    format!("{shape}<line class=\"whisker\" x1=\"{low:.2}%\" x2=\"{high:.2}%\" y1=\"50%\" y2=\"50%\"/>")
}

fn axis(scale: &Scale, measure: &Measure) -> String {
    let mut text =
        "<div class=\"row ends\" aria-hidden=\"true\"><span class=\"who\"></span><span class=\"ticks\">".to_owned();
    // At the very end a label would stick out.
    for at in scale.ticks(measure.unit, 5).into_iter().filter(|at| percent(scale, *at) < 97.0) {
        let _ = write!(text, "<span style=\"left:{:.2}%\">{}</span>", percent(scale, at), tick(at, measure.unit));
    }
    text + "</span><span class=\"value\"></span></div>\n"
}

/// What a reader of these bars is told beside what they show.
pub fn note(section: &Section, index: usize) -> String {
    let is_logarithmic = scale(section, index).is_some_and(|scale| scale.is_logarithmic);
    let has_factors = section.rows.iter().any(|row| shown_factor(section, row, index).is_some());
    let (axis, factors) = (", on a logarithmic axis", "; ×: how many times better casblock is");
    format!("{}{}", if is_logarithmic { axis } else { "" }, if has_factors { factors } else { "" })
}
