//! PriorityLevelConfiguration.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::flow_schema::validate_conditions;
use crate::row::{Cells, Strategy};
use crate::spot::Spot;
use crate::table::{age, cells, name};
use crate::tree::Tree;

const SHARES_DEFAULT: i64 = 30;
const QUEUES_DEFAULT: i64 = 64;
const QUEUES_MAX: i64 = 10_000_000;
const HAND_DEFAULT: i64 = 8;
const LENGTH_DEFAULT: i64 = 50;
/// Bits of a hash that may be spent on dealing.
const HASH_BITS_MAX: i64 = 60;

pub(crate) struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, object: &mut Value) {
        if object.has("spec.exempt") || object.text("spec.type") == "Exempt" {
            if object.has("spec.exempt") {
                object.fill("spec.exempt.nominalConcurrencyShares", 0);
                object.fill("spec.exempt.lendablePercent", 0);
            }
            return;
        }
        if object.has("spec.limited") {
            object.fill("spec.limited.nominalConcurrencyShares", SHARES_DEFAULT);
            object.fill("spec.limited.lendablePercent", 0);
        }
        let queuing = "spec.limited.limitResponse.queuing";
        if object.has(queuing) {
            object.fill_zero(&format!("{queuing}.queues"), QUEUES_DEFAULT);
            object.fill_zero(&format!("{queuing}.handSize"), HAND_DEFAULT);
            object.fill_zero(&format!("{queuing}.queueLengthLimit"), LENGTH_DEFAULT);
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_subdomain(name)
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        let own = object.text("metadata.name");
        validate_spec(&spec, own, faults);
        let limited = spec.child("limited");
        let fixed = limited.int("nominalConcurrencyShares") == 5
            && limited.int("lendablePercent") == 0
            && !limited.has("borrowingLimitPercent")
            && limited.text("limitResponse.type") == "Reject"
            && spec.text("type") == "Limited";
        if own == "catch-all" && !fixed {
            let rule = "spec of 'catch-all' must equal the fixed value";
            faults.invalid("spec", spec.value.clone(), rule);
        }
        if own == "exempt" && (spec.text("type") != "Exempt" || spec.has("limited")) {
            let rule = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            faults.invalid("spec", spec.value.clone(), rule);
        }
        validate_conditions(object, faults);
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        validate_conditions(object, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let limited = object.at("spec.limited");
        let number = |path: &str| match limited.at(path) {
            Value::Null => Value::from("<none>"),
            number => number.clone(),
        };
        cells![
            name(object),
            object.text("spec.type"),
            number("nominalConcurrencyShares"),
            number("limitResponse.queuing.queues"),
            number("limitResponse.queuing.handSize"),
            number("limitResponse.queuing.queueLengthLimit"),
            age(object, now),
        ]
    }
}

fn validate_spec(spec: &Spot<'_>, name: &str, faults: &mut Faults) {
    let kind = spec.text("type");
    if (name == "exempt") != (kind == "Exempt") {
        let rule = "must be 'Exempt' if and only if `name` is 'exempt'";
        faults.invalid(spec.path("type"), kind, rule);
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                let rule = "must be nil if the type is not Limited";
                faults.forbidden(spec.path("limited"), rule);
            }
            if let Some(exempt) = spec.some("exempt") {
                validate_shares(&exempt, faults);
            }
        }
        "Limited" => {
            if spec.has("exempt") {
                let rule = "must be nil if the type is Limited";
                faults.forbidden(spec.path("exempt"), rule);
            }
            match spec.some("limited") {
                None => {
                    let rule = "must not be empty when type is Limited";
                    faults.required(spec.path("limited"), rule);
                }
                Some(limited) => validate_limited(&limited, faults),
            }
        }
        kind => faults.not_supported(spec.path("type"), kind, &["Exempt", "Limited"]),
    }
}

fn validate_shares(own: &Spot<'_>, faults: &mut Faults) {
    let shares = own.int("nominalConcurrencyShares");
    if shares < 0 {
        let path = own.path("nominalConcurrencyShares");
        faults.invalid(path, shares, "must be a non-negative integer");
    }
}

fn validate_lendable(own: &Spot<'_>, faults: &mut Faults) {
    let percent = own.int("lendablePercent");
    if !(0..=100).contains(&percent) {
        let path = own.path("lendablePercent");
        faults.invalid(path, percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_limited(limited: &Spot<'_>, faults: &mut Faults) {
    validate_shares(limited, faults);
    let response = limited.child("limitResponse");
    match response.text("type") {
        "Reject" => {
            if response.has("queuing") {
                let rule = "must be nil if limited.limitResponse.type is not Limited";
                faults.forbidden(response.path("queuing"), rule);
            }
        }
        "Queue" => match response.some("queuing") {
            None => {
                let rule = "must not be empty if limited.limitResponse.type is Limited";
                faults.required(response.path("queuing"), rule);
            }
            Some(queuing) => validate_queuing(&queuing, faults),
        },
        kind => faults.not_supported(response.path("type"), kind, &["Queue", "Reject"]),
    }
    validate_lendable(limited, faults);
    let borrowing = limited.int("borrowingLimitPercent");
    if borrowing < 0 {
        let path = limited.path("borrowingLimitPercent");
        faults.invalid(
            path,
            borrowing,
            "if specified, must be a non-negative integer",
        );
    }
}

fn validate_queuing(queuing: &Spot<'_>, faults: &mut Faults) {
    let number = |field: &str| (queuing.path(field), queuing.int(field));
    let (path, length) = number("queueLengthLimit");
    if length <= 0 {
        faults.invalid(path, length, "must be positive");
    }
    let (path, queues) = number("queues");
    if queues <= 0 {
        faults.invalid(path, queues, "must be positive");
    } else if queues > QUEUES_MAX {
        let rule = format!("must not be greater than {QUEUES_MAX}");
        faults.invalid(path, queues, rule);
    }
    let (path, hand) = number("handSize");
    if hand <= 0 {
        return faults.invalid(path, hand, "must be positive");
    }
    if hand > queues {
        let rule = format!("should not be greater than queues ({queues})");
        return faults.invalid(path, hand, rule);
    }
    let bits = entropy_bits(queues, hand);
    if bits > HASH_BITS_MAX {
        let rule = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater \
             than {HASH_BITS_MAX}"
        );
        faults.invalid(path, hand, rule);
    }
}

/// How many bits it takes to deal a hand; more than can be spent, however many more.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    let mut bits = 0.0;
    for left in ((deck - hand + 1)..=deck)
        .rev()
        .take(HASH_BITS_MAX as usize + 1)
    {
        bits += (left.max(1) as f64).log2();
    }
    bits.ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(name: &str, spec: Value) -> String {
        let mut object = json!({"metadata": {"name": name}, "spec": spec});
        PriorityLevel.default(&mut object);
        let mut faults = Faults::new();
        PriorityLevel.validate_create(&object, &mut faults);
        faults.summary()
    }

    #[test]
    fn levels_are_checked() {
        let limited = |queuing: Value| {
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue",
                "queuing": queuing}}})
        };
        assert_eq!(faults("a", limited(json!({}))), "[]");
        let wide = faults("a", limited(json!({"queues": 512, "handSize": 8})));
        assert!(
            wide.contains("required entropy bits of deckSize 512 and handSize 8"),
            "{wide}"
        );
        let hand = faults("a", limited(json!({"queues": 4})));
        assert!(hand.contains("handSize: Invalid value: 8: should not be greater than queues (4)"));
        let exempt = faults("a", json!({"type": "Exempt"}));
        assert!(
            exempt.contains("must be 'Exempt' if and only if `name` is 'exempt'"),
            "{exempt}"
        );
        let none = faults("a", json!({"type": "Limited"}));
        assert!(
            none.contains("spec.limited: Required value: must not be empty"),
            "{none}"
        );
        let fixed = faults("catch-all", limited(json!({})));
        assert!(
            fixed.contains("spec of 'catch-all' must equal the fixed value"),
            "{fixed}"
        );
    }
}
