//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::{Value, json};

use super::conditions::match_conditions;
use super::rule::validate_rule;
use super::target::{service, url};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, label_selector, maybe_one_of};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(super) const COLUMNS: &str = "Name, Webhooks:integer, Age";
/// Versions of AdmissionReview that are spoken, as upstream lists them.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const TIMEOUT_SECONDS: i64 = 10;
const TIMEOUT_SECONDS_MAX: i64 = 30;

/// The rules of both kinds.
pub(super) struct Webhooks {
    pub(super) mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for hook in object.list_mut("webhooks") {
            hook.fill("failurePolicy", "Fail");
            hook.fill("matchPolicy", "Equivalent");
            hook.fill("namespaceSelector", json!({}));
            hook.fill("objectSelector", json!({}));
            hook.fill("timeoutSeconds", TIMEOUT_SECONDS);
            if self.mutating {
                hook.fill("reinvocationPolicy", "Never");
            }
            for rule in hook.list_mut("rules") {
                rule.fill("scope", "*");
            }
            if hook.has("clientConfig.service") {
                hook.fill("clientConfig.service.port", 443);
            }
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        self.validate(object, None, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate(object, Some(old), faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::warnings::static_suffix(object)
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.count("webhooks"), age(object, now)]
    }
}

/// What an update may leave as it was, though a creation may not have it.
struct Strictness {
    no_side_effects: bool,
    known_review: bool,
    unique_names: bool,
    /// Conditions are looked at only when some have changed.
    conditions: bool,
}

impl Strictness {
    fn of(new: &Value, old: Option<&Value>) -> Strictness {
        let hooks = old.map_or(&[][..], |old| old.list("webhooks"));
        let conditions = |hooks: &[Value]| -> Vec<Value> {
            let hooks = hooks.iter();
            hooks
                .map(|hook| hook.at("matchConditions").clone())
                .collect()
        };
        let known = |hook: &Value| {
            let mut versions = hook.texts("admissionReviewVersions");
            hook.count("admissionReviewVersions") == 0
                || versions.any(|version| REVIEWS.contains(&version))
        };
        let names: BTreeSet<&str> = hooks.iter().map(|hook| hook.text("name")).collect();
        Strictness {
            no_side_effects: hooks
                .iter()
                .all(|hook| matches!(hook.text("sideEffects"), "None" | "NoneOnDryRun")),
            known_review: hooks.iter().all(known),
            unique_names: names.len() == hooks.len(),
            conditions: old.is_none() || conditions(hooks) != conditions(new.list("webhooks")),
        }
    }
}

impl Webhooks {
    fn validate(&self, object: &Value, old: Option<&Value>, faults: &mut Faults) {
        let strict = Strictness::of(object, old);
        let mut names = BTreeSet::new();
        for hook in Spot::new(object, "").items("webhooks") {
            self.validate_hook(&hook, &strict, faults);
            validate_reviews(&hook, strict.known_review, faults);
            let own = hook.text("name");
            if strict.unique_names && !own.is_empty() && !names.insert(own.to_owned()) {
                faults.duplicate(hook.path("name"), own);
            }
        }
    }

    fn validate_hook(&self, hook: &Spot<'_>, strict: &Strictness, faults: &mut Faults) {
        validate_name(hook, faults);
        for rule in hook.items("rules") {
            validate_rule(&rule, faults);
        }
        maybe_one_of(hook, "failurePolicy", &["Fail", "Ignore"], faults);
        maybe_one_of(hook, "matchPolicy", &["Equivalent", "Exact"], faults);
        let effects: &[&str] = match strict.no_side_effects {
            true => &["None", "NoneOnDryRun"],
            false => &["None", "NoneOnDryRun", "Some", "Unknown"],
        };
        if !hook.has("sideEffects") {
            let detail = format!("must specify one of {}", effects.join(", "));
            faults.required(hook.path("sideEffects"), detail);
        }
        maybe_one_of(hook, "sideEffects", effects, faults);
        if let Some(seconds) = hook.maybe_int("timeoutSeconds")
            && !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds)
        {
            let rule = "the timeout value must be between 1 and 30 seconds";
            faults.invalid(hook.path("timeoutSeconds"), seconds, rule);
        }
        for field in ["namespaceSelector", "objectSelector"] {
            if let Some(selector) = hook.some(field) {
                label_selector(&selector, faults);
            }
        }
        if self.mutating {
            maybe_one_of(hook, "reinvocationPolicy", &["IfNeeded", "Never"], faults);
        }
        let config = hook.child("clientConfig");
        match (config.some("url"), config.some("service")) {
            (Some(given), None) => url(&given, faults),
            (None, Some(given)) => service(&given, faults),
            _ => {
                let detail = "exactly one of url or service is required";
                faults.required(hook.path("clientConfig"), detail);
            }
        }
        if strict.conditions {
            match_conditions(hook, faults);
        }
    }
}

fn validate_name(hook: &Spot<'_>, faults: &mut Faults) {
    let name = hook.text("name");
    if name.is_empty() {
        return faults.required(hook.path("name"), "");
    }
    let broken = naming::dns1123_subdomain(name);
    if !broken.is_empty() {
        faults.invalid(hook.path("name"), name, broken.join(","));
    } else if name.split('.').count() < 3 {
        let rule = "should be a domain with at least three segments separated by dots";
        faults.invalid(hook.path("name"), name, rule);
    }
}

fn validate_reviews(hook: &Spot<'_>, known: bool, faults: &mut Faults) {
    const FIELD: &str = "admissionReviewVersions";
    let all = REVIEWS.join(", ");
    if hook.count(FIELD) == 0 {
        return faults.required(hook.path(FIELD), format!("must specify one of {all}"));
    }
    let mut seen = BTreeSet::new();
    for version in hook.items(FIELD) {
        let word = version.as_str().unwrap_or("");
        if !seen.insert(word.to_owned()) {
            faults.invalid(version.path.clone(), word, "duplicate version");
            continue;
        }
        for broken in naming::dns1035_label(word) {
            faults.invalid(version.path.clone(), word, broken);
        }
    }
    if known && !REVIEWS.iter().any(|one| seen.contains(*one)) {
        let detail = format!("must include at least one of {all}");
        faults.invalid(hook.path(FIELD), hook.at(FIELD).clone(), detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook() -> Value {
        json!({"name": "deny.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://a.b/c"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods"]}]})
    }

    fn faults(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut hook = hook();
        change(&mut hook);
        let mut object = json!({"webhooks": [hook]});
        let strategy = Webhooks { mutating: true };
        strategy.default(&mut object);
        let mut faults = Faults::new();
        strategy.validate_create(&object, &mut faults);
        faults.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let mut object = json!({"webhooks": [hook(), {"clientConfig": {"service": {}}}]});
        Webhooks { mutating: true }.default(&mut object);
        let hook = &object["webhooks"][0];
        assert_eq!(hook["failurePolicy"], "Fail");
        assert_eq!(hook["matchPolicy"], "Equivalent");
        assert_eq!(hook["timeoutSeconds"], 10);
        assert_eq!(hook["reinvocationPolicy"], "Never");
        assert_eq!(hook["rules"][0]["scope"], "*");
        assert_eq!(
            object["webhooks"][1]["clientConfig"]["service"]["port"],
            443
        );
    }

    #[test]
    fn faults_read_as_upstreams() {
        let check = |change: &dyn Fn(&mut Value), expect: &[&str]| {
            assert_eq!(faults(change), expect);
        };
        check(&|_| {}, &[]);
        check(
            &|hook| hook["name"] = json!("short.name"),
            &[
                "webhooks[0].name: Invalid value: \"short.name\": should be a domain with at least \
             three segments separated by dots",
            ],
        );
        check(
            &|hook| hook["sideEffects"] = json!("Some"),
            &[
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \
             \"NoneOnDryRun\"",
            ],
        );
        check(
            &|hook| drop(hook.as_object_mut().unwrap().remove("sideEffects")),
            &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        );
        check(
            &|hook| hook["timeoutSeconds"] = json!(31),
            &[
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 \
             and 30 seconds",
            ],
        );
        check(
            &|hook| hook["clientConfig"] = json!({}),
            &[
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ],
        );
        check(
            &|hook| hook["clientConfig"] = json!({"url": "http://u@a/b?c#d"}),
            &[
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed \
             URL scheme; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not \
             permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"d\": fragments are not permitted in \
             the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"c\": query parameters are not \
             permitted in the URL",
            ],
        );
        let service = json!({"service": {"namespace": "ns", "name": "", "path": "a//"}});
        check(
            &|hook| hook["clientConfig"] = service.clone(),
            &[
                "webhooks[0].clientConfig.service.namespace: Required value",
                "webhooks[0].clientConfig.service.path: Invalid value: \"a//\": must start with a '/'",
                "webhooks[0].clientConfig.service.path: Invalid value: \"a//\": segment[0] may not be \
             empty",
                "webhooks[0].clientConfig.service.path: Invalid value: \"a//\": segment[1] may not be \
             empty",
            ],
        );
        check(
            &|hook| hook["admissionReviewVersions"] = json!(["v2"]),
            &[
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least \
             one of v1, v1beta1",
            ],
        );
        check(
            &|hook| hook["rules"][0]["operations"] = json!(["*", "PATCH"]),
            &[
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"PATCH\"]: if '*' is \
             present, must not specify other operations",
                "webhooks[0].rules[0].operations[1]: Unsupported value: \"PATCH\": supported values: \
             \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ],
        );
        check(
            &|hook| hook["rules"][0]["resources"] = json!(["*", "pods", "*/*"]),
            &[
                "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\",\"*/*\"]: if '*/*' is \
             present, must not specify other resources",
                "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\",\"*/*\"]: if '*' is \
             present, must not specify other resources without subresources",
            ],
        );
    }

    #[test]
    fn conditions_must_compile_to_a_boolean() {
        let conditions = json!([{"name": "a", "expression": "size('a') + 1"},
            {"name": "a", "expression": "oops("}]);
        let found = faults(|hook| hook["matchConditions"] = conditions.clone());
        assert_eq!(
            found[0],
            "webhooks[0].matchConditions[0].expression: Invalid value: \"size('a') + 1\": must \
             evaluate to bool but got int"
        );
        let failed = "webhooks[0].matchConditions[1].expression: Invalid value: \"oops(\": \
             compilation failed: ERROR";
        assert!(found[1].starts_with(failed), "{}", found[1]);
        assert_eq!(
            found[2],
            "webhooks[0].matchConditions[1].name: Duplicate value: \"a\""
        );
    }

    #[test]
    fn an_update_may_keep_what_a_creation_may_not_have() {
        let strategy = Webhooks { mutating: false };
        let mut old = json!({"webhooks": [hook()]});
        old["webhooks"][0]["sideEffects"] = json!("Unknown");
        let mut faults = Faults::new();
        strategy.validate_update(&old, &old, &mut faults);
        assert!(faults.is_empty(), "{}", faults.summary());
    }
}
