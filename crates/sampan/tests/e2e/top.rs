//! `kubectl top`: what nodes, pods and containers use.

use crate::kubectl::Kubectl;

/// Asks about the node and about the pod `boat`.
pub(crate) fn measure(kubectl: &Kubectl<'_>) {
    let nodes = kubectl.ok("top nodes --no-headers");
    assert!(is_measured(&nodes, &["node-1"]), "{nodes}");
    let pods = kubectl.ok("top pods --no-headers");
    assert!(is_measured(&pods, &["boat"]), "{pods}");
    let containers = kubectl.ok("top pod boat --containers --no-headers");
    assert!(is_measured(&containers, &["boat", "boat"]), "{containers}");
    assert!(kubectl.ok("top pods -l run=boat").contains("boat"));
    assert!(!kubectl.ok("top pods -l run=other").contains("boat"));
    let field = "--field-selector=metadata.name=boat";
    assert!(kubectl.ok(&format!("top pods {field}")).contains("boat"));
    let table = kubectl.ok("get pods.metrics.k8s.io");
    assert!(table.contains("WINDOW"), "{table}");
    let absent = kubectl.fails("get pods.metrics.k8s.io nobody", "");
    assert!(absent.contains("podmetrics.metrics.k8s.io"), "{absent}");
    let denied = kubectl.fails("get pods.metrics.k8s.io --as=nobody", "");
    let wanted = "cannot list resource \"pods\" in API group \"metrics.k8s.io\"";
    assert!(denied.contains(wanted), "{denied}");
    let services = kubectl.ok("get apiservice v1beta1.metrics.k8s.io --no-headers");
    assert!(
        services.contains("Local") && services.contains("True"),
        "{services}"
    );
}

/// Whether there is a line with these words first, then processors (`12m`) and memory (`3Mi`).
fn is_measured(text: &str, first: &[&str]) -> bool {
    text.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rest = words.strip_prefix(first).unwrap_or_default();
        rest.first().is_some_and(|word| word.ends_with('m'))
            && rest.iter().any(|word| word.ends_with("Mi"))
    })
}
