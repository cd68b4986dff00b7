//! A section's figures as tables.

use std::fmt::Write;

use crate::results::{Axis, Row, Section};

use super::compared::{Verdict, advantage, figure, names};
use super::text::{self, escaped, place, times};

/// All that was measured, folded away.
pub fn data(section: &Section) -> String {
    if section.rows.is_empty() {
        return String::new();
    }
    let tables = match &section.axis {
        Some(axis) if names(section, |_| true).len() > 1 => along_axis(section, axis),
        axis => by_measure(section, axis.as_ref()),
    };
    format!("<details><summary>All figures</summary>\n{tables}</details>\n")
}

fn head(first: &str, columns: impl Iterator<Item = String>) -> String {
    let columns: String = columns.map(|it| format!("<th scope=\"col\">{}</th>", escaped(&it))).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">{}</th>{columns}</tr></thead>\n<tbody>\n",
        escaped(first)
    )
}

const FOOT: &str = "</tbody></table></div>\n";

/// How many times better casblock is, as a cell.
fn factor(section: &Section, row: Option<&Row>) -> String {
    row.and_then(|row| advantage(section, row)).map_or("<td></td>".to_owned(), |it| {
        format!("<td><b class=\"{}\">{}</b></td>", Verdict::of(it).class(), times(it))
    })
}

/// A row for each contestant or place, a column for each measure.
fn by_measure(section: &Section, axis: Option<&Axis>) -> String {
    let has_ratios = section.rows.iter().any(|row| row.ratio.is_some());
    let columns = section.measures.iter().map(|it| it.label.clone());
    let last = has_ratios.then(|| "casblock is better by".to_owned());
    let first = axis.map_or("", |axis| axis.label.as_str());
    let mut text = head(first, columns.chain(last));
    for row in &section.rows {
        let name = match (axis, row.at) {
            (Some(_), Some(at)) => place(at),
            _ => row.who.clone(),
        };
        let _ = write!(text, "<tr><th scope=\"row\">{}</th>", escaped(&name));
        for (index, measure) in section.measures.iter().enumerate() {
            let cell = figure(row, index).map_or_else(String::new, |it| text::figure(it, measure.unit));
            let _ = write!(text, "<td>{cell}</td>");
        }
        if has_ratios {
            text += &factor(section, Some(row));
        }
        text += "</tr>\n";
    }
    text + FOOT
}

/// A table for each measure and one of ratios: a row for each contestant, a column for each place.
fn along_axis(section: &Section, axis: &Axis) -> String {
    let mut places: Vec<Option<f64>> = Vec::new();
    for row in &section.rows {
        if !places.contains(&row.at) {
            places.push(row.at);
        }
    }
    let columns = || places.iter().map(|at| at.map_or_else(|| "–".to_owned(), place));
    let names = names(section, |_| true);
    let find = |name: &str, at: Option<f64>| section.rows.iter().find(|row| row.who == name && row.at == at);
    let table = |title: &str, cell: &dyn Fn(Option<&Row>) -> String| {
        let mut text = format!("<h4>{}</h4>\n{}", escaped(title), head(&axis.label, columns()));
        for name in &names {
            let cells: String = places.iter().map(|at| cell(find(name, *at))).collect();
            let _ = writeln!(text, "<tr><th scope=\"row\">{}</th>{cells}</tr>", escaped(name));
        }
        text + FOOT
    };
    let mut text = String::new();
    for (index, measure) in section.measures.iter().enumerate() {
        text += &table(&measure.label, &|row| {
            let cell = row.and_then(|row| figure(row, index)).map(|it| text::figure(it, measure.unit));
            format!("<td>{}</td>", cell.unwrap_or_default())
        });
    }
    if section.rows.iter().any(|row| row.ratio.is_some()) {
        let first = section.measures.first().map_or("", |measure| measure.label.as_str());
        text += &table(&format!("{first}: how many times better casblock is"), &|row| factor(section, row));
    }
    text
}
