//! Where values lie on an axis, and which of them are marked there.

use crate::results::Unit;

/// An axis from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    /// Whether equal steps are equal factors.
    pub is_logarithmic: bool,
}

impl Scale {
    /// An axis for these values: logarithmic where they are positive and the greatest is more than `factor` times the
    /// least, and from zero otherwise. `None` where there are no values.
    pub fn of(values: impl Iterator<Item = f64>, factor: f64) -> Option<Self> {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        if low > 0.0 && high > factor * low {
            return Some(Self { low: low / 1.5, high: high * 1.2, is_logarithmic: true });
        }
        Some(Self { low: 0.0, high: if high > 0.0 { high * 1.04 } else { 1.0 }, is_logarithmic: false })
    }

    /// An axis whose ends are these places.
    pub fn between(low: f64, high: f64, is_logarithmic: bool) -> Self {
        let is_logarithmic = is_logarithmic && low > 0.0;
        match (high > low, is_logarithmic) {
            (true, _) => Self { low, high, is_logarithmic },
            // One place: in the middle.
            (false, true) => Self { low: low / 2.0, high: low * 2.0, is_logarithmic },
            (false, false) => Self { low: low - 1.0, high: low + 1.0, is_logarithmic },
        }
    }

    /// Where a value lies: at an end if it is beyond it.
    pub fn share(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(f64::MIN_POSITIVE).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }

    /// Round values on it, not many more than `most`.
    pub fn ticks(&self, unit: Unit, most: usize) -> Vec<f64> {
        match (self.is_logarithmic, unit) {
            (true, Unit::Bytes) => self.powers(2.0, most),
            (true, _) if self.high / self.low < 60.0 => self.of_decades(&[1.0, 2.0, 5.0], most),
            (true, _) => self.powers(10.0, most),
            (false, _) => self.steps(unit, most),
        }
    }

    /// Every power of `base`, or every second, third …
    fn powers(&self, base: f64, most: usize) -> Vec<f64> {
        let (first, last) = ((self.low.ln() / base.ln()).ceil() as i32, (self.high.ln() / base.ln()).floor() as i32);
        let step = usize::try_from(last - first + 1).unwrap_or(0).div_ceil(most.max(1)).max(1);
        (first..=last).step_by(step).map(|power| base.powi(power)).collect()
    }

    fn of_decades(&self, digits: &[f64], most: usize) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        let ticks: Vec<f64> = all.filter(|tick| (self.low..=self.high).contains(tick)).collect();
        if ticks.len() > most { self.powers(10.0, most) } else { ticks }
    }

    fn steps(&self, unit: Unit, most: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / most.max(1) as f64;
        let step = if unit == Unit::Bytes {
            2f64.powf(rough.log2().ceil())
        } else {
            let decade = 10f64.powf(rough.log10().floor());
            [1.0, 2.0, 5.0, 10.0].map(|digit| digit * decade).into_iter().find(|step| *step >= rough).unwrap_or(rough)
        };
        let first = (self.low / step).ceil();
        (0..=most).map(|index| (first + index as f64) * step).take_while(|tick| *tick <= self.high).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_logarithmic_only_where_values_allow() {
        let of = |values: &[f64]| Scale::of(values.iter().copied(), 30.0);
        assert!(of(&[1.0, 40.0]).unwrap().is_logarithmic);
        assert!(!of(&[1.0, 20.0]).unwrap().is_logarithmic);
        assert!(!of(&[0.0, 4000.0]).unwrap().is_logarithmic);
        assert!(of(&[]).is_none() && of(&[f64::INFINITY, f64::NAN]).is_none());
    }

    #[test]
    fn shares_are_of_the_axis_whatever_the_value() {
        for scale in [Scale::of([1.0, 1000.0].into_iter(), 30.0), Scale::of([0.0, 0.0].into_iter(), 30.0)] {
            let scale = scale.unwrap();
            for value in [f64::NEG_INFINITY, -1.0, 0.0, 1.0, 1e300, f64::INFINITY, f64::NAN] {
                assert!((0.0..=1.0).contains(&scale.share(value)), "{value}");
            }
        }
        assert!((Scale::between(3.0, 3.0, true).share(3.0) - 0.5).abs() < 1e-9);
        assert_eq!(Scale::between(0.0, 0.0, true).share(0.0), 0.5);
    }

    #[test]
    fn ticks_are_round_and_few() {
        let scale = Scale::between(5.0, 20_000.0, true);
        assert_eq!(scale.ticks(Unit::Nanoseconds, 6), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(Scale::between(8.0, 60.0, true).ticks(Unit::Nanoseconds, 6), [10.0, 20.0, 50.0]);
        assert_eq!(Scale::between(0.0, 41.0, false).ticks(Unit::Percent, 4), [0.0, 20.0, 40.0]);
        assert_eq!(Scale::between(0.0, 5000.0, false).ticks(Unit::Bytes, 3), [0.0, 2048.0, 4096.0]);
        for (low, high) in [(1e-9, 1e12), (1.0, 1.1), (4.0, 5.0)] {
            for log in [true, false] {
                assert!(Scale::between(low, high, log).ticks(Unit::Count, 5).len() <= 6, "{low} {high} {log}");
            }
        }
    }
}
