//! A run as one page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`overview`] | all comparisons at a glance |
//! | [`losses`] | where casblock is not the best, and its targets |
//! | [`bars`], [`super::plot`] | plots of a section: of its rows, and along its axis |
//! | [`data`] | the figures behind them |
//! | [`compared`] | who is better, by how much, and where |
//! | [`scale`], [`marks`], [`text`] | what all of them draw and write with |

pub mod compared;
pub mod marks;
pub mod scale;
pub mod text;

mod bars;
mod data;
mod losses;
mod overview;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use anyhow::Result;

use self::compared::names;
use self::marks::Looks;
use self::text::{counted, day, duration, escaped, prose};
use super::plot;
use crate::results::{Axis, Kind, Measure, Report, Section};

const CSS: &str = include_str!("page.css");

/// The page.
pub fn html(report: &Report) -> Result<String> {
    let looks = Looks::of(report);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>casblock beside what people would use instead</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n\
         {}<main>\n",
        top(report)
    );
    page += &overview::overview(report, &looks);
    page += &losses::losses(report);
    page += &losses::targets(&report.targets);
    for section in &report.sections {
        page += &of_section(section, &looks)?;
    }
    page += &contestants(report);
    page += &method(report);
    page += "</main>\n</body>\n</html>\n";
    Ok(page)
}

/// The headline, what was compared, and on what.
fn top(report: &Report) -> String {
    let [better, even, worse] = overview::tally(report);
    let total = better + even + worse;
    let mut text = "<header>\n<h1>casblock beside what people would use instead</h1>\n".to_owned();
    if total > 0 {
        let part = |class: &str, count: usize, what: &str| match count {
            0 => String::new(),
            _ => format!("<li class=\"{class}\" style=\"flex-grow:{count}\"><b>{count}</b> <span>{what}</span></li>\n"),
        };
        let _ = write!(
            text,
            "<p class=\"lead\">Of {total} comparisons in one run, casblock is better in {better}, even in {even} and worse in \
             {worse}.</p>\n<ul class=\"tally\" aria-hidden=\"true\">\n{}{}{}</ul>\n",
            part("better", better, "better"),
            part("even", even, "even"),
            part("worse", worse, "worse"),
        );
    }
    let machine = &report.machine;
    let facts = [
        ("Command", format!("<code>{}</code>", escaped(&report.command))),
        ("Run", format!("{}, {}", day(report.began_unix_s), duration(report.took_s))),
        ("Processor", format!("{}, {} threads at once", escaped(&machine.processor), machine.cores)),
        ("System", format!("{}; {}", escaped(&machine.kernel), escaped(&machine.rustc))),
        (
            "Files",
            format!("{}; flushed ones on {}", escaped(&machine.file_systems[0]), escaped(&machine.file_systems[1])),
        ),
    ];
    text += "<dl class=\"facts\">\n";
    for (name, fact) in facts {
        let _ = writeln!(text, "<div><dt>{name}</dt><dd>{fact}</dd></div>");
    }
    text + "</dl>\n</header>\n"
}

fn of_section(section: &Section, looks: &Looks) -> Result<String> {
    let (id, title, about) = (escaped(&section.id), escaped(&section.title), prose(&section.about));
    let mut text = format!("<section id=\"{id}\">\n<h2>{title}</h2>\n<p>{about}</p>\n");
    for (index, measure) in section.measures.iter().enumerate().filter(|(_, measure)| measure.plotted) {
        let (plot, note) = match &section.axis {
            None => (bars::bars(section, index, measure), bars::note(section, index)),
            Some(axis) => (lines(section, index, axis, looks)?, limit_note(section, axis)),
        };
        if !plot.is_empty() {
            let _ = write!(text, "<figure>\n<figcaption>{}{note}</figcaption>\n{plot}</figure>\n", caption(measure));
        }
    }
    if section.rows.is_empty() {
        text += "<p>Nothing was measured.</p>\n";
    }
    Ok(text + &data::data(section) + "</section>\n")
}

/// What a plot shows.
fn caption(measure: &Measure) -> String {
    let better = if measure.less_is_better { "less is better" } else { "more is better" };
    format!("<b>{}</b>, {better}", escaped(&measure.label))
}

/// Where a limit was measured that is drawn along the whole axis, but holds only there.
fn limit_note(section: &Section, axis: &Axis) -> String {
    let limits = section.rows.iter().filter(|row| row.kind == Kind::Limit);
    let mut places: Vec<f64> = limits.filter_map(|row| row.at).collect();
    places.dedup();
    match places[..] {
        [at] => format!("; the limit is that of {}", escaped(&counted(at, &axis.label))),
        _ => String::new(),
    }
}

/// Lines along the axis, in two sizes of which the page shows one, and a legend for the smaller.
fn lines(section: &Section, index: usize, axis: &Axis, looks: &Looks) -> Result<String> {
    let draw = |size| plot::along_axis(section, index, axis, looks, size);
    let (Some(wide), Some(narrow)) = (draw(plot::WIDE)?, draw(plot::NARROW)?) else { return Ok(String::new()) };
    let mut text = format!("{wide}\n{narrow}\n");
    let names = names(section, |kind| kind != Kind::Limit);
    if names.len() > 1 {
        let items = names.iter().map(|name| format!("<li>{}{}</li>\n", looks.look(name).key(), escaped(name)));
        let limits = compared::names(section, |kind| kind == Kind::Limit);
        let limits = limits.iter().map(|name| format!("<li><span class=\"dashes\"></span>{}</li>\n", escaped(name)));
        let _ = write!(
            text,
            "<ul class=\"legend narrow\" aria-hidden=\"true\">\n{}</ul>\n",
            items.chain(limits).collect::<String>()
        );
    }
    Ok(text)
}

fn contestants(report: &Report) -> String {
    if report.contestants.is_empty() {
        return String::new();
    }
    let mut text = "<section id=\"contestants\">\n<h2>Who was compared</h2>\n<dl class=\"who\">\n".to_owned();
    for contestant in &report.contestants {
        let _ = writeln!(
            text,
            "<div><dt>{}</dt><dd>{}</dd><dd><span class=\"measure\">after a kill</span> {}</dd></div>",
            escaped(&contestant.name),
            prose(&contestant.used),
            prose(&contestant.survives)
        );
    }
    text + "</dl>\n</section>\n"
}

fn method(report: &Report) -> String {
    let pinned = if report.machine.pinned { "Threads were pinned to cores." } else { "Threads were not pinned." };
    format!(
        "<section id=\"method\">\n<h2>How it was measured</h2>\n<ul>\n\
         <li>Rounds take turns: casblock, another, casblock, the next … so that what disturbs the machine for a while \
         disturbs all of them.</li>\n\
         <li>Every figure is a median over rounds. ± is half the distance between the quartiles, in percent of the median; \
         the whisker in a plot goes from one quartile to the other.</li>\n\
         <li>How many times better casblock is: the median of the ratios within rounds, of the first measure of a section; \
         the quotient of the medians for other measures.</li>\n\
         <li>Up to 5 % apart is even.</li>\n\
         <li>A limit is what the machine needs for the copying, comparing or flushing alone.</li>\n\
         <li>{pinned}</li>\n</ul>\n</section>\n"
    )
}
