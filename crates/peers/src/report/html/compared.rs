//! Who is better, by how much, and where.

use crate::results::{Figure, Kind, Measure, Row, Section};

/// What is within that of another is as good.
pub const AS_GOOD: f64 = 1.05;

/// What a factor by which casblock is better says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// casblock is better.
    Better,
    /// Neither is.
    Even,
    /// The other is better.
    Worse,
}

impl Verdict {
    /// What a factor by which casblock is better says.
    pub fn of(advantage: f64) -> Self {
        match advantage {
            it if it > AS_GOOD => Self::Better,
            it if it * AS_GOOD < 1.0 => Self::Worse,
            _ => Self::Even,
        }
    }

    /// Its class on the page.
    pub fn class(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Even => "even",
            Self::Worse => "worse",
        }
    }
}

/// A ratio of casblock's measure to another's, as a factor by which casblock is better. It may be infinite, or zero.
fn advantage_of(measure: &Measure, ratio: f64) -> Option<f64> {
    let advantage = if measure.less_is_better { 1.0 / ratio } else { ratio };
    (advantage >= 0.0).then_some(advantage)
}

/// How many times better casblock is than a row, by the section's first measure and the ratios within rounds.
pub fn advantage(section: &Section, row: &Row) -> Option<f64> {
    advantage_of(section.measures.first()?, row.ratio?.median)
}

/// The same by any measure: by the medians if it is not the first.
pub fn advantage_by(section: &Section, row: &Row, index: usize) -> Option<f64> {
    if index == 0 {
        return advantage(section, row);
    }
    let own = section.rows.iter().find(|own| own.kind == Kind::Casblock && own.at == row.at)?;
    let median = |row: &Row| Some(figure(row, index)?.median);
    advantage_of(section.measures.get(index)?, median(own)? / median(row)?)
}

/// A row's figure of a measure.
pub fn figure(row: &Row, index: usize) -> Option<&Figure> {
    row.figures.get(index)?.as_ref()
}

/// What an axis must show of a figure: its median and its quartiles, but nothing below zero.
pub fn shown(figure: &Figure) -> impl Iterator<Item = f64> {
    let median = figure.median;
    let quartiles = [figure.low, figure.high].into_iter().filter(move |it| *it > 0.0 && median.is_finite());
    std::iter::once(median).chain(quartiles)
}

/// The names of a section's rows that are of such a kind, in order.
pub fn names(section: &Section, wanted: impl Fn(Kind) -> bool) -> Vec<&str> {
    let mut names = Vec::new();
    for row in section.rows.iter().filter(|row| wanted(row.kind)) {
        if !names.contains(&row.who.as_str()) {
            names.push(row.who.as_str());
        }
    }
    names
}

/// How casblock compares with one peer in one section: the range of it along the axis.
pub struct Range<'r> {
    /// Who is compared with casblock.
    pub who: &'r str,
    /// Where casblock does worst, and where that is.
    pub least: (f64, Option<f64>),
    /// In the middle of the range.
    pub middle: f64,
    /// Where casblock does best, and where that is.
    pub most: (f64, Option<f64>),
    /// At how many places casblock is worse.
    pub worse_at: usize,
    /// At how many places they were compared.
    pub places: usize,
}

/// How casblock compares with each of a section's peers, by one measure.
pub fn ranges(section: &Section, index: usize) -> Vec<Range<'_>> {
    let of_one = |who| {
        let rows = section.rows.iter().filter(|row| row.who == who && row.kind == Kind::Peer);
        let mut found: Vec<(f64, Option<f64>)> =
            rows.filter_map(|row| Some((advantage_by(section, row, index)?, row.at))).collect();
        found.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let worse_at = found.iter().filter(|(advantage, _)| Verdict::of(*advantage) == Verdict::Worse).count();
        Some(Range {
            who,
            least: *found.first()?,
            middle: found[found.len() / 2].0,
            most: *found.last()?,
            worse_at,
            places: found.len(),
        })
    };
    names(section, |kind| kind == Kind::Peer).into_iter().filter_map(of_one).collect()
}
