//! Faults in jobs and in the templates of jobs.

use std::collections::BTreeSet;

use meta::{FaultKind, Faults, naming};
use serde_json::Value;

use super::job::{CONTROLLER_UID, JOB_NAME};
use crate::core::validate_template;
use crate::go::{FAILURE_POLICY, POD_TEMPLATE, SUCCESS_POLICY, equal};
use crate::metadata::IMMUTABLE;
use crate::spot::{
    Spot, immutable, immutable_shown, invalid_shown, is_empty, label_selector, maybe_one_of,
    not_negative, rules, same, selects, unsupported,
};
use crate::tree::Tree;

const INDEXED_MAX: i64 = 100_000;
/// As many at once, or failed, when more than [`INDEXED_MAX`] indexes have limits of their own.
const MANY_INDEXES_MAX: i64 = 10_000;
const PATTERNS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const MANAGER_MAX: usize = 63;
const NOT_INDEXED: &str = "requires indexed completion mode";
const RULES_MAX: usize = 20;

/// The selector is the server's own, unless the user took it over.
pub(super) fn generated_labels(job: &Value, faults: &mut Faults) {
    if job.flag("spec.manualSelector") || !job.has("spec.selector") {
        return;
    }
    let (uid, name) = (job.text("metadata.uid"), job.text("metadata.name"));
    if uid.is_empty() {
        faults.required("metadata.uid", "");
    }
    let labels = Spot::new(job, "spec.template.metadata.labels");
    let mut expected = serde_json::Map::new();
    // Those of old first.
    for at in [1, 0] {
        for (key, value) in [(CONTROLLER_UID[at], uid), (JOB_NAME[at], name)] {
            expected.insert(key.into(), value.into());
            let path = labels.entry_path(key);
            match labels.get(key).and_then(Value::as_str) {
                None if value.is_empty() => {}
                None => faults.required(path, format!("must be '{value}'")),
                Some(found) if found != value => {
                    // Upstream shows them all.
                    faults.invalid(path, labels.value.clone(), format!("must be '{value}'"));
                }
                Some(_) => {}
            }
        }
    }
    let selector = job.at("spec.selector");
    let mut unsound = Faults::new();
    label_selector(&Spot::new(job, "spec.selector"), &mut unsound);
    if unsound.is_empty() && !selects(selector, &Value::Object(expected)) {
        let rule = "`selector` not auto-generated";
        faults.invalid("spec.selector", selector.clone(), rule);
    }
}

/// The selector must be there, be sound, and choose the template.
pub(super) fn validate_selector(spec: &Spot<'_>, faults: &mut Faults) {
    let selector = spec.child("selector");
    if selector.is_null() {
        faults.required(selector.path.clone(), "");
    }
    label_selector(&selector, faults);
    let labels = spec.child("template.metadata.labels");
    let mut broken = Faults::new();
    label_selector(&selector, &mut broken);
    if broken.is_empty() && (selector.is_null() || !selects(selector.value, labels.value)) {
        let rule = "`selector` does not match template `labels`";
        faults.invalid(labels.path, labels.value.clone(), rule);
    }
}

/// Faults in the specification at `path`, of a job or of a template of jobs.
pub(super) fn validate_spec(object: &Value, path: &str, faults: &mut Faults) {
    let spec = Spot::new(object, path);
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(&spec, field, faults);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        let rule = "when maxFailedIndexes is specified";
        faults.required(spec.path("backoffLimitPerIndex"), rule);
    }
    maybe_one_of(&spec, "completionMode", &["NonIndexed", "Indexed"], faults);
    match spec.some("completionMode") {
        Some(mode) if mode.value == "Indexed" => validate_indexed(&spec, faults),
        mode => {
            if mode.is_none_or(|mode| mode.value == "NonIndexed") {
                for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                    if let Some(count) = spec.some(field) {
                        faults.invalid(count.path, count.value.clone(), NOT_INDEXED);
                    }
                }
            }
            if let Some(policy) = spec.some("successPolicy") {
                invalid_shown(faults, &policy, &SUCCESS_POLICY, NOT_INDEXED);
            }
        }
    }
    if let Some(manager) = spec.some("managedBy") {
        validate_manager(&manager, faults);
    }
    validate_failure_policy(&spec, faults);
    validate_replacement(&spec, faults);
    validate_template(object, &spec.path("template"), faults);
    validate_restarts(&spec, faults);
}

fn validate_indexed(spec: &Spot<'_>, faults: &mut Faults) {
    if !spec.has("completions") {
        faults.required(spec.path("completions"), "when completion mode is Indexed");
    }
    let parallelism = spec.int("parallelism");
    if parallelism > INDEXED_MAX {
        let rule =
            format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        faults.invalid(spec.path("parallelism"), parallelism, rule);
    }
    let failed = spec.int("maxFailedIndexes");
    if spec.has("completions") && failed > spec.int("completions") {
        let rule = "must be less than or equal to completions";
        faults.invalid(spec.path("maxFailedIndexes"), failed, rule);
    }
    if failed > INDEXED_MAX {
        let rule = format!("must be less than or equal to {INDEXED_MAX}");
        faults.invalid(spec.path("maxFailedIndexes"), failed, rule);
    }
    if spec.int("completions") > INDEXED_MAX && spec.has("backoffLimitPerIndex") {
        validate_many_indexes(spec, faults);
    }
    super::success_policy::validate(spec, faults);
}

fn validate_many_indexes(spec: &Spot<'_>, faults: &mut Faults) {
    if !spec.has("maxFailedIndexes") {
        let rule = format!("must be specified when completions is above {INDEXED_MAX}");
        faults.required(spec.path("maxFailedIndexes"), rule);
    }
    for field in ["parallelism", "maxFailedIndexes"] {
        if spec.int(field) > MANY_INDEXES_MAX {
            let rule = format!(
                "must be less than or equal to {MANY_INDEXES_MAX} when completions are above \
                 {INDEXED_MAX} and used with backoff limit per index"
            );
            faults.invalid(spec.path(field), spec.int(field), rule);
        }
    }
}

/// Who takes care of the job instead of the server's controller: a domain with a path.
fn validate_manager(manager: &Spot<'_>, faults: &mut Faults) {
    let text = manager.as_str().unwrap_or("");
    let path = || manager.path.clone();
    faults.domain_prefixed_path(&path(), text);
    if text.len() > MANAGER_MAX {
        faults.too_long(path(), MANAGER_MAX);
    }
}

fn validate_failure_policy(spec: &Spot<'_>, faults: &mut Faults) {
    let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
    let policy = spec.child("podFailurePolicy");
    if policy.count("rules") > RULES_MAX {
        faults.too_many(policy.path("rules"), policy.count("rules"), RULES_MAX);
    }
    let containers = spec.list("template.spec.containers").iter();
    let names: BTreeSet<_> = containers
        .chain(spec.list("template.spec.initContainers"))
        .map(|container| container.text("name"))
        .collect();
    for rule in policy.items("rules") {
        match rule.text("action") {
            "" => {
                let words = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
                faults.required(rule.path("action"), words);
            }
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                let broken = "requires the backoffLimitPerIndex to be set";
                faults.invalid(rule.path("action"), "FailIndex", broken);
            }
            action if actions.contains(&action) => {}
            other => unsupported(faults, rule.path("action"), other, &actions),
        }
        let (codes, conditions) = (rule.some("onExitCodes"), rule.count("onPodConditions"));
        let which = match (&codes, conditions > 0) {
            (Some(_), true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (None, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => "",
        };
        if let Some(codes) = codes {
            validate_exit_codes(&codes, &names, faults);
        }
        validate_patterns(&rule, faults);
        if !which.is_empty() {
            faults.add(rule.path, FaultKind::InvalidUnshown, Value::Null, which);
        }
    }
}

fn validate_patterns(rule: &Spot<'_>, faults: &mut Faults) {
    let path = rule.path("onPodConditions");
    let count = rule.count("onPodConditions");
    if count > PATTERNS_MAX {
        faults.too_many(path, count, PATTERNS_MAX);
    }
    for pattern in rule.items("onPodConditions") {
        let kind = pattern.text("type");
        let broken = naming::qualified_name(kind);
        rules(faults, pattern.path("type"), kind, broken);
        let path = pattern.path("status");
        match pattern.text("status") {
            "" => faults.required(path, "valid values: [\"False\" \"True\" \"Unknown\"]"),
            "False" | "True" | "Unknown" => {}
            other => unsupported(faults, path, other, &["False", "True", "Unknown"]),
        }
    }
}

fn validate_exit_codes(codes: &Spot<'_>, names: &BTreeSet<&str>, faults: &mut Faults) {
    let operator = codes.text("operator");
    let path = codes.path("operator");
    match operator {
        "" => faults.required(path, "valid values: [\"In\" \"NotIn\"]"),
        "In" | "NotIn" => {}
        other => unsupported(faults, path, other, &["In", "NotIn"]),
    }
    if let Some(name) = codes.some("containerName") {
        let text = name.value.as_str().unwrap_or("");
        if !names.contains(text) {
            let rule = "must be one of the container or initContainer names in the pod template";
            faults.invalid(name.path, text, rule);
        }
    }
    let (path, count) = (codes.path("values"), codes.count("values"));
    if count == 0 {
        let rule = "at least one value is required";
        faults.invalid(path.clone(), codes.at("values").clone(), rule);
    } else if count > EXIT_CODES_MAX {
        faults.too_many(path.clone(), count, EXIT_CODES_MAX);
    }
    let (mut seen, mut ordered, mut last) = (BTreeSet::new(), true, i64::MIN);
    for value in codes.items("values") {
        let code = value.as_i64().unwrap_or(0);
        if operator == "In" && code == 0 {
            faults.invalid(value.path.clone(), 0, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            faults.duplicate(value.path, code);
        }
        ordered &= last <= code;
        last = code;
    }
    if !ordered {
        faults.invalid(path, codes.at("values").clone(), "must be ordered");
    }
}

fn validate_replacement(spec: &Spot<'_>, faults: &mut Faults) {
    let word = spec.text("podReplacementPolicy");
    let words: &[&str] = match spec.has("podFailurePolicy") {
        true => &["Failed"],
        false => &["Failed", "TerminatingOrFailed"],
    };
    if spec.has("podReplacementPolicy") && !words.contains(&word) {
        unsupported(faults, spec.path("podReplacementPolicy"), word, words);
    }
}

/// A job's pods must be able to come to an end.
fn validate_restarts(spec: &Spot<'_>, faults: &mut Faults) {
    let path = spec.path("template.spec.restartPolicy");
    match spec.text("template.spec.restartPolicy") {
        "" | "Always" => {
            faults.required(path, "valid values: \"OnFailure\", \"Never\"");
        }
        "OnFailure" if spec.has("podFailurePolicy") => {
            let rule = "only \"Never\" is supported when podFailurePolicy is specified";
            faults.invalid(path, "OnFailure", rule);
        }
        "OnFailure" | "Never" => {}
        other => unsupported(faults, path, other, &["OnFailure", "Never"]),
    }
}

/// Faults of a changed job.
pub(super) fn validate_change(job: &Value, old: &Value, faults: &mut Faults) {
    let (spec, before) = (Spot::new(job, "spec"), old.at("spec"));
    if spec.text("completionMode") != "Indexed" {
        immutable(&spec, before, "completions", faults);
    } else if !same(spec.at("completions"), before.at("completions"))
        && spec.at("completions") != spec.at("parallelism")
    {
        let rule = "can only be modified in tandem with spec.parallelism";
        faults.invalid(
            spec.path("completions"),
            spec.at("completions").clone(),
            rule,
        );
    }
    immutable(&spec, before, "selector", faults);
    validate_template_change(&spec, old, faults);
    immutable(&spec, before, "completionMode", faults);
    immutable_shown(&spec, before, "podFailurePolicy", &FAILURE_POLICY, faults);
    immutable(&spec, before, "backoffLimitPerIndex", faults);
    immutable(&spec, before, "managedBy", faults);
    immutable_shown(&spec, before, "successPolicy", &SUCCESS_POLICY, faults);
}

/// Which nodes a template prefers is what it prefers now, without an empty affinity left behind.
fn free_nodes(before: &mut Value, template: &Value) {
    const NODES: &str = "spec.affinity.nodeAffinity";
    match template.has("spec.affinity") {
        true => before.set(NODES, template.at(NODES).clone()),
        false => {
            before.drop_field(NODES);
            if is_empty(before.at("spec.affinity")) {
                before.drop_field("spec.affinity");
            }
        }
    }
}

/// While a job is suspended and nothing of it runs, its placement and resources may change.
fn validate_template_change(spec: &Spot<'_>, old: &Value, faults: &mut Faults) {
    let template = spec.child("template");
    let mut before = old.at("spec.template").clone();
    let mut conditions = old.list("status.conditions").iter();
    let marked =
        conditions.any(|one| one.text("type") == "Suspended" && one.text("status") == "True");
    let idle = !old.has("status.startTime") || marked;
    if old.flag("spec.suspend") && idle && old.int("status.active") == 0 {
        for field in [
            "spec.nodeSelector",
            "spec.tolerations",
            "spec.schedulingGates",
            "metadata.annotations",
            "metadata.labels",
        ] {
            before.set(field, template.at(field).clone());
        }
        free_nodes(&mut before, template.value);
        for list in ["spec.containers", "spec.initContainers"] {
            let now = template.list(list);
            for (container, now) in before.list_mut(list).iter_mut().zip(now) {
                container.set("resources", now.at("resources").clone());
            }
        }
    }
    if !equal(template.value, &before, &POD_TEMPLATE) {
        invalid_shown(faults, &template, &POD_TEMPLATE, IMMUTABLE);
    }
}
