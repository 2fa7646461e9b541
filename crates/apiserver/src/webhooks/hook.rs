//! One webhook of a configuration, compiled.

use std::sync::Arc;
use std::time::Duration;

use meta::LabelSelector;
use serde_json::Value;
use webhook::{ClientConfig, ConfigError, Webhook, Webhooks};

use super::conditions::Condition;
use crate::verbs::write::text;

/// The timeout of a webhook that names none.
const TIMEOUT_SECONDS: u64 = 10;

/// One webhook, ready to be matched and called.
pub(super) struct Hook {
    pub(super) configuration: String,
    pub(super) name: String,
    /// Whether it may change what it is asked about.
    pub(super) mutating: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) namespaces: Result<LabelSelector, String>,
    pub(super) objects: Result<LabelSelector, String>,
    /// Whether a rule for one version is about all versions.
    pub(super) equivalent: bool,
    /// Whether a call that fails is as good as one that allows.
    pub(super) ignore: bool,
    pub(super) timeout: Duration,
    /// Whether it may be asked about writes that do not happen.
    pub(super) dry_run: bool,
    pub(super) reinvoke: bool,
    pub(super) conditions: Vec<Condition>,
    /// The version of AdmissionReview to speak.
    pub(super) review: Option<&'static str>,
    pub(super) client: Result<Arc<Webhook>, ConfigError>,
}

/// One of a webhook's `rules`.
pub(super) struct Rule {
    pub(super) operations: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) versions: Vec<String>,
    /// Resource and subresource.
    pub(super) resources: Vec<(String, String)>,
    pub(super) scope: Scope,
}

/// Which resources a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Cluster,
    Namespaced,
}

/// All webhooks of a configuration, in order.
pub(super) fn compile(configuration: &Value, webhooks: &Webhooks) -> Vec<Arc<Hook>> {
    let name = text(configuration, "/metadata/name");
    let mutating = text(configuration, "/kind") == "MutatingWebhookConfiguration";
    let list = configuration.get("webhooks").and_then(Value::as_array);
    let hooks = list.into_iter().flatten();
    hooks
        .map(|hook| Arc::new(Hook::new((name, mutating), hook, webhooks)))
        .collect()
}

impl Hook {
    fn new((configuration, mutating): (&str, bool), tree: &Value, webhooks: &Webhooks) -> Hook {
        let selector = |field: &str| match &tree[field] {
            Value::Null => Ok(LabelSelector::default()),
            given => LabelSelector::from_value(given).map_err(|error| error.to_string()),
        };
        let mut reviews = words(tree, "admissionReviewVersions").into_iter();
        let rules = tree["rules"].as_array();
        let conditions = tree["matchConditions"].as_array();
        Hook {
            configuration: configuration.to_owned(),
            name: text(tree, "/name").to_owned(),
            mutating,
            rules: rules.into_iter().flatten().map(Rule::new).collect(),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            equivalent: tree["matchPolicy"] != "Exact",
            ignore: tree["failurePolicy"] == "Ignore",
            timeout: Duration::from_secs(
                tree["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS),
            ),
            dry_run: matches!(text(tree, "/sideEffects"), "None" | "NoneOnDryRun"),
            reinvoke: tree["reinvocationPolicy"] == "IfNeeded",
            conditions: conditions
                .into_iter()
                .flatten()
                .map(Condition::new)
                .collect(),
            review: reviews.find_map(|version| match version.as_str() {
                "v1" => Some("v1"),
                "v1beta1" => Some("v1beta1"),
                _ => None,
            }),
            client: webhooks.get(&ClientConfig::from_value(&tree["clientConfig"])),
        }
    }
}

impl Rule {
    fn new(tree: &Value) -> Rule {
        let resources = words(tree, "resources").into_iter();
        Rule {
            operations: words(tree, "operations"),
            groups: words(tree, "apiGroups"),
            versions: words(tree, "apiVersions"),
            resources: resources
                .map(|word| match word.split_once('/') {
                    Some((resource, part)) => (resource.to_owned(), part.to_owned()),
                    None => (word, String::new()),
                })
                .collect(),
            scope: match text(tree, "/scope") {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::All,
            },
        }
    }
}

fn words(tree: &Value, field: &str) -> Vec<String> {
    let list = tree[field].as_array().into_iter().flatten();
    list.filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}
