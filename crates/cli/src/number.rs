//! Numbers as people type them.

/// What each suffix multiplies by: 1024 once or more.
const SUFFIXES: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

const NOT_A_NUMBER: &str = "a number of at most 64 bits is needed, decimal or 0x…";
const NOT_A_COUNT: &str = "a number of at most 64 bits is needed, decimal or 0x…, with or without K, M, G or T";

/// A count, a size or a block's number: decimal or 0x…, with K, M, G or T (of either case) for powers of 1024.
pub fn count(text: &str) -> Result<u64, String> {
    let suffix = text.chars().last().map(|last| last.to_ascii_uppercase());
    let Some((_, bits)) = SUFFIXES.iter().find(|(letter, _)| Some(*letter) == suffix) else {
        return plain(text).map_err(|_| NOT_A_COUNT.into());
    };
    let number = plain(&text[..text.len() - 1]).map_err(|_| NOT_A_COUNT)?;
    number.checked_mul(1 << bits).ok_or_else(|| NOT_A_COUNT.into())
}

/// As [`count`], but at least 1.
pub fn positive(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("must be at least 1".into()),
        number => Ok(number),
    }
}

/// As [`count`], in 16 bits.
pub fn count_u16(text: &str) -> Result<u16, String> {
    count(text)?.try_into().map_err(|_| format!("at most {} are possible", u16::MAX))
}

/// As [`count`], in 32 bits.
pub fn count_u32(text: &str) -> Result<u32, String> {
    count(text)?.try_into().map_err(|_| format!("at most {} are possible", u32::MAX))
}

/// A number without suffix: decimal or 0x….
pub fn plain(text: &str) -> Result<u64, String> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // `from_str_radix` takes a sign.
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(NOT_A_NUMBER.into());
    }
    u64::from_str_radix(digits, radix).map_err(|_| NOT_A_NUMBER.into())
}

/// Bytes as people say them: `512 MiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let exponent = bytes.ilog2() / 10;
    let unit = UNITS[exponent as usize - 1];
    let value = bytes as f64 / (1u64 << (10 * exponent)) as f64;
    if bytes.is_multiple_of(1 << (10 * exponent)) { format!("{value} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A number with its thousands apart: `1,048,576`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A time: a number and `ms`, `s`, `m` or `h`.
pub fn time(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is no time; a number and ms, s, m or h are needed, as 500ms");
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..at].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    Ok(std::time::Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(wrong)?))
}

/// A time in its greatest unit.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
    match units.iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", grouped(seconds / unit)),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_decimal_or_hexadecimal_with_a_suffix() {
        for (text, number) in [("0", 0), ("12", 12), ("0x1f", 31), ("0X1F", 31), ("4K", 4096), ("2m", 2 << 20)] {
            assert_eq!(count(text), Ok(number), "{text}");
        }
        assert_eq!(count("16777215T"), Ok(16_777_215 << 40));
        assert_eq!(count("0x10G"), Ok(16 << 30));
        assert_eq!(plain("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "K", "0x", "0xK", "+1", "-1", "1.5G", "1KK", "ten", "18446744073709551616", "16777216T", "٣"]
        {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(plain("4K").is_err());
        assert!(positive("0").is_err());
        assert!(count_u16("64K").is_err());
    }

    #[test]
    fn figures_read_well() {
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(1_048_576)], ["0", "999", "1,000", "1,048,576"]);
        assert_eq!([bytes(0), bytes(1023), bytes(1024), bytes(1536)], ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB"]);
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }
}
