//! Kubernetes quantities: exact decimal numbers with SI or binary suffixes.

use std::fmt;
use std::str::FromStr;

/// Which family of suffixes the canonical text uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, …
    BinarySi,
    /// `n`, `u`, `m`, `k`, `M`, `G`, …
    DecimalSi,
    /// `e3`, `E6`, …
    DecimalExponent,
}

/// An exact amount in steps of 10⁻⁹. Finer fractions are rounded up, as upstream does.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression \
     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct QuantityError;

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity {
        nano: 0,
        format: Format::DecimalSi,
    };

    /// A whole number of units.
    pub fn from_units(units: i64) -> Quantity {
        Quantity {
            nano: i128::from(units) * NANO,
            format: Format::DecimalSi,
        }
    }

    /// A number of thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity {
            nano: i128::from(milli) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// A number of bytes, shown with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity {
            nano: i128::from(bytes) * NANO,
            format: Format::BinarySi,
        }
    }

    /// Reads the text form, such as `100m`, `1.5Gi` or `1e3`.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let negative = text.starts_with('-');
        let end = digits
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError);
        }
        let (multiplier, format) = suffix_of(suffix)?;
        let nano = scaled(whole, fraction, multiplier).ok_or(QuantityError)?;
        Ok(Quantity {
            nano: if negative { -nano } else { nano },
            format,
        })
    }

    /// The amount in whole units, rounded up; saturates.
    pub fn value(self) -> i64 {
        saturate(div_up(self.nano, NANO))
    }

    /// The amount in thousandths, rounded up; saturates.
    pub fn milli(self) -> i64 {
        saturate(div_up(self.nano, NANO / 1000))
    }

    /// The amount in steps of 10⁻⁹.
    pub fn nano(self) -> i128 {
        self.nano
    }

    /// Whether the amount is below zero.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whether the amount is zero.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }
}

enum Multiplier {
    Ten(i32),
    Two(u32),
}

fn suffix_of(suffix: &str) -> Result<(Multiplier, Format), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(text, _)| *text == suffix) {
        return Ok((Multiplier::Ten(*power), Format::DecimalSi));
    }
    if let Some((_, power)) = BINARY.iter().find(|(text, _)| *text == suffix) {
        return Ok((Multiplier::Two(*power), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let power: i32 = exponent.parse().map_err(|_| QuantityError)?;
    Ok((Multiplier::Ten(power), Format::DecimalExponent))
}

/// `whole.fraction` times the multiplier, in nano units rounded up; `None` when it cannot be held.
fn scaled(whole: &str, fraction: &str, multiplier: Multiplier) -> Option<i128> {
    // Beyond 30 digits neither part can matter within the range of an i128 of nano units.
    let fraction = &fraction[..fraction.len().min(30)];
    if whole.len() + fraction.len() > 38 {
        return None;
    }
    let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let (power, factor) = match multiplier {
        Multiplier::Ten(power) => (power.checked_add(9)?.checked_sub(places)?, 1_i128),
        Multiplier::Two(power) => (9 - places, 1_i128 << power),
    };
    let mantissa = mantissa.checked_mul(factor)?;
    if power >= 0 {
        return mantissa.checked_mul(10_i128.checked_pow(power.unsigned_abs())?);
    }
    match 10_i128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => Some(div_up(mantissa, divisor)),
        None => Some(i128::from(mantissa > 0)),
    }
}

fn div_up(value: i128, divisor: i128) -> i128 {
    value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that leaves no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole_units = self.nano % NANO == 0;
        if self.format == Format::BinarySi && whole_units && self.nano.abs() >= 1024 * NANO {
            let units = self.nano / NANO;
            let fits = |(_, power): &&(&str, u32)| units % (1_i128 << power) == 0;
            return match BINARY.iter().rev().find(fits) {
                Some((suffix, power)) => write!(f, "{}{suffix}", units / (1_i128 << power)),
                None => write!(f, "{units}"),
            };
        }
        for (suffix, power) in DECIMAL.iter().rev() {
            let step = 10_i128.pow((power + 9).unsigned_abs());
            if self.nano % step == 0 {
                let count = self.nano / step;
                return match (self.format, *power) {
                    (Format::DecimalExponent, power) if power != 0 => write!(f, "{count}e{power}"),
                    _ => write!(f, "{count}{suffix}"),
                };
            }
        }
        write!(f, "{}n", self.nano)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        Quantity::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}
impl std::ops::Add for Quantity {
    type Output = Quantity;
    /// Saturates; keeps the left format unless the left side is zero.
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 {
            other.format
        } else {
            self.format
        };
        Quantity {
            nano: self.nano.saturating_add(other.nano),
            format,
        }
    }
}
impl std::ops::Sub for Quantity {
    type Output = Quantity;
    /// Saturates; keeps the left format unless the left side is zero.
    fn sub(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 {
            other.format
        } else {
            self.format
        };
        Quantity {
            nano: self.nano.saturating_sub(other.nano),
            format,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: &str) {
        assert_eq!(
            Quantity::parse(text).unwrap().to_string(),
            canonical,
            "{text}"
        );
    }

    #[test]
    fn canonical_forms() {
        check("0", "0");
        check("100m", "100m");
        check("0.1", "100m");
        check("1000m", "1");
        check("1500m", "1500m");
        check("1.5Gi", "1536Mi");
        check("1024Ki", "1Mi");
        check("512", "512");
        check("1000k", "1M");
        check("1e3", "1e3");
        check("-5", "-5");
        check(".5", "500m");
        check("0.5Mi", "512Ki");
        check("1Ei", "1Ei");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "", "m", "1.2.3", "1mm", "1 Gi", "1e", "--1", "1e99", "Gi", "+",
        ] {
            assert_eq!(Quantity::parse(text).err(), Some(QuantityError), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Quantity::parse("1500m").unwrap().value(), 2);
        assert_eq!(Quantity::parse("1n").unwrap().milli(), 1);
        assert_eq!(Quantity::parse("2Gi").unwrap().value(), 2 << 30);
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
        assert_eq!(
            Quantity::parse("1").unwrap(),
            Quantity::parse("1000m").unwrap()
        );
    }
}
