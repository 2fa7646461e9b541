//! Sizes, tests of strings, and the parts of times.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Outcome, Spec, fault, no_overload};
use crate::error::EvalError;
use crate::value::Value;

const PART: &[&str] = &["timestamp . -> int", "timestamp . string -> int"];
const PART_OR_SPAN: &[&str] = &[
    "timestamp . -> int",
    "timestamp . string -> int",
    "duration . -> int",
];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "size",
        call: size,
        overloads: &[
            "bytes -> int",
            "bytes . -> int",
            "list<A> -> int",
            "list<A> . -> int",
            "map<A,B> -> int",
            "map<A,B> . -> int",
            "string -> int",
            "string . -> int",
        ],
    },
    Spec {
        name: "contains",
        call: |args| test(args, |a, b| a.contains(b)),
        overloads: &["string . string -> bool"],
    },
    Spec {
        name: "startsWith",
        call: |args| test(args, |a, b| a.starts_with(b)),
        overloads: &["string . string -> bool"],
    },
    Spec {
        name: "endsWith",
        call: |args| test(args, |a, b| a.ends_with(b)),
        overloads: &["string . string -> bool"],
    },
    Spec {
        name: "getFullYear",
        call: |args| part(args, |at| i64::from(at.year()), None),
        overloads: PART,
    },
    Spec {
        name: "getMonth",
        call: |args| part(args, |at| i64::from(at.month()) - 1, None),
        overloads: PART,
    },
    Spec {
        name: "getDayOfYear",
        call: |args| part(args, |at| i64::from(at.day_of_year()) - 1, None),
        overloads: PART,
    },
    Spec {
        name: "getDayOfMonth",
        call: |args| part(args, |at| i64::from(at.day()) - 1, None),
        overloads: PART,
    },
    Spec {
        name: "getDate",
        call: |args| part(args, |at| i64::from(at.day()), None),
        overloads: PART,
    },
    Spec {
        name: "getDayOfWeek",
        call: |args| {
            part(
                args,
                |at| i64::from(at.weekday().to_sunday_zero_offset()),
                None,
            )
        },
        overloads: PART,
    },
    Spec {
        name: "getHours",
        call: |args| {
            part(
                args,
                |at| i64::from(at.hour()),
                Some(|span| span.as_secs() / 3600),
            )
        },
        overloads: PART_OR_SPAN,
    },
    Spec {
        name: "getMinutes",
        call: |args| {
            part(
                args,
                |at| i64::from(at.minute()),
                Some(|span| span.as_secs() / 60),
            )
        },
        overloads: PART_OR_SPAN,
    },
    Spec {
        name: "getSeconds",
        call: |args| {
            part(
                args,
                |at| i64::from(at.second()),
                Some(|span| span.as_secs()),
            )
        },
        overloads: PART_OR_SPAN,
    },
    Spec {
        name: "getMilliseconds",
        call: |args| {
            // Of a point in time it is the part of its second; of a span it is all of it.
            let millis = |span: SignedDuration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            part(args, |at| i64::from(at.millisecond()), Some(millis))
        },
        overloads: PART_OR_SPAN,
    },
];

fn size<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => value
            .size()
            .map_or_else(no_overload, |size| Ok(Value::Int(size as i64))),
        _ => no_overload(),
    }
}

fn test<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(other)] => Ok(Value::Bool(holds(text, other))),
        _ => no_overload(),
    }
}

fn part<'a>(
    args: &[Value<'a>],
    of: fn(&Zoned) -> i64,
    of_span: Option<fn(SignedDuration) -> i64>,
) -> Outcome<'a> {
    match (args, of_span) {
        ([Value::Timestamp(at)], _) => Ok(Value::Int(of(&at.to_zoned(TimeZone::UTC)))),
        ([Value::Timestamp(at), Value::String(zone)], _) => {
            Ok(Value::Int(of(&in_zone(*at, zone)?)))
        }
        ([Value::Duration(span)], Some(of_span)) => Ok(Value::Int(of_span(*span))),
        _ => no_overload(),
    }
}

/// A zone by name, or by its distance from UTC (`+01:30`).
fn in_zone(at: Timestamp, zone: &str) -> Result<Zoned, EvalError> {
    if let Some((hours, minutes)) = zone.split_once(':') {
        let minutes_of = |hours: &str, minutes: &str| {
            let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
            let minutes = if zone.starts_with('-') {
                hours * 60 - minutes
            } else {
                hours * 60 + minutes
            };
            Offset::from_seconds(minutes.checked_mul(60)?).ok()
        };
        let offset = hours.len() < 4 && minutes.len() < 3;
        return match offset.then(|| minutes_of(hours, minutes)).flatten() {
            Some(offset) => Ok(at.to_zoned(TimeZone::fixed(offset))),
            None => Err(EvalError::fault(format!("invalid timezone: {zone}"))),
        };
    }
    match TimeZone::get(zone) {
        Ok(zone) => Ok(at.to_zoned(zone)),
        Err(_) => fault(format!("unknown time zone {zone}")).map(|_| at.to_zoned(TimeZone::UTC)),
    }
}
