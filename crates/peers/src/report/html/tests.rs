use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::results::{Contestant, Figure, Machine, Row, Target, Unit};

/// Names that a page must not take for markup.
const TRICKY: &str = "a <lock> & \"co\" 'x'";

fn figure(median: f64) -> Figure {
    Figure { median, low: median * 0.9, high: median * 1.2 }
}

fn row(who: &str, kind: Kind, at: Option<f64>, values: &[Option<f64>], ratio: Option<f64>) -> Row {
    let figures = values.iter().map(|value| value.map(figure)).collect();
    Row { who: who.into(), kind, at, figures, ratio: ratio.map(figure) }
}

fn own(at: Option<f64>, values: &[Option<f64>]) -> Row {
    row("casblock", Kind::Casblock, at, values, None)
}

fn peer(who: &str, at: Option<f64>, values: &[Option<f64>], ratio: f64) -> Row {
    row(who, Kind::Peer, at, values, Some(ratio))
}

fn measure(label: &str, unit: Unit, less_is_better: bool, plotted: bool) -> Measure {
    Measure { label: label.into(), unit, less_is_better, plotted }
}

fn section(id: &str, measures: Vec<Measure>, axis: Option<&str>, rows: Vec<Row>) -> Section {
    let axis = axis.map(|label| Axis { label: label.into(), doubles: true });
    Section { id: id.into(), title: format!("Title of {id}"), about: format!("About `{id}`."), measures, axis, rows }
}

fn time() -> Vec<Measure> {
    vec![measure("time", Unit::Nanoseconds, true, true)]
}

fn report(sections: Vec<Section>) -> Report {
    Report {
        command: "run --quick <x>".into(),
        began_unix_s: 1_795_435_200,
        took_s: 199.4,
        machine: Machine {
            processor: "A & B".into(),
            cores: 2,
            kernel: "K".into(),
            rustc: "R".into(),
            pinned: true,
            file_systems: ["tmpfs".into(), "ext4".into()],
        },
        contestants: vec![Contestant { name: TRICKY.into(), used: "an array".into(), survives: "nothing".into() }],
        sections,
        targets: vec![],
    }
}

/// The page, which must be well formed; its text is given to `look`.
fn with_page(report: &Report, look: impl FnOnce(&Document)) {
    let page = html(report).unwrap();
    for part in ["<script", "src=", "@import", "http", "url(", "NaN", "inf%", "inf\""] {
        assert!(!page.contains(part), "{part} is in the page");
    }
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    look(&Document::parse_with_options(&page, options).unwrap_or_else(|error| panic!("{error}")));
}

fn text(node: Node) -> String {
    let text: String = node.descendants().filter(Node::is_text).filter_map(|it| it.text()).collect();
    text.replace('\u{a0}', " ")
}

fn by_id<'d>(page: &'d Document, id: &str) -> Node<'d, 'd> {
    page.descendants().find(|node| node.attribute("id") == Some(id)).unwrap_or_else(|| panic!("there is no {id}"))
}

fn plain() -> Section {
    let rows = vec![
        own(None, &[Some(10.0)]),
        peer(TRICKY, None, &[Some(8.0)], 1.25),
        peer("as good", None, &[Some(9.8)], 1.02),
        peer("slow", None, &[Some(2000.0)], 0.005),
        row("limit: copy", Kind::Limit, None, &[Some(1.0)], Some(10.0)),
    ];
    section("plain", time(), None, rows)
}

fn along() -> Section {
    let measures = vec![measure("rate", Unit::PerSecond, false, true), measure("p99", Unit::Nanoseconds, true, false)];
    let rows = [1.0, 2.0, 4.0].into_iter().flat_map(|at| {
        let place = Some(at);
        let values = |rate: f64| [Some(rate * at), Some(70.0)];
        let mut rows = vec![own(place, &values(1e6)), peer(TRICKY, place, &values(3e6), 1.0 / (3.0 * at))];
        rows.push(peer("slow", place, &[Some(1e3), None], 1e3 * at));
        rows
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.push(row("limit: flush", Kind::Limit, Some(1.0), &[Some(9e6), None], None));
    section("along", measures, Some("threads"), rows)
}

#[test]
fn a_page_shows_all_rows_and_escapes_what_it_shows() {
    with_page(&report(vec![plain(), along()]), |page| {
        for section in [plain(), along()] {
            let node = by_id(page, &section.id);
            let shown: Vec<String> = node.descendants().filter(|it| it.has_tag_name("th")).map(text).collect();
            for row in &section.rows {
                assert!(shown.contains(&row.who), "{} is not in the table of {}", row.who, section.id);
            }
        }
        let plot = text(by_id(page, "plain"));
        assert!(["10.0 ns", "8.00 ns", "2.00 µs", "1.00 ns"].iter().all(|value| plot.contains(value)), "{plot}");
        assert!(text(page.root()).contains("run --quick <x>") && text(page.root()).contains("A & B"));
        assert!(text(page.root()).contains("23 November 2026, 3 min 19 s"));
    });
}

#[test]
fn losses_are_told_and_nothing_else() {
    let mut report = report(vec![plain(), along()]);
    let target = |text: &str, met| Target { text: text.into(), measured: 2.0, limit: 1.0, less_is_better: true, met };
    report.targets = vec![target("missed", false), target("reached", true)];
    with_page(&report, |page| {
        let lost = text(by_id(page, "losses"));
        assert!(lost.contains(&format!("{TRICKY} 1.25 ×")), "{lost}");
        assert!(lost.contains(&format!("{TRICKY} 12.0 × at 4 threads, better at 3 of 3")), "{lost}");
        assert!(lost.contains("missed: 2.00, and it should be at most 1.00"), "{lost}");
        for other in ["as good", "slow", "limit", "reached", "p99"] {
            assert!(!lost.contains(other), "{other} is in {lost}");
        }
        assert!(text(by_id(page, "targets")).contains("1 of 2 targets are met"));
        assert!(
            text(page.root())
                .contains("Of 9 comparisons in one run, casblock is better in 4, even in 1 and worse in 4")
        );
    });
}

#[test]
fn a_measure_that_is_shown_and_lost_is_told_by_its_medians() {
    let measures = vec![
        measure("stops", Unit::Percent, true, true),
        measure("rate", Unit::PerSecond, false, true),
        measure("hidden", Unit::Count, true, false),
    ];
    let values = |stops, rate, hidden| [Some(stops), Some(rate), Some(hidden)];
    let rows = vec![own(None, &values(0.0, 10.0, 9.0)), peer("a lock", None, &values(20.0, 25.0, 1.0), 0.0)];
    with_page(&report(vec![section("stopped", measures, None, rows)]), |page| {
        let lost = text(by_id(page, "losses"));
        assert!(lost.contains("rate a lock 2.50 ×") && !lost.contains("stops") && !lost.contains("hidden"), "{lost}");
        assert!(text(by_id(page, "overview")).contains("∞ ×"));
    });
}

#[test]
fn a_page_without_losses_says_so() {
    let rows = vec![own(None, &[Some(1.0)]), peer("slow", None, &[Some(2.0)], 0.5)];
    with_page(&report(vec![section("won", time(), None, rows)]), |page| {
        assert!(text(by_id(page, "losses")).contains("Nowhere in this run."));
    });
}

#[test]
fn plots_along_an_axis_are_for_wide_and_narrow_pages() {
    with_page(&report(vec![along()]), |page| {
        let plots: Vec<Node> =
            page.descendants().filter(|it| it.attribute("class").is_some_and(|it| it.starts_with("plot "))).collect();
        assert_eq!(plots.len(), 2);
        for plot in &plots {
            assert!(plot.attribute("aria-label").is_some_and(|label| label.contains("Title of along")));
            let colours = plot.descendants().filter_map(|it| it.attribute("stroke").or(it.attribute("fill")));
            assert!(
                colours.clone().all(|it| it == "none" || it.starts_with("var(--")),
                "{:?}",
                colours.collect::<Vec<_>>()
            );
            // A line and three marks of each contestant; more in a plot that has names.
            let own = plot.descendants().filter(|it| it.attribute("fill") == Some("var(--s0)")).count();
            assert!(own >= 3, "{own}");
        }
        assert!(text(plots[0]).contains(TRICKY) && !text(plots[1]).contains(TRICKY), "the other has a legend");
        let along = text(by_id(page, "along"));
        assert!(along.contains("limit: flush") && along.contains("the limit is that of 1 thread"), "{along}");
    });
}

#[test]
fn nothing_that_was_measured_makes_it_panic() {
    let odd = [None, Some(0.0), Some(-1.0), Some(f64::INFINITY), Some(f64::NAN), Some(1e-300), Some(1e300), Some(7.0)];
    let units = [Unit::Nanoseconds, Unit::PerSecond, Unit::Bytes, Unit::Percent, Unit::Count];
    let mut sections = vec![section("empty", vec![], None, vec![]), section("empty-axis", time(), Some("x"), vec![])];
    for (index, &one) in odd.iter().enumerate() {
        for (other, &two) in odd.iter().enumerate() {
            for place in [None, Some(0.0), Some(3.0), Some(f64::NAN)] {
                let unit = units[(index + other) % units.len()];
                let measures = vec![measure("a", unit, index % 2 == 0, true), measure("b", unit, true, true)];
                let ratio = two.unwrap_or(1.0);
                let rows = vec![
                    own(place, &[one, two]),
                    peer("peer", place, &[two, one], ratio),
                    peer("peer", Some(5.0), &[two], ratio),
                    row("limit", Kind::Limit, place, &[], None),
                ];
                let id = format!("s-{index}-{other}-{}", place.is_some());
                sections.push(section(&id, measures.clone(), place.map(|_| "threads"), rows.clone()));
                sections.push(section(&id, measures, Some("threads"), rows[..1].to_vec()));
            }
        }
    }
    assert!(sections.len() > 500);
    for section in sections {
        with_page(&report(vec![section]), |_| ());
    }
}

#[test]
fn each_contestant_has_a_look_of_its_own() {
    let names: Vec<String> = (0..20).map(|index| format!("peer {index}")).collect();
    let rows = names.iter().map(|name| peer(name, None, &[Some(1.0)], 1.0)).chain([own(None, &[Some(1.0)])]).collect();
    let report = report(vec![section("many", time(), None, rows)]);
    let looks = Looks::of(&report);
    let of_all: Vec<_> =
        names.iter().map(String::as_str).chain(["casblock", TRICKY]).map(|it| looks.look(it)).collect();
    for (index, look) in of_all.iter().enumerate() {
        assert!(!of_all[..index].contains(look), "{index}");
    }
}

/// How well two colours of the page can be told apart, as WCAG 2 has it.
fn contrast(a: &str, b: &str) -> f64 {
    let light = |colour: &str| {
        let part = |at: usize| f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        let linear = |it: f64| if it <= 0.04045 { it / 12.92 } else { ((it + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5))
    };
    let (a, b) = (light(a), light(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn both_themes_can_be_read() {
    let (light, dark) = CSS.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let colour = |theme: &'static str, name: &str| {
        let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap_or_else(|| panic!("there is no {name}"));
        &rest[..7]
    };
    for theme in [light, dark] {
        let pairs = [("ink", "card"), ("dim", "card"), ("ink", "ground"), ("dim", "ground"), ("ink", "even-bg")];
        let verdicts = [("better", "card"), ("worse", "card"), ("better", "better-bg"), ("worse", "worse-bg")];
        for (text, ground) in pairs.into_iter().chain(verdicts) {
            let contrast = contrast(colour(theme, text), colour(theme, ground));
            assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
        }
        let marks = (0..=marks::COLOURS).map(|index| format!("s{index}")).chain(["own".into(), "peer".into()]);
        for mark in marks {
            for ground in ["card", "lost"] {
                let contrast = contrast(colour(theme, &mark), colour(theme, ground));
                assert!(contrast >= 3.0, "{mark} on {ground}: {contrast:.2}");
            }
        }
    }
}
