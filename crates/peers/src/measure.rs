//! Rounds that take turns: casblock, a peer, casblock, the next peer, … Medians over the rounds, ratios within them.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::results::{Figure, Kind, Row};

/// How long a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of each workload that takes little time.
    pub rounds: usize,
    /// Rounds of one that takes some: many threads, processes, disks.
    pub long_rounds: usize,
    /// What a round of the former lasts.
    pub slice: Duration,
    /// And one of the latter.
    pub long_slice: Duration,
    /// The most blocks a store has whose blocks are all written first.
    pub most_blocks: u64,
    /// The most threads at once.
    pub most_threads: usize,
}

impl Effort {
    /// A few minutes.
    pub const QUICK: Self = Self {
        rounds: 11,
        long_rounds: 3,
        slice: Duration::from_millis(4),
        long_slice: Duration::from_millis(120),
        most_blocks: u64::MAX,
        most_threads: usize::MAX,
    };

    /// Seconds: shows that all works, and measures nothing.
    pub const SMOKE: Self = Self {
        rounds: 1,
        long_rounds: 1,
        slice: Duration::from_micros(100),
        long_slice: Duration::from_millis(5),
        most_blocks: 1 << 10,
        most_threads: 32,
    };

    /// A quarter of an hour or so.
    pub const FULL: Self = Self {
        rounds: 41,
        long_rounds: 9,
        slice: Duration::from_millis(10),
        long_slice: Duration::from_millis(250),
        most_blocks: u64::MAX,
        most_threads: usize::MAX,
    };
}

/// One who takes part in a workload, made ready for it.
pub struct Entrant<'a> {
    /// Its name.
    pub who: String,
    /// What it is.
    pub kind: Kind,
    /// Does one round of it; a value for each measure.
    pub run: Box<dyn FnMut() -> Result<Vec<f64>> + 'a>,
}

/// Has them take turns; a row for each. The first is casblock.
pub fn compete(mut entrants: Vec<Entrant<'_>>, rounds: usize, at: Option<f64>) -> Result<Vec<Row>> {
    let mut samples: Vec<Samples> = entrants.iter().map(|_| Samples::default()).collect();
    let [casblock, others @ ..] = &mut entrants[..] else { return Ok(Vec::new()) };
    // Each warms up, and finds out how much makes a round.
    for entrant in [&mut *casblock].into_iter().chain(&mut *others) {
        (entrant.run)()?;
    }
    for round in 0..rounds {
        for turn in 0..others.len() {
            let other = (turn + round) % others.len();
            let of_casblock = samples[0].add((casblock.run)()?);
            let of_other = samples[other + 1].add((others[other].run)()?);
            samples[other + 1].ratios.push(of_casblock / of_other);
        }
        if others.is_empty() {
            samples[0].add((casblock.run)()?);
        }
    }
    let row = |(entrant, samples): (&Entrant<'_>, Samples)| samples.into_row(entrant, at);
    Ok(entrants.iter().zip(samples).map(row).collect())
}

/// Has each do one round, and none before it, where a round's first value is the same each time. A row for each; the first is casblock.
pub fn once(entrants: Vec<Entrant<'_>>, at: Option<f64>) -> Result<Vec<Row>> {
    let mut of_casblock = None;
    let mut row = |mut entrant: Entrant<'_>| {
        let mut samples = Samples::default();
        let own = samples.add((entrant.run)()?);
        match of_casblock {
            None => of_casblock = Some(own),
            Some(of_casblock) => samples.ratios.push(of_casblock / own),
        }
        Ok(samples.into_row(&entrant, at))
    };
    entrants.into_iter().map(&mut row).collect()
}

/// What the rounds of one entrant gave.
#[derive(Default)]
struct Samples {
    /// For each measure, one a round.
    of_measures: Vec<Vec<f64>>,
    ratios: Vec<f64>,
}

impl Samples {
    /// Adds a round's values; gives the first.
    fn add(&mut self, values: Vec<f64>) -> f64 {
        self.of_measures.resize(values.len(), Vec::new());
        let first = values[0];
        self.of_measures.iter_mut().zip(values).for_each(|(of_measure, value)| of_measure.push(value));
        first
    }

    fn into_row(self, entrant: &Entrant<'_>, at: Option<f64>) -> Row {
        let figures = self.of_measures.into_iter().map(figure).collect();
        Row { who: entrant.who.clone(), kind: entrant.kind, at, figures, ratio: figure(self.ratios) }
    }
}

/// The median and the quartiles, of what could be measured.
pub fn figure(mut values: Vec<f64>) -> Option<Figure> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| values[(last as f64 * share).round() as usize];
    let median = if last % 2 == 0 { values[last / 2] } else { (values[last / 2] + values[last / 2 + 1]) / 2.0 };
    Some(Figure { median, low: at(0.25), high: at(0.75) })
}

/// Turns a loop into rounds of about `slice`, which give the nanoseconds of one operation.
pub fn each_operation<'a>(
    slice: Duration,
    mut repeat: impl FnMut(u64) + 'a,
) -> Box<dyn FnMut() -> Result<Vec<f64>> + 'a> {
    let mut times = None;
    let mut timed = move |times| {
        let start = Instant::now();
        repeat(times);
        start.elapsed()
    };
    Box::new(move || {
        let times = *times.get_or_insert_with(|| times_that_take(slice, &mut timed));
        Ok(vec![timed(times).as_nanos() as f64 / times as f64])
    })
}

/// How often something must be done to take about so long.
fn times_that_take(slice: Duration, timed: &mut impl FnMut(u64) -> Duration) -> u64 {
    let mut times = 1;
    loop {
        let took = timed(times);
        if took > slice / 4 {
            return (times as f64 * slice.as_secs_f64() / took.as_secs_f64()).ceil() as u64;
        }
        times *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_and_quartiles() {
        assert_eq!(figure(vec![5.0, 1.0, 2.0, 4.0, 3.0]), Some(Figure { median: 3.0, low: 2.0, high: 4.0 }));
        assert_eq!(figure(vec![1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(figure(vec![7.0, f64::NAN]).unwrap().median, 7.0);
        assert_eq!(figure(vec![]), None);
    }

    #[test]
    fn ratios_are_those_of_neighbours_in_time() {
        // The machine slows down from round to round; the ratio stays.
        let speed = std::cell::Cell::new(1.0);
        let slower = |factor: f64| {
            let speed = &speed;
            move || {
                speed.set(speed.get() * 1.01);
                Ok(vec![speed.get() * factor])
            }
        };
        let entrant = |who: &str, kind, factor| Entrant { who: who.to_owned(), kind, run: Box::new(slower(factor)) };
        let entrants = vec![entrant("casblock", Kind::Casblock, 1.0), entrant("other", Kind::Peer, 4.0)];
        let rows = compete(entrants, 50, None).unwrap();
        let ratio = rows[1].ratio.unwrap().median;
        assert!((0.24..0.25).contains(&ratio), "{ratio}");
        assert_eq!(rows[0].ratio, None);
    }

    #[test]
    fn a_round_takes_its_slice() {
        let mut timed = |times: u64| Duration::from_nanos(100 * times);
        let times = times_that_take(Duration::from_millis(1), &mut timed);
        assert_eq!(times, 10_000);
    }
}
