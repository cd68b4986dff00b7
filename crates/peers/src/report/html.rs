//! A run as one page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write;

use anyhow::Result;

use super::plot;
use super::table::{footer, tables};
use super::units::{digits, spread, with_unit};
use crate::results::{Figure, Kind, Measure, Report, Row, Section, Target};

const CSS: &str = include_str!("page.css");

/// As text in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How many times better casblock is than a row, by the section's first measure; less than 1 if it is worse.
fn advantage(section: &Section, row: &Row) -> Option<f64> {
    let (ratio, measure) = (row.ratio?.median, section.measures.first()?);
    let advantage = if measure.less_is_better { 1.0 / ratio } else { ratio };
    (advantage.is_finite() && advantage > 0.0).then_some(advantage)
}

/// What is within that of another is as good.
const AS_GOOD: f64 = 1.05;

/// The page.
pub fn html(report: &Report) -> Result<String> {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>casblock, side by side</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n\
         <h1>casblock beside what people would use instead</h1>\n<p class=\"dim\">{}</p>\n",
        code(&escaped(&footer(report)))
    );
    page += &overview(report);
    page += &losses(report);
    page += &targets(&report.targets);
    for section in &report.sections {
        page += &of_section(section)?;
    }
    page += &contestants(report);
    page += "</body>\n</html>\n";
    Ok(page)
}

/// What stands between grave accents, as code.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

/// The rows of a section that are compared in the overview: all, or those at the middle of the axis.
fn compared(section: &Section) -> impl Iterator<Item = &Row> {
    let mut places: Vec<f64> = section.rows.iter().filter_map(|row| row.at).collect();
    places.dedup();
    let middle = places.get(places.len() / 2).copied();
    section.rows.iter().filter(move |row| row.at == middle && row.kind != Kind::Casblock)
}

/// A table of all contestants and all workloads.
fn overview(report: &Report) -> String {
    let sections: Vec<&Section> = report.sections.iter().filter(|section| compared(section).next().is_some()).collect();
    if sections.is_empty() {
        return String::new();
    }
    let mut text =
        "<section>\n<h2>How many times better casblock is</h2>\n<p>More than 1: casblock is faster, or does more \
                    in a second. Less than 1, marked: the other is. Along an axis, at its middle.</p>\n\
                    <div class=\"scroll\"><table class=\"overview\">\n<tr><th></th>"
            .to_owned();
    for section in &sections {
        let _ = write!(text, "<th><a href=\"#{}\">{}</a></th>", escaped(&section.id), escaped(&section.title));
    }
    text += "</tr>\n";
    let mut names: Vec<&str> = Vec::new();
    for row in sections.iter().flat_map(|section| compared(section)).filter(|row| row.kind == Kind::Peer) {
        if !names.contains(&row.who.as_str()) {
            names.push(&row.who);
        }
    }
    for name in names {
        let _ = write!(text, "<tr><td>{}</td>", escaped(name));
        for section in &sections {
            let row = compared(section).find(|row| row.who == name);
            text += &row.and_then(|row| advantage(section, row)).map_or("<td></td>".to_owned(), cell);
        }
        text += "</tr>\n";
    }
    text + "</table></div>\n</section>\n"
}

fn cell(advantage: f64) -> String {
    let class = match advantage {
        it if it > AS_GOOD => " class=\"good\"",
        it if it * AS_GOOD < 1.0 => " class=\"bad\"",
        _ => "",
    };
    format!("<td{class}>{} ×</td>", digits(advantage))
}

/// Where another is better: for each section who, by how much at most, and where on the axis.
fn losses(report: &Report) -> String {
    let mut text = "<section>\n<h2>Where casblock loses</h2>\n".to_owned();
    let lost: Vec<(&Section, Vec<String>)> = report.sections.iter().map(|section| (section, better(section))).collect();
    if lost.iter().all(|(_, better)| better.is_empty()) {
        return text + "<p>Nowhere in this run.</p>\n</section>\n";
    }
    text += "<p>By more than 5 % of the median. Most of these keep their blocks in one process, and nothing of them is left \
             when it dies: see the end of this page.</p>\n<ul>\n";
    for (section, better) in lost.into_iter().filter(|(_, better)| !better.is_empty()) {
        let (id, title) = (escaped(&section.id), escaped(&section.title));
        let _ = writeln!(text, "<li><a href=\"#{id}\">{title}</a>: {}</li>", escaped(&better.join(", ")));
    }
    text + "</ul>\n</section>\n"
}

/// Who does better than casblock in a section, and how many times at most.
fn better(section: &Section) -> Vec<String> {
    let axis = section.axis.as_ref().map(|axis| axis.label.as_str()).unwrap_or_default();
    let worst = |name: &&str| {
        let rows = section.rows.iter().filter(|row| row.who == *name && row.kind == Kind::Peer);
        let (advantage, row) =
            rows.filter_map(|row| Some((advantage(section, row)?, row))).min_by(|(a, _), (b, _)| a.total_cmp(b))?;
        let at = row.at.map_or_else(String::new, |at| format!(" ({} {axis})", plot::place(at)));
        (advantage * AS_GOOD < 1.0).then(|| format!("{name} {} ×{at}", digits(1.0 / advantage)))
    };
    plot::names(section).iter().filter_map(worst).collect()
}

fn targets(targets: &[Target]) -> String {
    if targets.is_empty() {
        return String::new();
    }
    let mut text = "<section>\n<h2>Targets of this project</h2>\n<div class=\"scroll\"><table>\n\
                    <tr><th></th><th>target</th><th>measured</th><th></th></tr>\n"
        .to_owned();
    for target in targets {
        let (sign, limit) = (if target.less_is_better { "≤" } else { "≥" }, digits(target.limit));
        let met = if target.met { "met" } else { "<span class=\"not\">not met</span>" };
        let (what, measured) = (escaped(&target.text), digits(target.measured));
        let _ = writeln!(
            text,
            "<tr><td class=\"text\">{what}</td><td>{sign} {limit}</td><td>{measured}</td><td>{met}</td></tr>"
        );
    }
    text + "</table></div>\n</section>\n"
}

fn of_section(section: &Section) -> Result<String> {
    let (id, title, about) = (escaped(&section.id), escaped(&section.title), escaped(&section.about));
    let mut text = format!("<section id=\"{id}\">\n<h2>{title}</h2>\n<p>{about}</p>\n");
    match &section.axis {
        None => {
            for (index, measure) in section.measures.iter().enumerate().filter(|(_, measure)| measure.plotted) {
                text += &bars(section, index, measure);
            }
        }
        Some(axis) => {
            let names = plot::names(section);
            for (index, measure) in section.measures.iter().enumerate().filter(|(_, measure)| measure.plotted) {
                let Some(svg) = plot::along_axis(section, index, measure, &axis.label)? else { continue };
                let label = escaped(&format!("{}: {}", section.title, caption(measure)));
                let size = svg.find("<svg ").map_or(svg.clone(), |_| sized(&svg, &label));
                let _ = write!(
                    text,
                    "<figure>\n<figcaption>{}</figcaption>\n{size}\n</figure>\n",
                    escaped(&caption(measure))
                );
            }
            if names.len() > 1 {
                text += "<ul class=\"legend\">\n";
                for (series, name) in names.iter().enumerate() {
                    let _ = writeln!(text, "<li>{}{}</li>", plot::mark(series), escaped(name));
                }
                text += "</ul>\n";
            }
        }
    }
    text += "<details><summary>as a table</summary>\n";
    for table in tables(section) {
        text += "<div class=\"scroll\"><table>\n";
        for (tag, cells) in std::iter::once(("th", &table.head)).chain(table.rows.iter().map(|row| ("td", row))) {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            let _ = writeln!(text, "<tr>{cells}</tr>");
        }
        text += "</table></div>\n";
    }
    Ok(text + "</details>\n</section>\n")
}

/// What a plot shows.
fn caption(measure: &Measure) -> String {
    let better = if measure.less_is_better { "less is better" } else { "more is better" };
    format!("{}, {better}", measure.label)
}

/// An SVG that takes its size from the page, and says what it shows.
fn sized(svg: &str, label: &str) -> String {
    let (head, rest) = svg.split_once('>').unwrap_or((svg, ""));
    let view = head.split_once("viewBox=").map_or("\"0 0 520 400\"", |(_, view)| view.trim());
    let view = view.trim_start_matches('"').split('"').next().unwrap_or("0 0 520 400");
    format!("<svg viewBox=\"{view}\" role=\"img\" aria-label=\"{label}\" xmlns=\"http://www.w3.org/2000/svg\">{rest}")
}

/// From what ratio of the greatest to the least on bars are logarithmic.
const LOGARITHMIC_FROM: f64 = 30.0;

/// The least and the greatest of what bars show.
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn of(figures: &[(&Row, Figure)]) -> Self {
        let values =
            || figures.iter().map(|(_, figure)| figure.median).filter(|value| *value > 0.0 && value.is_finite());
        Self { low: values().fold(f64::INFINITY, f64::min), high: values().fold(0.0, f64::max) }
    }

    fn is_logarithmic(&self) -> bool {
        self.high > LOGARITHMIC_FROM * self.low
    }

    /// How much of the room a bar takes, in percent.
    fn share(&self, value: f64) -> f64 {
        // The rest is for the figure beside it.
        const WIDEST: f64 = 62.0;
        let share = match value {
            value if value.is_nan() || value <= 0.0 || self.high <= 0.0 => 0.0,
            value if self.is_logarithmic() => {
                let low = (self.low / 2.0).ln();
                (value.ln() - low) / (self.high.ln() - low)
            }
            value => value / self.high,
        };
        WIDEST * share.clamp(0.0, 1.0)
    }
}

/// Bars of one measure.
fn bars(section: &Section, index: usize, measure: &Measure) -> String {
    let figures = section.rows.iter().filter_map(|row| Some((row, (*row.figures.get(index)?)?)));
    let figures: Vec<(&Row, Figure)> = figures.collect();
    let span = Span::of(&figures);
    let scale = if span.is_logarithmic() { "; the bars are logarithmic" } else { "" };
    let mut text =
        format!("<figure>\n<figcaption>{}{scale}</figcaption>\n<div class=\"bars\">\n", escaped(&caption(measure)));
    for (row, figure) in figures {
        let (class, own) = match row.kind {
            Kind::Casblock => ("bar casblock", " own"),
            Kind::Peer => ("bar", ""),
            Kind::Limit => ("bar limit", ""),
        };
        let advantage = advantage(section, row).filter(|_| index == 0);
        let times = advantage.map_or_else(String::new, |it| format!(" <small>casblock {} ×</small>", digits(it)));
        let value = escaped(&format!("{}{}", with_unit(figure.median, measure.unit), spread(&figure)));
        let _ = writeln!(
            text,
            "<div class=\"name{own}\">{}</div><div class=\"lane\"><div class=\"{class}\" style=\"width:{:.1}%\"></div>\
             <div class=\"value\">{value}{times}</div></div>",
            escaped(&row.who),
            span.share(figure.median)
        );
    }
    text + "</div>\n</figure>\n"
}

fn contestants(report: &Report) -> String {
    let mut text = "<section>\n<h2>Who was compared</h2>\n<div class=\"scroll\"><table>\n\
                    <tr><th></th><th>used as</th><th>what survives when a process that uses it dies</th></tr>\n"
        .to_owned();
    for contestant in &report.contestants {
        let [name, used, survives] = [&contestant.name, &contestant.used, &contestant.survives].map(|it| escaped(it));
        let _ =
            writeln!(text, "<tr><td>{name}</td><td class=\"text\">{used}</td><td class=\"text\">{survives}</td></tr>");
    }
    text + "</table></div>\n</section>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Contestant, Machine, Unit};

    fn report(rows: Vec<Row>) -> Report {
        let measure = Measure { label: "time".into(), unit: Unit::Nanoseconds, less_is_better: true, plotted: true };
        let section = Section {
            id: "one".into(),
            title: "A <b> & \"c\"".into(),
            about: String::new(),
            measures: vec![measure],
            axis: None,
            rows,
        };
        Report {
            command: "run".into(),
            began_unix_s: 0,
            took_s: 1.0,
            machine: Machine {
                processor: String::new(),
                cores: 2,
                kernel: String::new(),
                rustc: String::new(),
                pinned: true,
                file_systems: [String::new(), String::new()],
            },
            contestants: vec![Contestant { name: "<lock>".into(), used: String::new(), survives: String::new() }],
            sections: vec![section],
            targets: vec![],
        }
    }

    fn row(who: &str, kind: Kind, value: Option<f64>, ratio: Option<f64>) -> Row {
        let figure = |median| Figure { median, low: median, high: median };
        Row { who: who.into(), kind, at: None, figures: vec![value.map(figure)], ratio: ratio.map(figure) }
    }

    #[test]
    fn losses_are_told_and_nothing_else() {
        let rows = vec![
            row("casblock", Kind::Casblock, Some(10.0), None),
            row("<lock>", Kind::Peer, Some(8.0), Some(1.25)),
            row("as good", Kind::Peer, Some(9.8), Some(1.02)),
            row("slow", Kind::Peer, Some(20.0), Some(0.5)),
            row("limit", Kind::Limit, Some(1.0), Some(10.0)),
        ];
        let page = html(&report(rows)).unwrap();
        let (_, rest) = page.split_once("Where casblock loses").unwrap();
        let (losses, _) = rest.split_once("</section>").unwrap();
        assert!(losses.contains("&lt;lock&gt; 1.25 ×"), "{losses}");
        assert!(["as good", "slow", "limit"].iter().all(|name| !losses.contains(name)), "{losses}");
        assert!(page.contains("A &lt;b&gt; &amp; &quot;c&quot;") && !page.contains("<lock>"));
    }

    #[test]
    fn no_loss_is_told_as_well() {
        let page = html(&report(vec![row("casblock", Kind::Casblock, Some(1.0), None)])).unwrap();
        assert!(page.contains("Nowhere in this run"));
    }

    #[test]
    fn values_that_cannot_be_drawn_do_no_harm() {
        for value in [Some(0.0), Some(f64::INFINITY), Some(f64::NAN), None] {
            let rows = vec![
                row("casblock", Kind::Casblock, value, None),
                row("other", Kind::Peer, value, value),
                row("third", Kind::Peer, Some(1.0), Some(1.0)),
            ];
            let page = html(&report(rows)).unwrap();
            assert!(!page.contains("width:NaN") && !page.contains("width:inf"), "{value:?}");
        }
        html(&report(vec![])).unwrap();
    }
}
