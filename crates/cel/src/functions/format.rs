//! `"...".format([...])`.

use super::string::quote;
use super::{Outcome, fault, no_overload};
use crate::error::EvalError;
use crate::functions::conversion::format_double;
use crate::value::Value;

/// The most digits after the point that may be asked for.
const MAX_PRECISION: usize = 1000;
const DEFAULT_PRECISION: usize = 6;

pub(super) fn format<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(template), list] = args else {
        return no_overload();
    };
    let Some(values) = list.items() else {
        return no_overload();
    };
    let mut values = values.into_iter().enumerate();
    let mut out = String::with_capacity(template.len());
    let mut rest = &**template;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let Some(verb) = after.chars().next() else {
            return fault("unexpected end of string");
        };
        rest = &after[verb.len_utf8()..];
        let Some((_, value)) = values.next() else {
            return fault(format!("index {} out of range", list.size().unwrap_or(0)));
        };
        out.push_str(&clause(verb, precision, &value)?);
    }
    out.push_str(rest);
    Ok(Value::text(out))
}

fn precision(text: &str) -> Result<(usize, &str), EvalError> {
    let Some(digits) = text.strip_prefix('.') else {
        return Ok((DEFAULT_PRECISION, text));
    };
    let length = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    match digits[..length].parse() {
        Ok(precision) if precision <= MAX_PRECISION => Ok((precision, &digits[length..])),
        _ => Err(EvalError::fault(
            "could not parse formatting clause: error while parsing precision",
        )),
    }
}

fn clause(verb: char, precision: usize, value: &Value<'_>) -> Result<String, EvalError> {
    let wrong = |what: &str| {
        let message = format!(
            "error during formatting: {what} clause can only be used on {}, was given {}",
            allowed(verb),
            value.type_name()
        );
        Err(EvalError::fault(message))
    };
    match (verb, value) {
        ('s', value) => text(value),
        ('d', Value::Int(number)) => Ok(number.to_string()),
        ('d', Value::Uint(number)) => Ok(number.to_string()),
        ('d', _) => wrong("decimal"),
        ('f', Value::Double(number)) if number.is_finite() => Ok(format!("{number:.precision$}")),
        ('e', Value::Double(number)) if number.is_finite() => Ok(scientific(*number, precision)),
        ('f' | 'e', Value::Double(number)) => Ok(infinite(*number)),
        ('f', _) => wrong("fixed-point"),
        ('e', _) => wrong("scientific"),
        ('b', Value::Int(number)) => Ok(signed(*number, |magnitude| format!("{magnitude:b}"))),
        ('b', Value::Uint(number)) => Ok(format!("{number:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => wrong("binary"),
        ('x', Value::Int(number)) => Ok(signed(*number, |magnitude| format!("{magnitude:x}"))),
        ('X', Value::Int(number)) => Ok(signed(*number, |magnitude| format!("{magnitude:X}"))),
        ('x', Value::Uint(number)) => Ok(format!("{number:x}")),
        ('X', Value::Uint(number)) => Ok(format!("{number:X}")),
        ('x', Value::String(text)) => Ok(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ('X', Value::String(text)) => Ok(text.bytes().map(|byte| format!("{byte:02X}")).collect()),
        ('x', Value::Bytes(bytes)) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        ('X', Value::Bytes(bytes)) => Ok(bytes.iter().map(|byte| format!("{byte:02X}")).collect()),
        ('x' | 'X', _) => wrong("hex"),
        ('o', Value::Int(number)) => Ok(signed(*number, |magnitude| format!("{magnitude:o}"))),
        ('o', Value::Uint(number)) => Ok(format!("{number:o}")),
        ('o', _) => wrong("octal"),
        _ => {
            let message = format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            );
            Err(EvalError::fault(message))
        }
    }
}

fn allowed(verb: char) -> &'static str {
    match verb {
        'f' | 'e' => "doubles",
        'd' | 'o' => "integers",
        'b' => "integers and bools",
        'x' | 'X' => "integers, byte buffers, and strings",
        _ => {
            "strings, bools, integers, bytes, lists, maps, types, doubles, durations and timestamps"
        }
    }
}

fn signed(number: i64, digits: fn(u64) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", digits(number.unsigned_abs()))
}

fn infinite(number: f64) -> String {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "\u{221e}"
    } else {
        "-\u{221e}"
    }
    .to_owned()
}

/// `1.052033\u{d7}10\u{2070}\u{b3}`: the exponent as a power of ten.
fn scientific(number: f64, precision: usize) -> String {
    const RAISED: [char; 10] = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}',
        '\u{2078}', '\u{2079}',
    ];
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent
        .strip_prefix('-')
        .map_or(("", exponent), |exponent| ("\u{207b}", exponent));
    let padded = format!("{exponent:0>2}");
    let raised: String = padded
        .bytes()
        .filter_map(|digit| RAISED.get(usize::from(digit - b'0')))
        .collect();
    format!("{digits}\u{d7}10{sign}{raised}")
}

/// What `%s` makes of a value.
fn text(value: &Value<'_>) -> Result<String, EvalError> {
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => format_double(*value),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(span) => crate::time::format_duration(*span),
        Value::Timestamp(at) => at.to_string(),
        Value::Type(name) => name.to_string(),
        Value::List(_) | Value::JsonList(_) => {
            let items = value.items().unwrap_or_default();
            let items: Vec<String> = items.iter().map(quoted).collect::<Result<_, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(_) | Value::JsonMap(_) if value.entries().is_some() => {
            let entries = value.entries().unwrap_or_default();
            let entry = |(key, value): &(Value<'_>, Value<'_>)| {
                Ok(format!("{}:{}", quoted(key)?, quoted(value)?))
            };
            let mut entries: Vec<String> = entries
                .iter()
                .map(entry)
                .collect::<Result<_, EvalError>>()?;
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        other => {
            let message = format!(
                "error during formatting: string clause can only be used on {}, was given {}",
                allowed('s'),
                other.type_name()
            );
            return Err(EvalError::fault(message));
        }
    })
}

fn quoted(value: &Value<'_>) -> Result<String, EvalError> {
    let plain = text(value)?;
    Ok(match value {
        Value::String(_) => quote(&plain),
        Value::Bytes(_) => format!("b{}", quote(&plain)),
        Value::Double(number) if !number.is_finite() => quote(&plain),
        _ => plain,
    })
}
