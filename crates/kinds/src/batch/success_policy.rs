//! Faults in what makes an indexed job succeed early.

use meta::Faults;

use crate::spot::{Spot, not_negative};
use crate::tree::Tree;

const RULES_MAX: usize = 20;
const INDEXES_BYTES_MAX: usize = 64 << 10;

/// Faults in `successPolicy` of an indexed job's specification.
pub(super) fn validate(spec: &Spot<'_>, faults: &mut Faults) {
    let Some(policy) = spec.some("successPolicy") else {
        return;
    };
    let count = policy.count("rules");
    if count == 0 {
        let rule = "at least one rules must be specified when the successPolicy is specified";
        faults.required(policy.path("rules"), rule);
    }
    if count > RULES_MAX {
        faults.too_many(policy.path("rules"), count, RULES_MAX);
    }
    for rule in policy.items("rules") {
        validate_rule(&rule, spec.int("completions"), faults);
    }
}

fn validate_rule(rule: &Spot<'_>, completions: i64, faults: &mut Faults) {
    let indexes = rule.some("succeededIndexes");
    let count = rule.maybe_int("succeededCount");
    if indexes.is_none() && count.is_none() {
        let what = "at least one of succeededCount or succeededIndexes must be specified";
        faults.required(rule.path.clone(), what);
    }
    let mut total = None;
    if let Some(indexes) = indexes {
        let text = indexes.value.as_str().unwrap_or("");
        if text.len() > INDEXES_BYTES_MAX {
            faults.too_long(indexes.path.clone(), INDEXES_BYTES_MAX);
        }
        total = Some(0);
        match count_indexes(text, completions) {
            Ok(sum) => total = Some(sum),
            Err(error) => {
                let error = format!("error parsing succeededIndexes: {error}");
                faults.invalid(indexes.path, text, error);
            }
        }
    }
    let Some(count) = count else {
        return;
    };
    not_negative(rule, "succeededCount", faults);
    let path = rule.path("succeededCount");
    if count > completions {
        let most = format!(
            "must be less than or equal to {completions} (the number of specified completions)"
        );
        faults.invalid(path.clone(), count, most);
    }
    if let Some(total) = total.filter(|total| count > *total) {
        let most = format!(
            "must be less than or equal to {total} (the number of indexes in the specified \
             succeededIndexes field)"
        );
        faults.invalid(path, count, most);
    }
}

/// How many indexes a text such as `0,2-4` names.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last) = (0, None);
    for interval in text.split(',') {
        let (first, end) = interval_of(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(not_increasing(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval_of(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        match unsigned.parse::<i64>() {
            Err(_) => Err(format!(
                "cannot convert string to integer for index: {text:?}"
            )),
            Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
            Ok(index) => Ok(index),
        }
    };
    let parts: Vec<&str> = interval.split('-').collect();
    match parts.as_slice() {
        [one] => index(one).map(|one| (one, one)),
        [first, end] => {
            let (first, end) = (index(first)?, index(end)?);
            match first < end {
                true => Ok((first, end)),
                false => Err(not_increasing(first, end)),
            }
        }
        _ => Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have \
             at most two parts separated by '-'"
        )),
    }
}

fn not_increasing(previous: i64, current: i64) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(rules: Value, expected: &[&str]) {
        let spec = json!({"completions": 5, "successPolicy": {"rules": rules}});
        let mut faults = Faults::new();
        validate(&Spot::new(&spec, ""), &mut faults);
        let lines: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(lines, expected, "{rules}");
    }

    #[test]
    fn indexes_are_counted() {
        check(
            json!([{"succeededIndexes": "0,2-4", "succeededCount": 4}]),
            &[],
        );
        check(
            json!([]),
            &[
                "successPolicy.rules: Required value: at least one rules must be specified when the \
               successPolicy is specified",
            ],
        );
        let at = "successPolicy.rules[0]";
        let parsing = |text: &str, error: &str| {
            let line = format!(
                "{at}.succeededIndexes: Invalid value: {text:?}: error parsing succeededIndexes: \
                 {error}"
            );
            check(json!([{"succeededIndexes": text}]), &[&line]);
        };
        parsing("x", "cannot convert string to integer for index: \"x\"");
        parsing("5", "too large index: \"5\"");
        parsing("3,1", "non-increasing order, previous: 3, current: 1");
        parsing("2-1", "non-increasing order, previous: 2, current: 1");
        check(
            json!([{"succeededIndexes": "1", "succeededCount": 6}]),
            &[
                "successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or \
                 equal to 5 (the number of specified completions)",
                "successPolicy.rules[0].succeededCount: Invalid value: 6: must be less than or \
                 equal to 1 (the number of indexes in the specified succeededIndexes field)",
            ],
        );
    }
}
