//! What a pod's failure, or an index's success, means for its job. Pure.

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// What to do about one failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It counts towards the limit.
    Count,
    /// It never happened.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The job has failed, for this reason.
    FailJob(String),
}

/// The action of the first rule that matches a failed pod.
pub(crate) fn judge(spec: &JobSpec, pod: &Pod) -> Action {
    let rules = spec
        .pod_failure_policy
        .iter()
        .flat_map(|policy| &policy.rules);
    for (at, rule) in rules.enumerate() {
        let Some(what) = matched(rule, pod) else {
            continue;
        };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => Action::FailJob(format!("{what} matching FailJob rule at index {at}")),
            _ => Action::Count,
        };
    }
    Action::Count
}

fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let all = [&status.container_statuses, &status.init_container_statuses];
        let mut failed = all.into_iter().flatten().flatten();
        let (container, code) = failed.find_map(|container| {
            let code = exit_code(container)?;
            fits(codes, &container.name, code).then_some((&container.name, code))
        })?;
        let subject = format!("Container {container} for pod {namespace}/{name}");
        return Some(format!("{subject} failed with exit code {code}"));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let found = patterns.iter().find(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        let mut known = conditions.iter();
        known.any(|one| one.type_ == pattern.type_ && one.status == wanted)
    })?;
    Some(format!(
        "Pod {namespace}/{name} has condition {}",
        found.type_
    ))
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    Some(ended.exit_code).filter(|code| *code != 0)
}

fn fits(codes: &PodFailurePolicyOnExitCodesRequirement, container: &str, code: i32) -> bool {
    let named = codes.container_name.as_deref();
    let listed = codes.values.contains(&code);
    named.is_none_or(|named| named == container)
        && match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
}

/// Which rule of the success policy the completed indexes satisfy.
pub(crate) fn succeeded_by(spec: &JobSpec, completed: &Indexes) -> Option<String> {
    let completions = spec.completions?;
    let mut rules = spec.success_policy.as_ref()?.rules.iter();
    let at = rules.position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref();
        let wanted = wanted.map(|text| Indexes::parse(text, completions));
        let have = match &wanted {
            Some(wanted) => completed.common(wanted),
            None => completed.total(),
        };
        match (rule.succeeded_count, &wanted) {
            (Some(count), _) => have >= count,
            (None, Some(wanted)) => have >= wanted.total(),
            (None, None) => false,
        }
    })?;
    Some(format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(tree: serde_json::Value) -> JobSpec {
        let mut whole = json!({"template": {"spec": {"containers": []}}, "completions": 10});
        for (key, value) in tree.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let spec = spec(json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 42]}}
        ]}}));
        let pod = |container: &str, code: i32, condition: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "p"}, "status": {
                "conditions": [{"type": condition, "status": "True"}],
                "containerStatuses": [{"name": container, "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}}))
            .unwrap()
        };
        assert_eq!(
            judge(&spec, &pod("main", 42, "DisruptionTarget")),
            Action::Ignore
        );
        let why =
            "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(
            judge(&spec, &pod("main", 42, "X")),
            Action::FailJob(why.into())
        );
        assert_eq!(judge(&spec, &pod("side", 42, "X")), Action::Count);
        assert_eq!(judge(&spec, &pod("side", 7, "X")), Action::FailIndex);
        assert_eq!(judge(&spec, &pod("main", 0, "X")), Action::Count);
    }

    #[test]
    fn a_success_policy_counts_the_indexes_it_names() {
        let spec = spec(json!({"successPolicy": {"rules": [
            {"succeededIndexes": "0-2", "succeededCount": 2}, {"succeededIndexes": "9"}]}}));
        let check = |done: &str, expected: Option<&str>| {
            let found = succeeded_by(&spec, &Indexes::parse(done, 10));
            assert_eq!(found.as_deref(), expected, "{done}");
        };
        check("1,5", None);
        check("1,2", Some("Matched rules at index 0"));
        check("9", Some("Matched rules at index 1"));
    }
}
