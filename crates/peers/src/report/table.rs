//! Tables: of text that lines up, for a terminal; of Markdown, for a document.

use std::fmt::Write;

use super::units::{digits, spread, with_unit};
use crate::results::{Measure, Report, Row, Section, Target};

/// A table: its head, and rows as long as it.
pub struct Table {
    /// What its columns are.
    pub head: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// A run as tables in a terminal of so many columns.
pub fn terminal(report: &Report, width: usize) -> String {
    let mut text = String::new();
    for section in &report.sections {
        let _ = write!(text, "\n{}\n{}\n", section.title, wrapped(&section.about, width));
        for table in tables(section) {
            let _ = write!(text, "\n{}", aligned(&table));
        }
    }
    if !report.targets.is_empty() {
        let _ = write!(text, "\nTargets\n\n{}", aligned(&targets(&report.targets)));
    }
    let _ = write!(text, "\n{}\n", wrapped(&footer(report), width));
    text
}

/// A run as Markdown.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("{}\n", wrapped(&footer(report), 120));
    if !report.targets.is_empty() {
        let _ = write!(text, "\n## Targets\n\n{}", bars(&targets(&report.targets)));
    }
    for section in &report.sections {
        let _ = write!(text, "\n## {}\n\n{}\n", section.title, wrapped(&section.about, 120));
        for table in tables(section) {
            let _ = write!(text, "\n{}", bars(&table));
        }
    }
    let mut contestants =
        Table { head: ["", "used as", "survives a kill"].map(str::to_owned).into(), rows: Vec::new() };
    for contestant in &report.contestants {
        contestants.rows.push(vec![contestant.name.clone(), contestant.used.clone(), contestant.survives.clone()]);
    }
    let _ = write!(text, "\n## Contestants\n\n{}", bars(&contestants));
    text
}

/// What was run, and on what.
pub fn footer(report: &Report) -> String {
    let machine = &report.machine;
    let pinned = if machine.pinned { "threads pinned to cores" } else { "threads not pinned" };
    format!(
        "`{}` took {:.0} s on {}, {} cores, {}, {}; {pinned}; files on {}, flushed ones on {}. Medians of rounds that took \
         turns, ± half the distance of the quartiles; ratios within rounds, casblock's figure divided by the other's.",
        report.command,
        report.took_s,
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.rustc,
        machine.file_systems[0],
        machine.file_systems[1],
    )
}

/// The tables of a section: one, or one for each plotted measure where rows lie along an axis.
pub fn tables(section: &Section) -> Vec<Table> {
    let alone = section.rows.iter().all(|row| row.who == section.rows[0].who);
    match &section.axis {
        None => vec![by_measure(section, String::new(), |row| row.who.clone())],
        Some(axis) if alone => vec![by_measure(section, axis.label.clone(), place)],
        Some(axis) => {
            let measures = section.measures.iter().enumerate().filter(|(_, measure)| measure.plotted);
            measures.map(|(index, measure)| along_axis(section, &axis.label, index, measure)).collect()
        }
    }
}

/// Where a row lies.
fn place(row: &Row) -> String {
    row.at.map_or_else(String::new, |at| match at.log2() {
        power if power.fract() == 0.0 && power >= 14.0 => format!("2^{power}"),
        _ => format!("{at}"),
    })
}

/// A table with a column for each measure.
fn by_measure(section: &Section, head: String, name: impl Fn(&Row) -> String) -> Table {
    let has_ratios = section.rows.iter().any(|row| row.ratio.is_some());
    let mut heads = vec![head];
    heads.extend(section.measures.iter().map(|measure| measure.label.clone()));
    if has_ratios {
        heads.push("casblock ÷ this".to_owned());
    }
    let cells = |row: &Row| {
        let mut cells = vec![name(row)];
        for (figure, measure) in row.figures.iter().zip(&section.measures) {
            // There is no room for the spread of many.
            let spread = |figure| if section.measures.len() > 3 { String::new() } else { spread(figure) };
            let text = |figure| format!("{}{}", with_unit_of(figure, measure), spread(figure));
            cells.push(figure.as_ref().map_or_else(String::new, text));
        }
        if has_ratios {
            cells.push(row.ratio.map_or_else(String::new, |ratio| digits(ratio.median)));
        }
        cells
    };
    Table { head: heads, rows: section.rows.iter().map(cells).collect() }
}

fn with_unit_of(figure: &crate::results::Figure, measure: &Measure) -> String {
    with_unit(figure.median, measure.unit)
}

/// A table of one measure, with a column for each place of the axis.
fn along_axis(section: &Section, axis: &str, index: usize, measure: &Measure) -> Table {
    let (mut places, mut names): (Vec<f64>, Vec<&str>) = (Vec::new(), Vec::new());
    for row in &section.rows {
        if let Some(at) = row.at.filter(|at| !places.contains(at)) {
            places.push(at);
        }
        if !names.contains(&row.who.as_str()) {
            names.push(&row.who);
        }
    }
    let mut head = vec![format!("{}, {axis}:", measure.label)];
    head.extend(places.iter().map(f64::to_string));
    let cell = |name: &str, at: f64| {
        let row = section.rows.iter().find(|row| row.who == name && row.at == Some(at))?;
        Some(with_unit_of(row.figures.get(index)?.as_ref()?, measure))
    };
    let row = |name: &str| {
        let cells = places.iter().map(|&at| cell(name, at).unwrap_or_default());
        [name.to_owned()].into_iter().chain(cells).collect()
    };
    Table { head, rows: names.into_iter().map(row).collect() }
}

fn targets(targets: &[Target]) -> Table {
    let row = |target: &Target| {
        let sign = if target.less_is_better { "≤" } else { "≥" };
        let met = if target.met { "met" } else { "NOT MET" };
        vec![target.text.clone(), format!("{sign} {}", digits(target.limit)), digits(target.measured), met.to_owned()]
    };
    Table { head: ["", "target", "measured", ""].map(str::to_owned).into(), rows: targets.iter().map(row).collect() }
}

/// Text broken into lines of at most `width`.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// The first column to the left, the others to the right.
fn aligned(table: &Table) -> String {
    let lines = || [&table.head].into_iter().chain(&table.rows);
    let width = |column: usize| lines().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..table.head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for cells in lines() {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(line, "{cell:width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// As Markdown has it.
fn bars(table: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&table.head) + "|" + &" --- |".repeat(table.head.len()) + "\n";
    table.rows.iter().for_each(|row| text += &line(row));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Axis, Figure, Kind, Unit};

    fn section(axis: bool) -> Section {
        let measure = |label: &str, unit, plotted| Measure { label: label.into(), unit, less_is_better: true, plotted };
        let figure = |median| Some(Figure { median, low: median * 0.9, high: median * 1.1 });
        let row = |who: &str, at, value: f64| Row {
            who: who.into(),
            kind: if who == "casblock" { Kind::Casblock } else { Kind::Peer },
            at,
            figures: vec![figure(value), figure(value * 1000.0)],
            ratio: (who != "casblock").then(|| figure(0.5).unwrap()),
        };
        let places = if axis { vec![Some(2.0), Some(4.0)] } else { vec![None] };
        let rows = places.into_iter().flat_map(|at| [row("casblock", at, 14.3), row("a lock", at, 28.6)]).collect();
        Section {
            id: "s".into(),
            title: "T".into(),
            about: "About it.".into(),
            measures: vec![measure("time", Unit::Nanoseconds, true), measure("rest", Unit::Nanoseconds, false)],
            axis: axis.then(|| Axis { label: "threads".into(), doubles: true }),
            rows,
        }
    }

    #[test]
    fn a_table_has_a_column_for_each_measure_and_the_ratio() {
        let text = aligned(&tables(&section(false))[0]);
        let expected = "               time          rest  casblock ÷ this\n\
                        casblock  14.3 ns ±10 %  14.3 µs ±10 %\n\
                        a lock    28.6 ns ±10 %  28.6 µs ±10 %             0.50\n";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&text), squeezed(expected));
    }

    #[test]
    fn along_an_axis_each_plotted_measure_has_its_table() {
        let tables = tables(&section(true));
        assert_eq!(tables.len(), 1, "the other measure is not plotted");
        assert_eq!(tables[0].head, ["time, threads:", "2", "4"]);
        assert_eq!(tables[0].rows[1], ["a lock", "28.6 ns", "28.6 ns"]);
    }

    #[test]
    fn text_is_broken_at_its_width() {
        assert_eq!(wrapped("aa bb cc", 5), "aa bb\ncc");
        assert_eq!(wrapped("a-long-word b", 4), "a-long-word\nb");
    }

    #[test]
    fn markdown_rows_are_as_long_as_their_head() {
        let text = bars(&tables(&section(false))[0]);
        let counts: Vec<_> = text.lines().map(|line| line.matches('|').count()).collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "{text}");
    }
}
