//! The index against a plain walk over all roles and bindings, at random.

use std::collections::{BTreeMap, BTreeSet};

use meta::Object;
use serde_json::{Value, json};

use super::{GROUP, Rbac, Rule, rules_of};
use crate::identity::{Attributes, Decision, Identity};

const STEPS: usize = 2_000;
const QUESTIONS: usize = 12;

/// A sequence that is the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn some<'a>(&mut self, list: &[&'a str], most: usize) -> Vec<&'a str> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.one(list)).collect()
    }
}

const SPACES: [&str; 3] = ["", "a", "b"];
const NAMES: [&str; 4] = ["one", "two", "three", "fo\"ur"];
const USERS: [&str; 3] = ["jane", "system:serviceaccount:a:web", "nobody"];
const GROUPS: [&str; 3] = ["dev", "ops", "system:serviceaccounts"];
const VERBS: [&str; 5] = ["get", "list", "delete", "*", "impersonate"];
const API_GROUPS: [&str; 3] = ["", "apps", "*"];
const RESOURCES: [&str; 8] = [
    "pods",
    "pods/log",
    "*/log",
    "pods/*",
    "*",
    "jobs",
    "deployments/scale",
    "*/scale",
];
const URLS: [&str; 5] = ["/healthz", "/api/*", "*", "/api/v1", "/apis/**"];
const OBJECTS: [&str; 3] = ["web", "db", ""];

/// All objects, as they came.
#[derive(Default)]
struct Plain {
    roles: BTreeMap<(String, String), Object>,
    bindings: BTreeMap<(String, String), Object>,
}

impl Plain {
    /// Each rule that applies, with the reason it would be allowed for; and what is missing.
    fn walk(&self, user: &Identity, namespace: &str) -> (Vec<(Rule, String)>, BTreeSet<String>) {
        let (mut rules, mut missing) = (Vec::new(), BTreeSet::new());
        for ((space, name), binding) in &self.bindings {
            let fields = binding.fields();
            let applies = space.is_empty() || space == namespace;
            let subjects = fields["subjects"].as_array().into_iter().flatten();
            let mut shown = subjects.filter_map(|subject| names(subject, user, space));
            let Some(shown) = shown.next().filter(|_| applies) else {
                continue;
            };
            let part = |field: &str| fields["roleRef"][field].as_str().unwrap();
            let (kind, role) = (part("kind"), part("name"));
            let home = match kind {
                "ClusterRole" => Some(""),
                "Role" if !space.is_empty() => Some(space.as_str()),
                _ => None,
            };
            let found = home.and_then(|home| self.roles.get(&(home.into(), role.into())));
            let Some(found) = found else {
                let kind = kind.to_lowercase();
                missing.insert(format!("{kind}.{GROUP} \"{role}\" not found"));
                continue;
            };
            let bound = match space.as_str() {
                "" => format!("ClusterRoleBinding {name:?}"),
                space => format!("RoleBinding \"{name}/{space}\""),
            };
            let why = format!("RBAC: allowed by {bound} of {kind} {role:?} to {shown}");
            rules.extend(rules_of(found).into_iter().map(|rule| (rule, why.clone())));
        }
        (rules, missing)
    }
}

/// How a subject that is the user, or a group of the user, is shown.
fn names(subject: &Value, user: &Identity, space: &str) -> Option<String> {
    let part = |field: &str| subject[field].as_str().unwrap_or("");
    let (kind, name) = (part("kind"), part("name"));
    let own = if part("namespace").is_empty() {
        space
    } else {
        part("namespace")
    };
    let plain = format!("{kind} {name:?}");
    match kind {
        "Group" => user.is_in(name).then_some(plain),
        "User" => (user.name == name).then_some(plain),
        "ServiceAccount" if !own.is_empty() => {
            let full = format!("system:serviceaccount:{own}:{name}");
            (user.name == full).then(|| format!("{kind} \"{name}/{own}\""))
        }
        _ => None,
    }
}

fn random_role(dice: &mut Dice) -> Value {
    let rules = (0..dice.below(10)).map(|_| match dice.below(5) {
        0 => json!({"verbs": dice.some(&VERBS, 2), "nonResourceURLs": dice.some(&URLS, 3)}),
        _ => json!({"verbs": dice.some(&VERBS, 3), "apiGroups": dice.some(&API_GROUPS, 3),
            "resources": dice.some(&RESOURCES, 4),
            "resourceNames": if dice.below(3) == 0 { dice.some(&OBJECTS, 2) } else { vec![] }}),
    });
    Value::Array(rules.collect())
}

fn random_subject(dice: &mut Dice) -> Value {
    match dice.below(5) {
        0 => json!({"kind": "Group", "name": dice.one(&GROUPS)}),
        1 => json!({"kind": "ServiceAccount", "name": "web", "namespace": dice.one(&["", "a"])}),
        2 => json!({"kind": "Robot", "name": dice.one(&USERS)}),
        _ => json!({"kind": "User", "name": dice.one(&USERS)}),
    }
}

/// One object comes, changes or goes, in both.
fn change(dice: &mut Dice, rbac: &Rbac, plain: &mut Plain) {
    let (space, name) = (dice.one(&SPACES), dice.one(&NAMES));
    let metadata = json!({"name": name, "namespace": space});
    let (is_role, cluster) = (dice.below(2) == 0, space.is_empty());
    let plural = match (is_role, cluster) {
        (true, true) => "clusterroles",
        (true, false) => "roles",
        (false, true) => "clusterrolebindings",
        (false, false) => "rolebindings",
    };
    let plural = format!("{plural}.{GROUP}");
    let all = match is_role {
        true => &mut plain.roles,
        false => &mut plain.bindings,
    };
    let key = (space.to_owned(), name.to_owned());
    if dice.below(6) == 0 {
        rbac.remove(&plural, space, name);
        all.remove(&key);
        return;
    }
    let object = Object(match is_role {
        true => json!({"metadata": metadata, "rules": random_role(dice)}),
        false => {
            let kind = dice.one(&["Role", "ClusterRole", "Role", "ClusterRole", "Other"]);
            let subjects: Vec<Value> = (0..dice.below(5)).map(|_| random_subject(dice)).collect();
            json!({"metadata": metadata, "subjects": subjects,
                "roleRef": {"kind": kind, "name": dice.one(&NAMES)}})
        }
    });
    rbac.set(&plural, &object);
    all.insert(key, object);
}

fn question(dice: &mut Dice) -> (Identity, Attributes) {
    let mut user = Identity::user(dice.one(&USERS), &[]);
    user.groups = dice
        .some(&GROUPS, 3)
        .into_iter()
        .map(str::to_owned)
        .collect();
    user.groups.sort();
    user.groups.dedup();
    let mut asked = Attributes {
        verb: dice.one(&["get", "list", "delete", "*", "unheard"]).into(),
        namespace: dice.one(&["", "a", "b", "a", "b", "elsewhere"]).into(),
        ..Attributes::default()
    };
    if dice.below(4) == 0 {
        let paths = ["/healthz", "/api/v1", "/api", "/apis/apps", "/apis", "/x"];
        asked.path = dice.one(&paths).into();
    } else {
        asked.group = dice.one(&["", "apps", "other"]).into();
        asked.resource = dice
            .one(&["pods", "jobs", "deployments", "*", "pods/log"])
            .into();
        asked.subresource = dice.one(&["", "", "log", "scale", "*"]).into();
        asked.name = dice.one(&["", "web", "db", "other"]).into();
    }
    (user, asked)
}

/// Whether it is allowed.
fn compare(rbac: &Rbac, plain: &Plain, user: &Identity, asked: &Attributes) -> bool {
    let (rules, missing) = plain.walk(user, &asked.namespace);
    let allowing = rules.iter().filter(|(rule, _)| rule.allows(asked));
    let reasons: BTreeSet<&String> = allowing.map(|(_, why)| why).collect();
    match rbac.authorize(user, asked) {
        Decision::Allow(why) => assert!(reasons.contains(&why), "{why}: {user:?} {asked:?}"),
        Decision::NoOpinion(why) => {
            let missing: Vec<String> = missing.into_iter().collect();
            let wanted = match missing.as_slice() {
                [] => String::new(),
                [one] => format!("RBAC: {one}"),
                many => format!("RBAC: [{}]", many.join(", ")),
            };
            assert!(reasons.is_empty(), "{reasons:?}: {user:?} {asked:?}");
            assert_eq!(why, wanted);
        }
        Decision::Deny(why) => panic!("roles deny nothing: {why}"),
    }
    let held: BTreeSet<Rule> = rbac.rules_for(user, &asked.namespace).into_iter().collect();
    let allowed = !reasons.is_empty();
    assert_eq!(held, rules.into_iter().map(|(rule, _)| rule).collect());
    allowed
}

#[test]
fn the_index_decides_like_a_plain_walk() {
    let (rbac, mut plain) = (Rbac::new(), Plain::default());
    let empty = rbac.index.read().sizes();
    let mut dice = Dice(0x5a3a_11ed);
    let mut allowed = 0;
    for _ in 0..STEPS {
        change(&mut dice, &rbac, &mut plain);
        for _ in 0..QUESTIONS {
            let (user, asked) = question(&mut dice);
            allowed += usize::from(compare(&rbac, &plain, &user, &asked));
        }
    }
    let share = allowed * 100 / (STEPS * QUESTIONS);
    assert!((10..90).contains(&share), "{share}% allowed show little");
    // All that came and went has left nothing behind.
    for (space, name) in plain.bindings.keys() {
        rbac.remove(&format!("rolebindings.{GROUP}"), space, name);
    }
    for (space, name) in plain.roles.keys() {
        rbac.remove(&format!("roles.{GROUP}"), space, name);
    }
    assert_eq!(rbac.index.read().sizes(), empty);
}
