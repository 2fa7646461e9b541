//! Node selector terms, which affinity and volumes have in common.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use crate::node::NodeView;

/// Whether any of the terms holds; terms without conditions hold nowhere.
pub fn selects(selector: &NodeSelector, node: &NodeView) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|term| term_holds(term, node))
}

/// Whether all conditions of a term hold.
pub fn term_holds(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then(|| node.name());
    expressions
        .iter()
        .all(|one| holds(one, node.label(&one.key)))
        && fields.iter().all(|one| holds(one, field(&one.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|text| number(text));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value
            .and_then(number)
            .zip(bound)
            .is_some_and(|(own, bound)| own > bound),
        "Lt" => value
            .and_then(number)
            .zip(bound)
            .is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}
