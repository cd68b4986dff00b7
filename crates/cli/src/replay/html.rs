//! The page with the curve of hit ratios: it needs nothing but itself.

use std::fmt::Write as _;

use super::Report;
use super::curve::Point;
use super::policy::Kind;
use crate::number::grouped;

/// Size of the plot, and the room round it for the axes and the names, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 96.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 48.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --dim: #586069; --grid: #e3e6e9;
  --fifo: #545d66; --lru: #b45309; --clock: #7a6500; --sieve: #a83279; --s3: #0068ad; --best: #00796b; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181c; --ink: #e9ebee; --dim: #a5aeb8; --grid: #2c3238;
  --fifo: #b3bbc4; --lru: #f0954a; --clock: #d9c74e; --sieve: #e389bf; --s3: #56b4f0; --best: #3cc4a4; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 52rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
svg { width: 100%; height: auto; font: 13px system-ui, sans-serif; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--grid); }
.scroll { overflow-x: auto; } p, small { color: var(--dim); }
";

/// The colour of a policy's line, and its dashes: so that they can be told apart without colours.
fn look(policy: Kind) -> (&'static str, &'static str) {
    match policy {
        Kind::Fifo => ("fifo", "2 4"),
        Kind::Lru => ("lru", "8 4"),
        Kind::Clock => ("clock", "8 3 2 3"),
        Kind::Sieve => ("sieve", "5 3"),
        Kind::S3Fifo => ("s3", ""),
        Kind::Belady => ("best", "1 3"),
    }
}

/// The page.
pub(super) fn page(report: &Report, curve: &[Point]) -> String {
    let title = escaped(&report.trace);
    let facts = &report.facts;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Hit ratios: {title}</title>\n<style>{STYLE}</style>\n<h1>Hit ratios</h1>\n\
         <p>{title}: {} requests, {} accesses of {} bytes, {} different blocks.</p>\n",
        grouped(facts.requests),
        grouped(facts.accesses),
        grouped(report.block_bytes),
        grouped(facts.footprint_blocks),
    );
    plot(&mut page, curve, facts.footprint_blocks);
    table(&mut page, curve);
    page.push_str("</html>\n");
    page
}

fn policies(curve: &[Point]) -> Vec<Kind> {
    let mut policies: Vec<Kind> = Vec::new();
    for point in curve {
        if !policies.contains(&point.policy) {
            policies.push(point.policy);
        }
    }
    policies
}

fn plot(page: &mut String, curve: &[Point], footprint: u64) {
    let most = f64::max(footprint as f64, 10.0);
    let least = curve.first().map_or(1.0, |point| f64::from(point.cache_blocks)).min(most / 2.0);
    let x = |blocks: f64| LEFT + (blocks / least).log10() / (most / least).log10() * (WIDTH - LEFT - RIGHT);
    let y = |ratio: f64| TOP + (1.0 - ratio) * (HEIGHT - TOP - BOTTOM);
    let (bottom, right) = (y(0.0), WIDTH - RIGHT);
    let _ =
        writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Hit ratio by cache size\">");
    for percent in (0..=100).step_by(20) {
        let at = y(f64::from(percent) / 100.0);
        let _ = writeln!(
            page,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"var(--grid)\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" \
             fill=\"var(--dim)\">{percent} %</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    let mut tick = 10f64.powf(least.log10().ceil());
    while tick <= most {
        let at = x(tick);
        let _ = writeln!(
            page,
            "<path d=\"M{at:.1} {TOP}V{bottom:.1}\" stroke=\"var(--grid)\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\" fill=\"var(--dim)\">{}</text>",
            bottom + 18.0,
            grouped(tick as u64)
        );
        tick *= 10.0;
    }
    let _ = writeln!(
        page,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"var(--ink)\">blocks of the cache</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 8.0
    );
    lines(page, curve, x, y);
    page.push_str("</svg>\n");
}

fn lines(page: &mut String, curve: &[Point], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    // Names stand in a column, in the order of the lines where they differ the most, in the middle.
    let mut names: Vec<(f64, Kind)> = Vec::new();
    for policy in policies(curve) {
        let own: Vec<&Point> = curve.iter().filter(|point| point.policy == policy).collect();
        let (colour, dashes) = look(policy);
        let points: Vec<String> = own
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(f64::from(point.cache_blocks)), y(point.hit_ratio)))
            .collect();
        let _ = writeln!(
            page,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--{colour})\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
            points.join(" ")
        );
        names.push((own[own.len() / 2].hit_ratio, policy));
    }
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (line, (_, policy)) in names.into_iter().enumerate() {
        let (colour, dashes) = look(policy);
        let (left, at) = (WIDTH - RIGHT + 8.0, TOP + 18.0 * (line as f64 + 1.0));
        let _ = writeln!(
            page,
            "<path d=\"M{left} {:.1}h22\" stroke=\"var(--{colour})\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"{}\" y=\"{at:.1}\" fill=\"var(--ink)\">{}</text>",
            at - 4.0,
            left + 27.0,
            policy.name()
        );
    }
}

fn table(page: &mut String, curve: &[Point]) {
    let policies = policies(curve);
    page.push_str("<div class=\"scroll\"><table>\n<tr><th>blocks</th>");
    for policy in &policies {
        let _ = write!(page, "<th>{}</th>", policy.name());
    }
    page.push_str("</tr>\n");
    for line in curve.chunks(policies.len().max(1)) {
        let _ = write!(page, "<tr><td>{}</td>", grouped(line[0].cache_blocks.into()));
        for point in line {
            let _ = write!(page, "<td>{:.2} %</td>", 100.0 * point.hit_ratio);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// Text as HTML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
