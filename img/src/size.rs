//! Sizes as people write and read them.

/// Parses a size with one of the suffixes b, k, M, G, T, P, E.
pub fn parse(text: &str) -> Result<u64, String> {
    let bad =
        || format!("invalid size '{text}': expected bytes, or a number with one of the suffixes k, M, G, T, P, E");
    let (number, shift) = match text.char_indices().last() {
        Some((at, c)) if c.is_ascii_alphabetic() => {
            let shift = match c.to_ascii_lowercase() {
                'b' => 0,
                'k' => 10,
                'm' => 20,
                'g' => 30,
                't' => 40,
                'p' => 50,
                'e' => 60,
                _ => return Err(bad()),
            };
            (&text[..at], shift)
        }
        _ => (text, 0),
    };
    if shift < 50 {
        let suffix = ["", "K", "M", "G", "T"][shift / 10];
        return rhea_device::options::parse_size(&format!("{number}{suffix}"), 1).ok_or_else(bad);
    }
    let n: u64 = number.parse().map_err(|_| bad())?;
    n.checked_mul(1 << shift).ok_or_else(bad)
}

/// Three significant digits and a unit.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1000.0 && unit < 6 {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 || value == 0.0 {
        2
    } else {
        3
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(parse("1.5G"), Ok(3 << 29));
        assert_eq!(parse("2E"), Ok(2 << 60));
        assert_eq!(parse("512b"), Ok(512));
        assert!(parse("16E").is_err() && parse("x").is_err() && parse("").is_err());
        for (n, text) in
            [(0, "0 B"), (1000, "0.977 KiB"), (459_264, "448 KiB"), (3 << 20, "3 MiB"), (5 << 29, "2.5 GiB")]
        {
            assert_eq!(human(n), text);
        }
    }
}
