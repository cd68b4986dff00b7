//! Plots of what lies along an axis, drawn by plotters.
//!
//! plotters writes colours as numbers, and pixels as whole ones. So plots are drawn [`FINE`] times as large, in colours
//! that stand for the page's own, light or dark, which are put in their place afterwards.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::html::compared;
use super::html::marks::{COLOURS, Look, Looks};
use super::html::scale::Scale;
use super::html::text::{place, tick};
use crate::results::{Axis, Figure, Kind, Measure, Section, Unit};

/// Pixels of a drawing for one of the page.
const FINE: f64 = 10.0;

/// From what ratio of the greatest to the least on values are on a logarithmic axis.
const LOGARITHMIC_FROM: f64 = 8.0;

/// Stand for the colours of text, of what is less important, of the grid, and of the ground.
const INK: RGBColor = RGBColor(2, 0, 1);
const DIM: RGBColor = RGBColor(2, 0, 2);
const GRID: RGBColor = RGBColor(2, 0, 3);
const CARD: RGBColor = RGBColor(2, 0, 4);

/// Stands for the colour of a contestant.
fn colour(look: Look) -> RGBColor {
    RGBColor(1, 0, look.colour as u8)
}

/// Puts the page's colours in place.
fn with_page_colours(mut svg: String) -> String {
    let named = [(INK, "ink"), (DIM, "dim"), (GRID, "grid"), (CARD, "card")].map(|(it, name)| (it, name.to_owned()));
    let series = (0..=COLOURS).map(|index| (RGBColor(1, 0, index as u8), format!("s{index}")));
    for (colour, name) in named.into_iter().chain(series) {
        let number = format!("\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        svg = svg.replace(&number, &format!("\"var(--{name})\""));
    }
    svg
}

/// How large a plot is, and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    width: f64,
    height: f64,
    /// Room for the marks of the axis at the left.
    left: f64,
    /// Room for names at the right; with none, a legend must tell them.
    right: f64,
    text: f64,
    ticks: usize,
    class: &'static str,
}

/// For a page wide enough for names beside the lines.
pub const WIDE: Size =
    Size { width: 760.0, height: 380.0, left: 78.0, right: 196.0, text: 13.5, ticks: 9, class: "plot wide" };

/// For a telephone.
pub const NARROW: Size =
    Size { width: 330.0, height: 330.0, left: 62.0, right: 14.0, text: 12.5, ticks: 5, class: "plot narrow" };

const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// What one contestant made of it along the axis.
struct Series<'r> {
    name: &'r str,
    kind: Kind,
    look: Look,
    points: Vec<(f64, Figure)>,
}

type Drawing<'d> = DrawingArea<SVGBackend<'d>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// A plot of one measure of a section along its axis; `None` if there is nothing to plot.
pub fn along_axis(section: &Section, index: usize, axis: &Axis, looks: &Looks, size: Size) -> Result<Option<String>> {
    let Some(measure) = section.measures.get(index) else { return Ok(None) };
    let series = series(section, index, looks);
    let places = places(&series);
    let values = series.iter().flat_map(|it| &it.points).flat_map(|(_, figure)| compared::shown(figure));
    let (Some(y), Some(&first), Some(&last)) = (Scale::of(values, LOGARITHMIC_FROM), places.first(), places.last())
    else {
        return Ok(None);
    };
    let x = Scale::between(first, last, axis.doubles || last > 10.0 * first);
    let plot = Plot { size, x, y, unit: measure.unit, several: series.len() > 1 };
    let mut svg = String::new();
    plot.draw(&mut svg, &series, &places, axis).map_err(|error| anyhow!("drawing {}: {error}", section.id))?;
    Ok(Some(plot.framed(&with_page_colours(svg), &label(section, measure, axis))))
}

/// What those are told who do not see a plot.
fn label(section: &Section, measure: &Measure, axis: &Axis) -> String {
    super::html::text::escaped(&format!(
        "{}: {} against {}. The figures follow as a table.",
        section.title, measure.label, axis.label
    ))
}

fn series<'r>(section: &'r Section, index: usize, looks: &Looks) -> Vec<Series<'r>> {
    let of_one = |name: &'r str| {
        let rows = section.rows.iter().filter(|row| row.who == name);
        let kind = rows.clone().next()?.kind;
        let is_number = |(at, figure): &(f64, Figure)| at.is_finite() && figure.median.is_finite();
        let mut points: Vec<(f64, Figure)> =
            rows.filter_map(|row| Some((row.at?, *compared::figure(row, index)?))).filter(is_number).collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        (!points.is_empty()).then(|| Series { name, kind, look: looks.look(name), points })
    };
    compared::names(section, |_| true).into_iter().filter_map(of_one).collect()
}

/// Where on the axis there are rows, each once.
fn places(series: &[Series]) -> Vec<f64> {
    let mut places: Vec<f64> = series.iter().flat_map(|it| &it.points).map(|(at, _)| *at).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

struct Plot {
    size: Size,
    x: Scale,
    y: Scale,
    unit: Unit,
    /// Whether there is more than one line, so that they need names.
    several: bool,
}

/// A point of the page as one of the drawing.
fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn stroke(colour: RGBColor, width: f64) -> ShapeStyle {
    ShapeStyle::from(colour).stroke_width((width * FINE) as u32)
}

impl Plot {
    /// Room for names at the right, if there are any to tell.
    fn right(&self) -> f64 {
        if self.several { self.size.right } else { self.size.right.min(24.0) }
    }

    fn at_x(&self, place: f64) -> f64 {
        // Marks at the ends stay clear of the frame.
        let (inset, room) = (14.0, self.size.width - self.size.left - self.right() - 28.0);
        self.size.left + inset + room * self.x.share(place)
    }

    fn at_y(&self, value: f64) -> f64 {
        self.size.height - BOTTOM - (self.size.height - BOTTOM - TOP) * self.y.share(value)
    }

    fn draw(&self, svg: &mut String, series: &[Series], places: &[f64], axis: &Axis) -> Drawn {
        let size = (fine((self.size.width, 0.0)).0 as u32, fine((0.0, self.size.height)).1 as u32);
        let root = SVGBackend::with_string(svg, size).into_drawing_area();
        self.grid(&root, places, axis)?;
        // casblock last: over the others.
        for it in series.iter().filter(|it| it.kind != Kind::Casblock) {
            self.line(&root, it)?;
        }
        for it in series.iter().filter(|it| it.kind == Kind::Casblock) {
            self.line(&root, it)?;
        }
        if self.several && self.size.right > 100.0 {
            self.names(&root, series)?;
        }
        root.present()?;
        Ok(())
    }

    fn text(&self, root: &Drawing, text: &str, at: (f64, f64), (colour, pos): (RGBColor, Pos)) -> Drawn {
        // plotters divides sizes of text by that.
        let height = 1.24 * self.size.text * FINE;
        let style = ("sans-serif", height).into_font().color(&colour).pos(pos);
        root.draw(&Text::new(text.to_owned(), fine(at), style))?;
        Ok(())
    }

    fn grid(&self, root: &Drawing, places: &[f64], axis: &Axis) -> Drawn {
        let (left, right) = (self.size.left, self.size.width - self.right());
        let foot = self.size.height - BOTTOM;
        for value in self.y.ticks(self.unit, 6) {
            let y = self.at_y(value);
            root.draw(&PathElement::new([fine((left, y)), fine((right, y))], stroke(GRID, 1.0)))?;
            let style = (DIM, Pos::new(HPos::Right, VPos::Center));
            self.text(root, &tick(value, self.unit), (left - 8.0, y), style)?;
        }
        root.draw(&PathElement::new([fine((left, foot)), fine((right, foot))], stroke(DIM, 1.0)))?;
        let step = places.len().div_ceil(self.size.ticks).max(1);
        for &at in places.iter().step_by(step) {
            let x = self.at_x(at);
            root.draw(&PathElement::new([fine((x, foot)), fine((x, foot + 5.0))], stroke(DIM, 1.0)))?;
            self.text(root, &place(at), (x, foot + 8.0), (DIM, Pos::new(HPos::Center, VPos::Top)))?;
        }
        let style = (DIM, Pos::new(HPos::Center, VPos::Bottom));
        self.text(root, &axis.label, ((left + right) / 2.0, self.size.height - 4.0), style)
    }

    fn line(&self, root: &Drawing, series: &Series) -> Drawn {
        let colour = if series.kind == Kind::Limit { DIM } else { colour(series.look) };
        let width = if series.kind == Kind::Casblock { 3.4 } else { 1.7 };
        let mut points: Vec<(i32, i32)> =
            series.points.iter().map(|(at, it)| fine((self.at_x(*at), self.at_y(it.median)))).collect();
        if series.kind == Kind::Limit {
            // From end to end, though it was measured at one place: the caption says where.
            if let [(_, y)] = points[..] {
                points = vec![(fine((self.size.left, 0.0)).0, y), (fine((self.size.width - self.right(), 0.0)).0, y)];
            }
            root.draw(&DashedPathElement::new(points, 60, 45, stroke(colour, width)))?;
            return Ok(());
        }
        for (at, figure) in &series.points {
            let [low, high] = [figure.low, figure.high].map(|value| fine((self.at_x(*at), self.at_y(value))));
            root.draw(&PathElement::new([low, high], stroke(colour, 1.2)))?;
        }
        root.draw(&PathElement::new(points.clone(), stroke(colour, width)))?;
        for point in points {
            self.mark(root, series, point)?;
        }
        Ok(())
    }

    fn mark(&self, root: &Drawing, series: &Series, (x, y): (i32, i32)) -> Drawn {
        let radius = if series.kind == Kind::Casblock { 5.4 } else { 4.4 } * FINE;
        let style = colour(series.look).filled();
        if series.look.shape == 0 {
            root.draw(&Circle::new((x, y), radius as i32, style))?;
            return Ok(());
        }
        let outline = series.look.outline(radius).into_iter().map(|(dx, dy)| (x + dx as i32, y + dy as i32));
        root.draw(&Polygon::new(outline.collect::<Vec<_>>(), style))?;
        Ok(())
    }

    /// Names beside the last marks, moved apart where they would lie on each other.
    fn names(&self, root: &Drawing, series: &[Series]) -> Drawn {
        let edge = self.size.width - self.right();
        let ends: Vec<(f64, f64)> = series
            .iter()
            .filter_map(|it| it.points.last())
            .map(|(at, it)| (self.at_x(*at), self.at_y(it.median)))
            .collect();
        let wanted: Vec<f64> = ends.iter().map(|(_, y)| *y).collect();
        let room = (TOP, self.size.height - 8.0);
        for ((it, (x, y)), lies) in series.iter().zip(&ends).zip(apart(&wanted, self.size.text * 1.3, room)) {
            let (from, to) = ((x + 9.0, *y), (edge + 10.0, lies));
            let from = if it.kind == Kind::Limit { (edge, *y) } else { from };
            root.draw(&PathElement::new([fine(from), fine(to)], stroke(GRID, 1.0)))?;
            if it.kind != Kind::Limit {
                self.mark(root, it, fine((edge + 16.0, lies)))?;
            }
            let ink = if it.kind == Kind::Limit { DIM } else { INK };
            self.text(root, it.name, (edge + 26.0, lies), (ink, Pos::new(HPos::Left, VPos::Center)))?;
        }
        Ok(())
    }

    /// The drawing as the page's: it takes its size from there, and says what it shows.
    fn framed(&self, svg: &str, label: &str) -> String {
        let (_, inside) = svg.split_once('>').unwrap_or(("", "</svg>"));
        let (width, height) = fine((self.size.width, self.size.height));
        let class = self.size.class;
        format!("<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">{inside}")
    }
}

/// Heights at least `gap` from each other, near the wanted ones, and within the room if there is enough.
fn apart(wanted: &[f64], gap: f64, (top, bottom): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut heights = wanted.to_vec();
    let mut least = top;
    for &index in &order {
        heights[index] = heights[index].max(least);
        least = heights[index] + gap;
    }
    let mut most = bottom;
    for &index in order.iter().rev() {
        heights[index] = heights[index].min(most);
        most = heights[index] - gap;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_moved_apart() {
        assert_eq!(apart(&[50.0, 50.0, 10.0], 10.0, (0.0, 100.0)), [50.0, 60.0, 10.0]);
        assert_eq!(apart(&[99.0, 98.0], 10.0, (0.0, 100.0)), [100.0, 90.0]);
        assert_eq!(apart(&[], 10.0, (0.0, 100.0)), [0.0; 0]);
    }
}
