//! All comparisons at a glance: a strip for each section, with the ratios on one logarithmic axis.

use std::fmt::Write;

use crate::results::{Kind, Report, Section};

use super::compared::{Range, Verdict, advantage, ranges};
use super::marks::Looks;
use super::scale::Scale;
use super::text::{counted, escaped, times};

/// What is beyond that is drawn at the end of the axis.
const FARTHEST: f64 = 1000.0;

/// Marks closer than this share of the axis are drawn above each other.
const APART: f64 = 0.032;

/// Pixels from one such mark to the next.
const STEP: usize = 13;

/// How many comparisons casblock wins, ties and loses: each peer in each section at each place.
pub fn tally(report: &Report) -> [usize; 3] {
    let mut tally = [0; 3];
    for section in &report.sections {
        for row in section.rows.iter().filter(|row| row.kind == Kind::Peer) {
            if let Some(advantage) = advantage(section, row) {
                tally[Verdict::of(advantage) as usize] += 1;
            }
        }
    }
    tally
}

/// The strips, or nothing where nothing was compared.
pub fn overview(report: &Report, looks: &Looks) -> String {
    let compared: Vec<(&Section, Vec<Range>)> = report.sections.iter().map(|it| (it, ranges(it, 0))).collect();
    let compared: Vec<_> = compared.into_iter().filter(|(_, ranges)| !ranges.is_empty()).collect();
    if compared.is_empty() {
        return String::new();
    }
    let farthest = compared.iter().flat_map(|(_, ranges)| ranges).flat_map(|range| [range.least.0, range.most.0]);
    let farthest = farthest.map(|it| it.max(1.0 / it)).filter(|it| it.is_finite()).fold(10.0, f64::max);
    let end = farthest.min(FARTHEST) * 1.15;
    let scale = Scale::between(1.0 / end, end, true);

    let mut text = "<section id=\"overview\">\n<h2>How many times better is casblock?</h2>\n\
        <p>A mark for each contestant, on one axis for all: right of the line casblock does better, left of it the \
        other does. Where threads, processes or writers were varied, the mark is the middle, and the line through it goes \
        from where casblock does worst to where it does best.</p>\n"
        .to_owned();
    text += &legend(&compared, looks);
    text += &axis(&scale);
    for (section, ranges) in &compared {
        text += &strip(section, ranges, &scale, looks);
    }
    text += &axis(&scale);
    text + &table(&compared) + "</section>\n"
}

fn legend(compared: &[(&Section, Vec<Range>)], looks: &Looks) -> String {
    let mut names: Vec<&str> = Vec::new();
    for range in compared.iter().flat_map(|(_, ranges)| ranges) {
        if !names.contains(&range.who) {
            names.push(range.who);
        }
    }
    let items = names.iter().map(|name| format!("<li>{}{}</li>\n", looks.look(name).key(), escaped(name)));
    format!("<ul class=\"legend\">\n{}</ul>\n", items.collect::<String>())
}

/// Ratios that are marked on the axis.
fn marked(scale: &Scale) -> impl Iterator<Item = f64> {
    let is_inside = |it: &f64| (0.02..0.98).contains(&scale.share(*it));
    [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0].into_iter().filter(is_inside)
}

fn axis(scale: &Scale) -> String {
    let mut text = "<div class=\"strip ends\" aria-hidden=\"true\"><span></span><span class=\"ticks\">".to_owned();
    for at in marked(scale) {
        let label = if at < 1.0 { format!("1/{:.0}", 1.0 / at) } else { format!("{at:.0}×") };
        let _ = write!(text, "<span style=\"left:{:.2}%\">{label}</span>", 100.0 * scale.share(at));
    }
    text + "</span></div>\n"
}

/// How high each of these marks is drawn, so that none hides another; and how many heights that takes.
fn heights(at: &[f64]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..at.len()).collect();
    order.sort_by(|a, b| at[*a].total_cmp(&at[*b]));
    let (mut last, mut heights): (Vec<f64>, Vec<usize>) = (Vec::new(), vec![0; at.len()]);
    for index in order {
        let free = last.iter().position(|last| at[index] - last >= APART);
        heights[index] = free.unwrap_or(last.len());
        match free {
            Some(height) => last[height] = at[index],
            None => last.push(at[index]),
        }
    }
    (heights, last.len())
}

fn strip(section: &Section, ranges: &[Range], scale: &Scale, looks: &Looks) -> String {
    let at: Vec<f64> = ranges.iter().map(|range| scale.share(range.middle)).collect();
    let (heights, levels) = heights(&at);
    let (levels, step) = (levels.max(1) as f64, STEP as f64);
    let mut svg = format!(
        "<span class=\"swarm\" style=\"min-height:{}px\"><svg aria-hidden=\"true\">\
         <rect class=\"lost\" width=\"50%\" height=\"100%\"/>",
        step * levels + 9.0
    );
    for mark in marked(scale) {
        let (class, x) = (if mark == 1.0 { "one" } else { "grid" }, 100.0 * scale.share(mark));
        let _ = write!(svg, "<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"100%\"/>");
    }
    svg += "<svg y=\"50%\">";
    for ((range, height), at) in ranges.iter().zip(heights).zip(at) {
        let (look, y) = (looks.look(range.who), step * (height as f64 - (levels - 1.0) / 2.0));
        let [left, right] = [range.least.0, range.most.0].map(|it| 100.0 * scale.share(it));
        if right > left {
            let class = look.colour;
            let _ =
                write!(svg, "<line class=\"r c{class}\" x1=\"{left:.2}%\" x2=\"{right:.2}%\" y1=\"{y}\" y2=\"{y}\"/>");
        }
        let mark = look.svg(5.0, &format!("{}: {}", escaped(range.who), times(range.middle)));
        let _ = write!(svg, "<svg class=\"at\" x=\"{:.2}%\" y=\"{y}\">{mark}</svg>", 100.0 * at);
    }
    format!(
        "<div class=\"strip\"><span class=\"what\"><a href=\"#{}\">{}</a><small>{}</small></span>{svg}</svg></svg></span></div>\n",
        escaped(&section.id),
        escaped(&section.title),
        extremes(section, ranges)
    )
}

/// The least and the most of a strip, in words.
fn extremes(section: &Section, ranges: &[Range]) -> String {
    let axis = section.axis.as_ref().map_or("", |axis| axis.label.as_str());
    let told = |who: &str, (factor, at): (f64, Option<f64>)| {
        let at = at.map_or_else(String::new, |at| format!(", {}", escaped(&counted(at, axis))));
        format!(
            "<span class=\"end\"><b class=\"{}\">{}</b> {}{at}</span>",
            Verdict::of(factor).class(),
            times(factor),
            escaped(who)
        )
    };
    let least = ranges.iter().min_by(|a, b| a.least.0.total_cmp(&b.least.0));
    let most = ranges.iter().max_by(|a, b| a.most.0.total_cmp(&b.most.0));
    match (least, most) {
        (Some(least), Some(most)) if least.least.0 < most.most.0 => {
            format!("{} to {}", told(least.who, least.least), told(most.who, most.most))
        }
        (Some(only), _) => told(only.who, only.least),
        _ => String::new(),
    }
}

/// The same as a table: sections down, contestants across.
fn table(compared: &[(&Section, Vec<Range>)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for range in compared.iter().flat_map(|(_, ranges)| ranges) {
        if !names.contains(&range.who) {
            names.push(range.who);
        }
    }
    let mut text = "<details><summary>The same as a table</summary>\n<div class=\"scroll\"><table class=\"matrix\">\n\
                    <thead><tr><th></th>"
        .to_owned();
    for name in &names {
        let _ = write!(text, "<th scope=\"col\">{}</th>", escaped(name));
    }
    text += "</tr></thead>\n<tbody>\n";
    for (section, ranges) in compared {
        let _ = write!(text, "<tr><th scope=\"row\">{}</th>", escaped(&section.title));
        for name in &names {
            let range = ranges.iter().find(|range| range.who == *name);
            text += &range.map_or("<td></td>".to_owned(), |range| {
                format!("<td class=\"{}\">{}</td>", Verdict::of(range.middle).class(), times(range.middle))
            });
        }
        text += "</tr>\n";
    }
    text + "</tbody></table></div></details>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_at_one_place_are_drawn_above_each_other() {
        assert_eq!(heights(&[0.5, 0.5, 0.9, 0.51]), (vec![0, 1, 0, 2], 3));
        assert_eq!(heights(&[]), (vec![], 0));
    }
}
