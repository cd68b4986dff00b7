//! Figures as people read them.

use crate::results::{Figure, Unit};

/// A value with its unit, in three digits: `14.3 ns`, `3.11 M/s`.
pub fn with_unit(value: f64, unit: Unit) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (scale, name) = steps.iter().rev().find(|(scale, _)| value.abs() >= *scale * 0.9995).unwrap_or(&steps[0]);
        format!("{} {name}", digits(value / scale))
    };
    match unit {
        Unit::Nanoseconds => scaled(&[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")]),
        Unit::PerSecond => scaled(&[(1.0, "/s"), (1e3, "k/s"), (1e6, "M/s"), (1e9, "G/s")]),
        Unit::Bytes => {
            let kib = 1024.0;
            scaled(&[(1.0, "B"), (kib, "KiB"), (kib * kib, "MiB"), (kib * kib * kib, "GiB")])
        }
        Unit::Percent => format!("{} %", digits(value)),
        Unit::Count => digits(value),
    }
}

/// A number in three digits, or as many as it has before its point.
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        0.0 => 0,
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.09995 => 2,
        value if value >= 0.009995 => 3,
        _ => 5,
    };
    format!("{value:.places$}")
}

/// How far the quartiles are from the median, in percent of it: ` ±2 %`; nothing where that is less than one.
pub fn spread(figure: &Figure) -> String {
    let percent = (figure.high - figure.low) / 2.0 / figure.median * 100.0;
    if percent.is_finite() && percent >= 0.5 { format!(" ±{percent:.0} %") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_unit() {
        let cases = [
            (14.26, Unit::Nanoseconds, "14.3 ns"),
            (999.7, Unit::Nanoseconds, "1.00 µs"),
            (4.1, Unit::Nanoseconds, "4.10 ns"),
            (3_114_427.0, Unit::PerSecond, "3.11 M/s"),
            (0.5, Unit::PerSecond, "0.50 /s"),
            (1536.0, Unit::Bytes, "1.50 KiB"),
            (1.988, Unit::Percent, "1.99 %"),
            (0.0, Unit::Percent, "0 %"),
            (0.0, Unit::Nanoseconds, "0 ns"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(with_unit(value, unit), text);
        }
        assert_eq!(digits(0.0021), "0.00210");
        assert_eq!(digits(f64::INFINITY), "inf");
    }

    #[test]
    fn the_spread_is_half_the_distance_of_the_quartiles() {
        assert_eq!(spread(&Figure { median: 100.0, low: 98.0, high: 102.0 }), " ±2 %");
        assert_eq!(spread(&Figure { median: 100.0, low: 100.0, high: 100.0 }), "");
        assert_eq!(spread(&Figure { median: 0.0, low: 0.0, high: 0.0 }), "");
    }
}
