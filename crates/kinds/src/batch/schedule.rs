//! The syntax of a cron schedule: five fields, or a word such as `@daily`.

/// One of the five fields: its bounds, and names that stand for numbers.
struct Field {
    least: i64,
    most: i64,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        least: 0,
        most: 59,
        names: &[],
    },
    Field {
        least: 0,
        most: 23,
        names: &[],
    },
    Field {
        least: 1,
        most: 31,
        names: &[],
    },
    Field {
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        least: 0,
        most: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];
const WORDS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// Says what is wrong with a schedule, in the words of the parser that upstream uses.
pub(crate) fn check(schedule: &str) -> Result<(), String> {
    let mut schedule = schedule;
    if schedule.is_empty() {
        return Err("empty spec string".into());
    }
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        schedule = schedule.split_once(' ').map_or("", |(_, rest)| rest.trim());
    }
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix("@every ");
        let sound = WORDS.contains(&schedule) || every.is_some_and(is_duration);
        return match (sound, every) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(format!("failed to parse duration {schedule}")),
            (false, None) => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<_> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let shown = fields.join(" ");
        let count = fields.len();
        return Err(format!(
            "expected exactly 5 fields, found {count}: [{shown}]"
        ));
    }
    for (text, field) in fields.iter().zip(&FIELDS) {
        for range in text.split(',').filter(|range| !range.is_empty()) {
            check_range(range, field)?;
        }
    }
    Ok(())
}

fn check_range(text: &str, field: &Field) -> Result<(), String> {
    let mut parts = text.split('/');
    let (range, step) = (parts.next().unwrap_or(""), parts.next());
    if parts.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let (start, end) = if matches!(range, "*" | "?") {
        (field.least, field.most)
    } else {
        let mut ends = range.split('-');
        let (low, high) = (ends.next().unwrap_or(""), ends.next());
        if ends.next().is_some() {
            return Err(format!("too many hyphens: {text}"));
        }
        let start = number_or_name(low, field)?;
        let end = match (high, step) {
            (Some(high), _) => number_or_name(high, field)?,
            // A start with a step and no end means: to the end.
            (None, Some(_)) => field.most,
            (None, None) => start,
        };
        (start, end)
    };
    if step.map(number).transpose()? == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let (least, most) = (field.least, field.most);
    if start < least {
        return Err(format!(
            "beginning of range ({start}) below minimum ({least}): {text}"
        ));
    }
    if end > most {
        return Err(format!(
            "end of range ({end}) above maximum ({most}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    Ok(())
}

fn number_or_name(text: &str, field: &Field) -> Result<i64, String> {
    let lower = text.to_lowercase();
    match field.names.iter().position(|name| *name == lower) {
        Some(index) => Ok(field.least + i64::try_from(index).unwrap_or(0)),
        None => number(text),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let parsed: i64 = text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
    })?;
    match parsed {
        0.. => Ok(parsed),
        negative => Err(format!("negative number ({negative}) not allowed: {text}")),
    }
}

/// Whether a text such as `1h30m` is a length of time.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (amount, unit) = rest.split_at(digits);
        let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
        let length = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at(length);
        if amount.parse::<f64>().is_err() || !units.contains(&unit) {
            return false;
        }
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(expected: &[(&str, &str)]) {
        for (schedule, fault) in expected {
            let found = check(schedule).err().unwrap_or_default();
            assert_eq!(found, *fault, "{schedule}");
        }
    }

    #[test]
    fn schedules_are_read() {
        check_all(&[
            ("* * * * *", ""),
            ("*/5 0-6,12 1,15 jan-MAR mon", ""),
            ("@daily", ""),
            ("@every 1h30m", ""),
            ("? 4/2 * * 0", ""),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "a * * * *",
                "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax",
            ),
        ]);
    }
}
