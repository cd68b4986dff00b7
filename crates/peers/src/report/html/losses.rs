//! Where casblock is not the best, and where it misses what it set out to reach.

use std::fmt::Write;

use crate::results::{Report, Section, Target};

use super::super::units::digits;
use super::compared::{AS_GOOD, Range, ranges};
use super::text::{counted, escaped, times};

/// The section on the page.
pub fn losses(report: &Report) -> String {
    let lost: Vec<(&Section, String)> =
        report.sections.iter().map(|it| (it, of_section(it))).filter(|(_, lost)| !lost.is_empty()).collect();
    let missed: Vec<&Target> = report.targets.iter().filter(|target| !target.met).collect();
    let mut text = "<section id=\"losses\" class=\"losses\">\n<h2>Where casblock loses</h2>\n".to_owned();
    if lost.is_empty() && missed.is_empty() {
        return text + "<p>Nowhere in this run.</p>\n</section>\n";
    }
    if !lost.is_empty() {
        let percent = (AS_GOOD - 1.0) * 100.0;
        let _ = writeln!(
            text,
            "<p>Contestants that did better by more than {percent:.0} %: by how many times at most, and where. What of each of \
             them outlives a process is told under <a href=\"#contestants\">who was compared</a>.</p>\n<dl>"
        );
        for (section, lost) in lost {
            let (id, title) = (escaped(&section.id), escaped(&section.title));
            let _ = writeln!(text, "<dt><a href=\"#{id}\">{title}</a></dt>\n{lost}");
        }
        text += "</dl>\n";
    }
    if !missed.is_empty() {
        text += "<h3>Targets that were missed</h3>\n<ul>\n";
        for target in missed {
            let _ = writeln!(text, "<li>{}: {}</li>", escaped(&target.text), figures(target));
        }
        text += "</ul>\n";
    }
    text + "</section>\n"
}

/// What a target asks for, and what was measured.
fn figures(target: &Target) -> String {
    let bound = if target.less_is_better { "at most" } else { "at least" };
    format!("<b class=\"worse\">{}</b>, and it should be {bound} {}", digits(target.measured), digits(target.limit))
}

/// A line for each measure that is shown and by which another is better.
fn of_section(section: &Section) -> String {
    let axis = section.axis.as_ref().map_or("", |axis| axis.label.as_str());
    let mut text = String::new();
    for (index, measure) in section.measures.iter().enumerate().filter(|(index, it)| *index == 0 || it.plotted) {
        let mut better: Vec<Range> = ranges(section, index).into_iter().filter(|range| range.worse_at > 0).collect();
        better.sort_by(|a, b| a.least.0.total_cmp(&b.least.0));
        if better.is_empty() {
            continue;
        }
        // Each with what follows it, so that lines break between them.
        let last = better.len() - 1;
        let told = better.iter().enumerate().map(|(index, range)| {
            let end = if index < last { ";" } else { "" };
            format!("<span class=\"loss\">{}{end}</span>", told(range, axis))
        });
        let label = escaped(&measure.label);
        let _ =
            writeln!(text, "<dd><span class=\"measure\">{label}</span> {}</dd>", told.collect::<Vec<_>>().join(" "));
    }
    text
}

fn told(range: &Range, axis: &str) -> String {
    let (factor, at) = (1.0 / range.least.0, range.least.1);
    let mut text = format!("{} <b class=\"worse\">{}</b>", escaped(range.who), times(factor));
    if let Some(at) = at {
        let _ = write!(text, " at {}", escaped(&counted(at, axis)));
        if range.places > 1 {
            let _ = write!(text, ", better at {} of {}", range.worse_at, range.places);
        }
    }
    text
}

/// All targets.
pub fn targets(targets: &[Target]) -> String {
    if targets.is_empty() {
        return String::new();
    }
    let met = targets.iter().filter(|target| target.met).count();
    let mut text = format!(
        "<section id=\"targets\">\n<h2>What casblock set out to reach</h2>\n<p>{met} of {} targets are met.</p>\n\
         <div class=\"scroll\"><table class=\"targets\">\n<thead><tr><th scope=\"col\">what</th><th scope=\"col\">measured</th>\
         <th scope=\"col\">target</th><th scope=\"col\">met</th></tr></thead>\n<tbody>\n",
        targets.len()
    );
    for target in targets {
        let (sign, limit) = (if target.less_is_better { "≤" } else { "≥" }, digits(target.limit));
        let verdict = if target.met { "<b class=\"better\">✓ met</b>" } else { "<b class=\"worse\">✗ not met</b>" };
        let (what, measured) = (escaped(&target.text), digits(target.measured));
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{what}</th><td>{measured}</td><td>{sign} {limit}</td><td>{verdict}</td></tr>"
        );
    }
    text + "</tbody></table></div>\n</section>\n"
}
