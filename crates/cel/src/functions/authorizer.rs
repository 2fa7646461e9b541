//! The authorizer library.

use super::{Outcome, Spec, no_overload};
use crate::authorizer::{Check, Decision, GroupCheck, PathCheck, ResourceCheck};
use crate::opaque::Opaque;
use crate::value::Value;

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "path",
        call: path,
        overloads: &[
            "kubernetes.authorization.Authorizer . string -> kubernetes.authorization.PathCheck",
        ],
    },
    Spec {
        name: "group",
        call: group,
        overloads: &[
            "kubernetes.authorization.Authorizer . string -> kubernetes.authorization.GroupCheck",
        ],
    },
    Spec {
        name: "serviceAccount",
        call: service_account,
        overloads: &[
            "kubernetes.authorization.Authorizer . string string -> kubernetes.authorization.Authorizer",
        ],
    },
    Spec {
        name: "resource",
        call: resource,
        overloads: &[
            "kubernetes.authorization.GroupCheck . string -> kubernetes.authorization.ResourceCheck",
        ],
    },
    Spec {
        name: "subresource",
        call: |args| refine(args, |check| &mut check.subresource),
        overloads: REFINE,
    },
    Spec {
        name: "namespace",
        call: |args| refine(args, |check| &mut check.namespace),
        overloads: REFINE,
    },
    Spec {
        name: "name",
        call: |args| refine(args, |check| &mut check.name),
        overloads: REFINE,
    },
    Spec {
        name: "fieldSelector",
        call: |args| refine(args, |check| &mut check.field_selector),
        overloads: REFINE,
    },
    Spec {
        name: "labelSelector",
        call: |args| refine(args, |check| &mut check.label_selector),
        overloads: REFINE,
    },
    Spec {
        name: "check",
        call: check,
        overloads: &[
            "kubernetes.authorization.PathCheck . string -> kubernetes.authorization.Decision",
            "kubernetes.authorization.ResourceCheck . string -> kubernetes.authorization.Decision",
        ],
    },
    Spec {
        name: "allowed",
        call: |args| answer(args, |decision| Value::Bool(decision.allowed)),
        overloads: &["kubernetes.authorization.Decision . -> bool"],
    },
    Spec {
        name: "errored",
        call: |args| answer(args, |decision| Value::Bool(decision.error.is_some())),
        overloads: &["kubernetes.authorization.Decision . -> bool"],
    },
    Spec {
        name: "error",
        call: |args| {
            answer(args, |decision| {
                Value::text(decision.error.clone().unwrap_or_default())
            })
        },
        overloads: &["kubernetes.authorization.Decision . -> string"],
    },
    Spec {
        name: "reason",
        call: |args| answer(args, |decision| Value::text(decision.reason.clone())),
        overloads: &["kubernetes.authorization.Decision . -> string"],
    },
];

const REFINE: &[&str] =
    &["kubernetes.authorization.ResourceCheck . string -> kubernetes.authorization.ResourceCheck"];

fn opaque<'v>(value: &'v Value<'_>) -> Option<&'v Opaque> {
    match value {
        Value::Opaque(opaque) => Some(opaque),
        _ => None,
    }
}

fn path<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [target, Value::String(path)] => match opaque(target) {
            Some(Opaque::Authorizer(authorizer)) => {
                let check = PathCheck {
                    authorizer: authorizer.clone(),
                    path: path.to_string(),
                };
                Ok(Value::opaque(Opaque::PathCheck(check)))
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn group<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [target, Value::String(group)] => match opaque(target) {
            Some(Opaque::Authorizer(authorizer)) => {
                let check = GroupCheck {
                    authorizer: authorizer.clone(),
                    group: group.to_string(),
                };
                Ok(Value::opaque(Opaque::GroupCheck(check)))
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [target, Value::String(namespace), Value::String(name)] => match opaque(target) {
            Some(Opaque::Authorizer(authorizer)) => Ok(Value::opaque(Opaque::Authorizer(
                authorizer.service_account(namespace, name),
            ))),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn resource<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [target, Value::String(resource)] => match opaque(target) {
            Some(Opaque::GroupCheck(group)) => {
                let check = Check {
                    group: group.group.clone(),
                    resource: resource.to_string(),
                    ..Check::default()
                };
                let authorizer = group.authorizer.clone();
                Ok(Value::opaque(Opaque::ResourceCheck(Box::new(
                    ResourceCheck { authorizer, check },
                ))))
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn refine<'a>(args: &[Value<'a>], field: fn(&mut Check) -> &mut String) -> Outcome<'a> {
    match args {
        [target, Value::String(text)] => match opaque(target) {
            Some(Opaque::ResourceCheck(resource)) => {
                let mut resource = resource.clone();
                *field(&mut resource.check) = text.to_string();
                Ok(Value::opaque(Opaque::ResourceCheck(resource)))
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn check<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [target, Value::String(verb)] = args else {
        return no_overload();
    };
    let decision = match opaque(target) {
        Some(Opaque::PathCheck(check)) => check.authorizer.decide(
            Check {
                path: Some(check.path.clone()),
                ..Check::default()
            },
            verb,
        ),
        Some(Opaque::ResourceCheck(check)) => check.authorizer.decide(check.check.clone(), verb),
        _ => return no_overload(),
    };
    Ok(Value::opaque(Opaque::Decision(decision)))
}

fn answer<'a>(args: &[Value<'a>], of: fn(&Decision) -> Value<'a>) -> Outcome<'a> {
    match args {
        [target] => match opaque(target) {
            Some(Opaque::Decision(decision)) => Ok(of(decision)),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}
