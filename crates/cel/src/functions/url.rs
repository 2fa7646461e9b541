//! URLs.

use std::collections::BTreeMap;

use super::{Outcome, Spec, fault, no_overload};
use crate::opaque::Opaque;
use crate::url::Url;
use crate::value::Value;

const PART: &[&str] = &["kubernetes.URL . -> string"];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "url",
        call: |args| match args {
            [Value::String(text)] => match Url::parse(text) {
                Ok(url) => Ok(Value::opaque(Opaque::Url(Box::new(url)))),
                Err(error) => fault(format!(
                    "URL parse error during conversion from string: parse {text:?}: {error}",
                    text = &**text
                )),
            },
            _ => no_overload(),
        },
        overloads: &["string -> kubernetes.URL"],
    },
    Spec {
        name: "isURL",
        call: |args| match args {
            [Value::String(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
            _ => no_overload(),
        },
        overloads: &["string -> bool"],
    },
    Spec {
        name: "getScheme",
        call: |args| part(args, |url| url.scheme.clone()),
        overloads: PART,
    },
    Spec {
        name: "getHost",
        call: |args| part(args, |url| url.host.clone()),
        overloads: PART,
    },
    Spec {
        name: "getHostname",
        call: |args| part(args, |url| url.split_host().0.to_owned()),
        overloads: PART,
    },
    Spec {
        name: "getPort",
        call: |args| part(args, |url| url.split_host().1.to_owned()),
        overloads: PART,
    },
    Spec {
        name: "getEscapedPath",
        call: |args| part(args, Url::escaped_path),
        overloads: PART,
    },
    Spec {
        name: "getQuery",
        call: query,
        overloads: &["kubernetes.URL . -> map<string,list<string>>"],
    },
];

fn own<'v>(args: &'v [Value<'_>]) -> Option<&'v Url> {
    match args {
        [Value::Opaque(opaque)] => match &**opaque {
            Opaque::Url(url) => Some(url),
            _ => None,
        },
        _ => None,
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Url) -> String) -> Outcome<'a> {
    own(args).map_or_else(no_overload, |url| Ok(Value::text(of(url))))
}

fn query<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let Some(url) = own(args) else {
        return no_overload();
    };
    let mut values: BTreeMap<String, Vec<Value<'a>>> = BTreeMap::new();
    for (name, value) in url.query() {
        values.entry(name).or_default().push(Value::text(value));
    }
    Ok(Value::map(
        values
            .into_iter()
            .map(|(name, values)| (name, Value::list(values))),
    ))
}
