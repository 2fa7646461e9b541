//! Durations as Go reads and writes them.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// `metav1.Duration`: a text such as `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoDuration {
    /// Nanoseconds.
    pub nanos: i64,
}

impl GoDuration {
    /// The error is Go's.
    pub fn parse(text: &str) -> Result<GoDuration, String> {
        let invalid = || format!("time: invalid duration {text:?}");
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total = 0f64;
        while !rest.is_empty() {
            let is_number = |sign: char| sign.is_ascii_digit() || sign == '.';
            let end = rest.find(|sign| !is_number(sign)).unwrap_or(rest.len());
            let (digits, after) = rest.split_at(end);
            let number: f64 = digits.parse().map_err(|_| invalid())?;
            let end = after.find(is_number).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let nanos = match unit {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" | "μs" => 1e3,
                "ns" => 1.0,
                "" => return Err(format!("time: missing unit in duration {text:?}")),
                unit => {
                    return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
                }
            };
            total += number * nanos;
            rest = after;
        }
        if total >= 9.2e18 {
            return Err(invalid());
        }
        #[expect(clippy::cast_possible_truncation, reason = "looked at above")]
        let nanos = total.round() as i64;
        Ok(GoDuration {
            nanos: if negative { -nanos } else { nanos },
        })
    }

    /// The time; nothing for a negative one.
    pub fn time(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.unsigned_abs();
        let part = |unit: u64| {
            let (whole, rest) = (nanos / unit, nanos % unit);
            let digits = unit.ilog10() as usize;
            let text = format!("{whole}.{rest:0digits$}");
            match unit {
                1 => whole.to_string(),
                _ => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            }
        };
        match nanos {
            0 => write!(f, "0s"),
            1..1_000 => write!(f, "{sign}{}ns", part(1)),
            1_000..1_000_000 => write!(f, "{sign}{}µs", part(1_000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}ms", part(1_000_000)),
            _ => {
                let (minutes, below) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
                let below = format!("{}.{:09}", below / 1_000_000_000, below % 1_000_000_000);
                let seconds = below.trim_end_matches('0').trim_end_matches('.');
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{sign}{seconds}s"),
                    (0, minutes) => write!(f, "{sign}{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{sign}{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<GoDuration, D::Error> {
        let text = String::deserialize(from)?;
        GoDuration::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let again = |text: &str| GoDuration::parse(text).unwrap().to_string();
        for (text, printed) in [
            ("0", "0s"),
            ("90s", "1m30s"),
            ("2m", "2m0s"),
            ("4h", "4h0m0s"),
            ("1.5s", "1.5s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("-1m", "-1m0s"),
        ] {
            assert_eq!(again(text), printed);
        }
        let fault = |text: &str| GoDuration::parse(text).unwrap_err();
        assert_eq!(fault("10"), "time: missing unit in duration \"10\"");
        assert_eq!(fault("soon"), "time: invalid duration \"soon\"");
        assert_eq!(fault("1x"), "time: unknown unit \"x\" in duration \"1x\"");
    }
}
