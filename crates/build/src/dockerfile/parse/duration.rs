//! Spans of time in Go's writing: `1m30s`.

/// Nanoseconds; what is not zero is at least a millisecond.
pub(super) fn nanoseconds(flag: &str, text: &str) -> Result<i64, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    let mut rest = text;
    let mut total = 0.0;
    if rest != "0" {
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
            rest = &rest[end..];
            let end = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            let unit = match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 6e10,
                "h" => 3.6e12,
                _ => return Err(wrong()),
            };
            rest = &rest[end..];
            total += number * unit;
        }
    }
    if total >= i64::MAX as f64 {
        return Err(wrong());
    }
    let total = total as i64;
    if total != 0 && total < 1_000_000 {
        return Err(format!("Interval {flag:?} cannot be less than 1ms"));
    }
    Ok(total)
}
