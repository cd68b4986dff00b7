//! Figures, dates and names as a page shows them.

use crate::results::{Figure, Unit};

use super::super::units::{digits, spread, with_unit};

/// As text, or as the value of an attribute between double quotes. What XML does not allow becomes a replacement character.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(letter),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// Prose: escaped, and what stands between grave accents as code.
pub fn prose(text: &str) -> String {
    let text = escaped(text);
    if text.matches('`').count() % 2 == 1 {
        return text;
    }
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() }).collect()
}

/// A value with its unit; a dash where it is no number.
pub fn value(value: f64, unit: Unit) -> String {
    if value.is_finite() { with_unit(value, unit).replace(' ', "\u{a0}") } else { "–".to_owned() }
}

/// A figure: its median, and how far the quartiles are from it.
pub fn figure(figure: &Figure, unit: Unit) -> String {
    value(figure.median, unit) + &spread(figure).replace(' ', "\u{a0}")
}

/// A factor: `4.2×`.
pub fn times(factor: f64) -> String {
    match factor {
        factor if factor.is_nan() => "–".to_owned(),
        factor if factor.is_infinite() => "∞\u{a0}×".to_owned(),
        0.0 => "0\u{a0}×".to_owned(),
        // What rounds to 1.00 is as good; what does not keeps the digits that tell.
        factor if factor < 0.01 => format!("1/{}\u{a0}×", digits(1.0 / factor)),
        factor => format!("{}\u{a0}×", digits(factor)),
    }
}

/// The mark of an axis: no more digits than it has.
pub fn tick(at: f64, unit: Unit) -> String {
    let text = with_unit(at, unit);
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number}\u{a0}{unit}").trim_end().to_owned()
}

/// A place of an axis: large powers of two as such, other large ones in groups of three digits.
pub fn place(at: f64) -> String {
    let power = at.log2();
    if power.fract() == 0.0 && (14.0..1024.0).contains(&power) {
        return format!("2{}", superscript(power as u32));
    }
    if !at.is_finite() {
        return "–".to_owned();
    }
    if at.fract() != 0.0 || at.abs() >= 1e15 {
        return format!("{at}");
    }
    let plain = format!("{at}");
    let (sign, plain) = plain.strip_prefix('-').map_or(("", plain.as_str()), |plain| ("-", plain));
    let mut text = sign.to_owned();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A place with what it counts: `1 thread`, `2 threads`.
pub fn counted(at: f64, label: &str) -> String {
    let one = label.strip_suffix("sses").map(|stem| format!("{stem}ss"));
    let one = one.or_else(|| label.strip_suffix('s').map(str::to_owned)).filter(|_| at == 1.0);
    format!("{} {}", place(at), one.as_deref().unwrap_or(label))
}

fn superscript(number: u32) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().chars().filter_map(|digit| digit.to_digit(10)).map(|digit| RAISED[digit as usize]).collect()
}

/// A day of the calendar in UTC: `23 November 2026`.
pub fn day(unix_s: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    // Years that begin in March, in eras of 400 years: a leap day is the last of its year.
    let days = unix_s / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year + u64::from(month < 2);
    format!("{day} {} {year}", MONTHS[month as usize])
}

/// How long a run took.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".to_owned();
    }
    let whole = seconds.round() as u64;
    if whole < 60 { format!("{whole} s") } else { format!("{} min {} s", whole / 60, whole % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (unix_s, text) in [
            (0, "1 January 1970"),
            (951_782_400, "29 February 2000"),
            (951_868_800, "1 March 2000"),
            (1_798_761_599, "31 December 2026"),
            (1_798_761_600, "1 January 2027"),
        ] {
            assert_eq!(day(unix_s), text);
        }
    }

    #[test]
    fn places_and_marks_are_short() {
        let places = [1.0, 1024.0, 16384.0, 100_000.0, 67_108_864.0, 0.5].map(place);
        assert_eq!(places, ["1", "1,024", "2¹⁴", "100,000", "2²⁶", "0.5"]);
        assert_eq!([counted(1.0, "threads"), counted(2.0, "threads")], ["1 thread", "2 threads"]);
        assert_eq!(counted(1.0, "processes"), "1 process");
        assert_eq!(tick(1000.0, Unit::Nanoseconds), "1\u{a0}µs");
        assert_eq!(tick(20.0, Unit::Nanoseconds), "20\u{a0}ns");
        assert_eq!(tick(100.0, Unit::Count), "100");
        assert_eq!(
            [4.2, 0.004, f64::INFINITY, 0.0].map(times),
            ["4.20\u{a0}×", "1/250\u{a0}×", "∞\u{a0}×", "0\u{a0}×"]
        );
    }

    #[test]
    fn text_is_escaped_and_code_is_set_as_code() {
        assert_eq!(prose("a `<b>` & \"c\""), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
        assert_eq!(prose("one ` alone"), "one ` alone");
        assert_eq!(escaped("a\u{0}b"), "a\u{fffd}b");
    }
}
