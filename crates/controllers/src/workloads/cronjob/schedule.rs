//! Cron schedules: five fields or a word, and the next time after a given one. Pure.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A schedule that does not come up within this many years never does (30 February).
const YEARS_MAX: i16 = 5;

/// When something happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Schedule {
    Fields(Fields),
    /// `@every`, whole seconds.
    Every(i64),
}

/// Bit sets of the values each field allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Neither day field is `*`: one of them suffices.
    any_day: bool,
}

/// Why a schedule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ScheduleError(String);

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule and the time zone written into it (`TZ=…`), which older objects may have.
pub(crate) fn parse(text: &str) -> Result<(Schedule, Option<String>), ScheduleError> {
    let text = text.trim();
    let prefixed = text.strip_prefix("CRON_TZ=").or(text.strip_prefix("TZ="));
    if let Some(rest) = prefixed {
        let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        return Ok((read(rest.trim())?, Some(zone.to_owned())));
    }
    Ok((read(text)?, None))
}

fn read(text: &str) -> Result<Schedule, ScheduleError> {
    let spelled = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        text => text,
    };
    if let Some(every) = spelled.strip_prefix("@every ") {
        let length: SignedDuration = every
            .trim()
            .parse()
            .map_err(|_| ScheduleError(format!("failed to parse duration {text}")))?;
        return Ok(Schedule::Every(length.as_secs().max(1)));
    }
    let fields: Vec<_> = spelled.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        let count = fields.len();
        let message = format!("expected exactly 5 fields, found {count}: {fields:?}");
        return Err(ScheduleError(message));
    };
    let (days, all_days) = field(day, 1, 31, &[])?;
    let (weekdays, all_weekdays) = field(weekday, 0, 6, &WEEKDAYS)?;
    Ok(Schedule::Fields(Fields {
        minutes: field(minute, 0, 59, &[])?.0,
        hours: field(hour, 0, 23, &[])?.0,
        days,
        months: field(month, 1, 12, &MONTHS)?.0,
        weekdays,
        any_day: !all_days && !all_weekdays,
    }))
}

/// The values of a field, and whether it says `*`.
fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Result<(u64, bool), ScheduleError> {
    let wrong = || ScheduleError(format!("invalid field {text:?}"));
    let number = |word: &str| -> Result<u32, ScheduleError> {
        let lower = word.to_lowercase();
        let named = names.iter().position(|name| *name == lower);
        match named.and_then(|at| u32::try_from(at).ok()) {
            Some(at) => Ok(at + least),
            None => word.parse().map_err(|_| wrong()),
        }
    };
    let (mut bits, mut star) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| wrong())?)),
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => {
                star |= step.unwrap_or(1) <= 1;
                (least, most)
            }
            range => match range.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None if step.is_some() => (number(range)?, most),
                None => (number(range)?, number(range)?),
            },
        };
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(0);
        if first < least || last > most || first > last || step == 0 {
            return Err(wrong());
        }
        for value in (first..=last).step_by(step) {
            bits |= 1 << value;
        }
    }
    Ok((bits, star))
}

impl Schedule {
    /// The first time after `after`; `None` when there is none in the years to come.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(seconds) => {
                Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok()
            }
            Schedule::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    /// Steps in civil days and absolute hours and minutes: an hour that is skipped when clocks
    /// change does not come up, one that is repeated comes up twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        let end = zone.to_datetime(at).year().checked_add(YEARS_MAX)?;
        loop {
            let here = zone.to_datetime(at);
            if here.year() > end {
                return None;
            }
            let date = here.date();
            if !has(self.months, here.month()) {
                let next = date.last_of_month().tomorrow().ok()?;
                at = midnight(next, zone, at)?;
            } else if !self.has_day(date) {
                at = midnight(date.tomorrow().ok()?, zone, at)?;
            } else if !has(self.hours, here.hour()) {
                at = later(at, 60 - i64::from(here.minute()))?;
            } else if !has(self.minutes, here.minute()) {
                at = later(at, 1)?;
            } else {
                return Some(at);
            }
        }
    }

    fn has_day(&self, date: Date) -> bool {
        let by_date = has(self.days, date.day());
        let by_weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        match self.any_day {
            true => by_date || by_weekday,
            false => by_date && by_weekday,
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

fn later(at: Timestamp, minutes: i64) -> Option<Timestamp> {
    Timestamp::from_second(at.as_second() + minutes * 60).ok()
}

/// The start of a day, which always is later than `before`.
fn midnight(date: Date, zone: &TimeZone, before: Timestamp) -> Option<Timestamp> {
    let start: DateTime = date.at(0, 0, 0, 0);
    let start = zone.to_ambiguous_timestamp(start).compatible().ok()?;
    Some(start.max(later(before, 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, zone: &str, after: &str, expected: &[&str]) {
        let (schedule, _) = parse(schedule).unwrap();
        let zone = TimeZone::get(zone).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        for expected in expected {
            at = schedule.next(at, &zone).unwrap();
            assert_eq!(at.to_string(), *expected, "{schedule:?}");
        }
    }

    #[test]
    fn schedules_come_up() {
        let new_year = "2026-01-01T00:00:30Z";
        let check = |schedule, expected: &[&str]| check(schedule, "UTC", new_year, expected);
        check(
            "* * * * *",
            &["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"],
        );
        check(
            "*/15 * * * *",
            &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"],
        );
        check(
            "5/20 0 * * *",
            &["2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"],
        );
        check("@hourly", &["2026-01-01T01:00:00Z"]);
        check(
            "0 12 * FEB-mar 1,3",
            &["2026-02-02T12:00:00Z", "2026-02-04T12:00:00Z"],
        );
        check(
            "0 0 13 * fri",
            &[
                "2026-01-02T00:00:00Z",
                "2026-01-09T00:00:00Z",
                "2026-01-13T00:00:00Z",
            ],
        );
        check("0 0 29 2 *", &["2028-02-29T00:00:00Z"]);
        check("@every 90m", &["2026-01-01T01:30:30Z"]);
    }

    #[test]
    fn clocks_that_change_are_followed() {
        // On 29 March 2026 Berlin has no 02:30; on 25 October it has two.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"],
        );
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            &[
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-26T01:30:00Z",
            ],
        );
    }

    #[test]
    fn nonsense_is_refused_and_the_impossible_never_comes() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "x * * * *",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let (never, _) = parse("0 0 30 2 *").unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
        let (_, zone) = parse("TZ=Asia/Tokyo 0 0 * * *").unwrap();
        assert_eq!(zone.as_deref(), Some("Asia/Tokyo"));
    }
}
