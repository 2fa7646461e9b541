//! The two kinds as far as they steer requests, read from their objects.

use serde::Deserialize;
use serde_json::Value;

/// A FlowSchema.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) spec: SchemaSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SchemaSpec {
    pub(crate) priority_level_configuration: Reference,
    pub(crate) matching_precedence: i64,
    pub(crate) distinguisher_method: Option<Distinguisher>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reference {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Distinguisher {
    /// `ByUser` or `ByNamespace`.
    pub(crate) r#type: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) resource_rules: Vec<ResourceRule>,
    pub(crate) non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Subject {
    pub(crate) user: Option<Reference>,
    pub(crate) group: Option<Reference>,
    pub(crate) service_account: Option<Account>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ResourceRule {
    pub(crate) verbs: Vec<String>,
    pub(crate) api_groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) cluster_scope: bool,
    pub(crate) namespaces: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PathRule {
    pub(crate) verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(crate) non_resource_urls: Vec<String>,
}

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) exempt: bool,
    pub(crate) shares: u32,
    pub(crate) lendable_percent: u32,
    pub(crate) borrowing_limit_percent: Option<u32>,
    /// `None`: what finds no seat is refused at once.
    pub(crate) queuing: Option<Queuing>,
}

/// How a level queues.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Queuing {
    pub(crate) queues: u32,
    pub(crate) hand_size: u32,
    pub(crate) queue_length_limit: u32,
}

impl Default for Queuing {
    fn default() -> Queuing {
        Queuing {
            queues: 64,
            hand_size: 8,
            queue_length_limit: 50,
        }
    }
}

fn text(object: &Value, pointer: &str) -> String {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

impl Schema {
    pub(crate) fn read(object: &Value) -> Schema {
        let spec = object.get("spec").cloned().unwrap_or_default();
        Schema {
            name: text(object, "/metadata/name"),
            uid: text(object, "/metadata/uid"),
            // Validation let only such objects in that have this shape.
            spec: serde_json::from_value(spec).unwrap_or_default(),
        }
    }
}

impl Level {
    pub(crate) fn read(object: &Value) -> Level {
        let exempt = text(object, "/spec/type") == "Exempt";
        let own = match exempt {
            true => "/spec/exempt",
            false => "/spec/limited",
        };
        let number = |field: &str| {
            let found = object.pointer(&format!("{own}/{field}"));
            found.and_then(Value::as_u64).map(|number| number as u32)
        };
        let queuing = object.pointer("/spec/limited/limitResponse/queuing");
        let queuing = queuing.and_then(|value| Queuing::deserialize(value).ok());
        Level {
            name: text(object, "/metadata/name"),
            uid: text(object, "/metadata/uid"),
            exempt,
            shares: number("nominalConcurrencyShares").unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: number("lendablePercent").unwrap_or(0).min(100),
            borrowing_limit_percent: number("borrowingLimitPercent"),
            queuing: queuing.filter(|own| !exempt && own.queues > 0),
        }
    }
}
