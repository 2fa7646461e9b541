//! The right to let policies read parameters: whoever names a kind or an object of parameters in a
//! policy or binding must be allowed to read it.

use admission::Lookup as _;
use auth::Attributes;
use meta::Faults;
use serde_json::Value;

use crate::verbs::write::{Write, text};

const GROUP: &str = "admissionregistration.k8s.io";
/// May do everything, so that nothing is asked.
const SUPERUSERS: &str = "system:masters";

/// Adds what a well-formed policy or binding may not name.
pub(crate) fn check(write: &Write<'_>, new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let names = write.names();
    if names.group != GROUP || !faults.is_empty() || write.call.user.is_in(SUPERUSERS) {
        return;
    }
    let policies = match names.plural.as_str() {
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            return check_policy(write, new, old, faults);
        }
        "validatingadmissionpolicybindings" => "validatingadmissionpolicies",
        "mutatingadmissionpolicybindings" => "mutatingadmissionpolicies",
        _ => return,
    };
    check_binding(write, policies, (new, old), faults);
}

fn check_policy(write: &Write<'_>, new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let path = "/spec/paramKind";
    let given = |object: &Value| {
        let kind = object.pointer(path).cloned();
        kind.filter(|kind| !kind.is_null())
    };
    let Some(kind) = given(new) else { return };
    if old.and_then(given).as_ref() == Some(&kind) {
        return;
    }
    let asked = Attributes {
        verb: "get".into(),
        name: "*".into(),
        namespace: "*".into(),
        ..readable(write, &kind).asked
    };
    if !allows(write, &asked) {
        let text = format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind \
             (kind={}, apiVersion={})",
            user(write),
            text(&kind, "/kind"),
            text(&kind, "/apiVersion")
        );
        faults.forbidden("spec.paramKind", text);
    }
}

fn check_binding(
    write: &Write<'_>,
    policies: &str,
    (new, old): (&Value, Option<&Value>),
    faults: &mut Faults,
) {
    let at = |object: &Value, path: &str| object.pointer(path).cloned().unwrap_or_default();
    let reference = at(new, "/spec/paramRef");
    let same = |path: &str| old.is_some_and(|old| at(old, path) == at(new, path));
    if reference.is_null() || same("/spec/paramRef") && same("/spec/policyName") {
        return;
    }
    let policy_name = text(new, "/spec/policyName");
    let policy = write
        .core
        .lookup
        .get(&format!("{policies}.{GROUP}"), "", policy_name);
    let kind = policy
        .as_ref()
        .map(|policy| at(&policy.0, "/spec/paramKind"));
    let kind = kind.filter(|kind| !kind.is_null());
    let readable = match &kind {
        Some(kind) => readable(write, kind),
        None => Readable::anything(),
    };
    let verb = match text(&reference, "/name") {
        "" => "list",
        _ => "get",
    };
    let asked = Attributes {
        verb: verb.into(),
        name: text(&reference, "/name").into(),
        namespace: text(&reference, "/namespace").into(),
        ..readable.asked
    };
    if allows(write, &asked) {
        return;
    }
    let user = user(write);
    let everything =
        format!("does not have \"{verb}\" permission for all groups, versions and resources");
    let least = "to determine minimum required permissions and user";
    let text = match (&policy, &kind) {
        (None, _) => format!("unable to get policy {policy_name} {least} {user} {everything}"),
        (Some(_), Some(kind)) if !readable.known => format!(
            "unable to resolve paramKind &ParamKind{{APIVersion:{},Kind:{},}} {least} {user} \
             {everything}",
            text(kind, "/apiVersion"),
            text(kind, "/kind")
        ),
        _ => format!(
            "user {user} does not have \"{verb}\" permission on the object referenced by paramRef"
        ),
    };
    faults.forbidden("spec.paramRef", text);
}

/// What must be readable.
struct Readable {
    asked: Attributes,
    /// Whether the kind is served.
    known: bool,
}

impl Readable {
    fn anything() -> Readable {
        let asked = Attributes {
            group: "*".into(),
            version: "*".into(),
            resource: "*".into(),
            ..Attributes::default()
        };
        Readable {
            asked,
            known: false,
        }
    }
}

fn readable(write: &Write<'_>, kind: &Value) -> Readable {
    let version = text(kind, "/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let names = write.core.lookup.kind(group, version, text(kind, "/kind"));
    let asked = Attributes {
        group: group.into(),
        version: version.into(),
        resource: match &names {
            Some(names) => names.plural.clone(),
            None => "*".into(),
        },
        ..Attributes::default()
    };
    Readable {
        asked,
        known: names.is_some(),
    }
}

fn allows(write: &Write<'_>, asked: &Attributes) -> bool {
    write.core.lookup.may(&write.call.user, asked)
}

/// A user as Go prints one.
fn user(write: &Write<'_>) -> String {
    let user = &write.call.user;
    let extra = user.extra.iter();
    let extra: Vec<String> = extra
        .map(|(key, values)| format!("{key}:[{}]", values.join(" ")))
        .collect();
    format!(
        "&{{{} {} [{}] map[{}]}}",
        user.name,
        user.uid,
        user.groups.join(" "),
        extra.join(" ")
    )
}
