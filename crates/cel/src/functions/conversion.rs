//! Conversions between types.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::operator::{moment, span};
use super::{Outcome, Spec, fault, no_overload};
use crate::value::Value;

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "type",
        call: type_of,
        overloads: &["A -> type<A>"],
    },
    Spec {
        name: "dyn",
        call: same,
        overloads: &["A -> dyn"],
    },
    Spec {
        name: "bool",
        call: to_bool,
        overloads: &["bool -> bool", "string -> bool"],
    },
    Spec {
        name: "bytes",
        call: to_bytes,
        overloads: &["bytes -> bytes", "string -> bytes"],
    },
    Spec {
        name: "double",
        call: to_double,
        overloads: &[
            "double -> double",
            "int -> double",
            "string -> double",
            "uint -> double",
        ],
    },
    Spec {
        name: "int",
        call: to_int,
        overloads: &[
            "int -> int",
            "double -> int",
            "duration -> int",
            "string -> int",
            "timestamp -> int",
            "uint -> int",
        ],
    },
    Spec {
        name: "uint",
        call: to_uint,
        overloads: &[
            "uint -> uint",
            "double -> uint",
            "int -> uint",
            "string -> uint",
        ],
    },
    Spec {
        name: "string",
        call: to_string,
        overloads: &[
            "string -> string",
            "bool -> string",
            "bytes -> string",
            "double -> string",
            "duration -> string",
            "int -> string",
            "timestamp -> string",
            "uint -> string",
            "net.IP -> string",
            "net.CIDR -> string",
        ],
    },
    Spec {
        name: "duration",
        call: to_duration,
        overloads: &[
            "duration -> duration",
            "int -> duration",
            "string -> duration",
        ],
    },
    Spec {
        name: "timestamp",
        call: to_timestamp,
        overloads: &[
            "timestamp -> timestamp",
            "int -> timestamp",
            "string -> timestamp",
        ],
    },
];

/// What a conversion that cannot be says.
fn refused<'a>(value: &Value<'_>, to: &str) -> Outcome<'a> {
    fault(format!(
        "type conversion error from '{}' to '{to}'",
        value.type_name()
    ))
}

fn type_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::Type(Arc::from(&*value.type_name()))),
        _ => no_overload(),
    }
}

fn same<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(value.clone()),
        _ => no_overload(),
    }
}

fn to_bool<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [value @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => refused(value, "bool"),
        },
        _ => no_overload(),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value @ Value::Bytes(_)] => Ok(value.clone()),
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => no_overload(),
    }
}

fn to_double<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [value @ Value::String(text)] => text.parse().map_or_else(
            |_| refused(value, "double"),
            |number| Ok(Value::Double(number)),
        ),
        _ => no_overload(),
    }
}

fn to_int<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    /// The first double beyond the range.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => i64::try_from(*value)
            .map_or_else(|_| fault("integer overflow"), |value| Ok(Value::Int(value))),
        [Value::Double(value)] if *value > -LIMIT && *value < LIMIT => {
            Ok(Value::Int(*value as i64))
        }
        [Value::Double(_)] => fault("integer overflow"),
        [Value::Duration(span)] => Ok(Value::Int(span.as_nanos() as i64)),
        [Value::Timestamp(at)] => Ok(Value::Int(at.as_second())),
        [value @ Value::String(text)] => text
            .parse()
            .map_or_else(|_| refused(value, "int"), |number| Ok(Value::Int(number))),
        _ => no_overload(),
    }
}

fn to_uint<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    /// The first double beyond the range.
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => u64::try_from(*value).map_or_else(
            |_| fault("unsigned integer overflow"),
            |value| Ok(Value::Uint(value)),
        ),
        [Value::Double(value)] if *value >= 0.0 && *value < LIMIT => Ok(Value::Uint(*value as u64)),
        [Value::Double(_)] => fault("unsigned integer overflow"),
        [value @ Value::String(text)] => text
            .parse()
            .map_or_else(|_| refused(value, "uint"), |number| Ok(Value::Uint(number))),
        _ => no_overload(),
    }
}

fn to_string<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [value @ Value::String(_)] => value.clone(),
        [Value::Bool(value)] => Value::text(value.to_string()),
        [Value::Int(value)] => Value::text(value.to_string()),
        [Value::Uint(value)] => Value::text(value.to_string()),
        [Value::Double(value)] => Value::text(format_double(*value)),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return fault("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [Value::Duration(span)] => Value::text(crate::time::format_duration(*span)),
        [Value::Timestamp(at)] => Value::text(at.to_string()),
        [Value::Opaque(opaque)] => match opaque.text() {
            Some(text) => Value::text(text),
            None => return no_overload(),
        },
        _ => return no_overload(),
    })
}

/// As Go's shortest form: an exponent only for very small and very large numbers.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 {
            "+Inf".to_owned()
        } else {
            "-Inf".to_owned()
        };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..21).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

fn to_duration<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(span)] => Ok(Value::Duration(*span)),
        [Value::Int(nanos)] => span(Some(SignedDuration::from_nanos(*nanos))),
        [value @ Value::String(text)] => crate::time::parse_duration(text).map_or_else(
            || refused(value, "google.protobuf.Duration"),
            |span| Ok(Value::Duration(span)),
        ),
        _ => no_overload(),
    }
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Timestamp(at)] => Ok(Value::Timestamp(*at)),
        [Value::Int(seconds)] => moment(Timestamp::from_second(*seconds).ok()),
        [value @ Value::String(text)] => match crate::time::parse_timestamp(text) {
            Some(at) => moment(Some(at)),
            None => refused(value, "google.protobuf.Timestamp"),
        },
        _ => no_overload(),
    }
}
