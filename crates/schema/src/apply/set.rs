//! Sets of field paths, and their `FieldsV1` form.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write};

use serde_json::{Map, Value};

/// One step of a path. The order is upstream's: fields, keys, values, indices.
#[derive(Clone, Debug)]
pub(super) enum Element<'a> {
    /// A field of a struct or an entry of a map.
    Field(&'a str),
    /// The item of a list with these values in its key fields; ordered by name.
    Key(Vec<(Cow<'a, str>, Cow<'a, Value>)>),
    /// The item of a set with this value.
    Value(Cow<'a, Value>),
    /// The item at this place.
    Index(i64),
}

impl Element<'_> {
    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }

    fn encode(&self) -> String {
        match self {
            Element::Field(name) => ["f:", name].concat(),
            Element::Key(fields) => {
                let mut text = String::from("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    text.push_str(if index == 0 { "" } else { "," });
                    write_text(&mut text, name);
                    text.push(':');
                    write_value(&mut text, value);
                }
                text.push('}');
                text
            }
            Element::Value(value) => {
                let mut text = String::from("v:");
                write_value(&mut text, value);
                text
            }
            Element::Index(index) => format!("i:{index}"),
        }
    }

    /// `None` for what a later version may have added, and for what is broken.
    fn decode(text: &str) -> Option<Element<'_>> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Element::Field(rest)),
            "v" => Some(Element::Value(Cow::Owned(serde_json::from_str(rest).ok()?))),
            "i" => Some(Element::Index(rest.parse().ok()?)),
            "k" => {
                let fields: Map<String, Value> = serde_json::from_str(rest).ok()?;
                let fields = fields
                    .into_iter()
                    .map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)));
                Some(Element::Key(fields.collect()))
            }
            _ => None,
        }
    }
}

/// As conflicts and validation errors word it: `.spec`, `[name="web"]`, `[="a"]`, `[3]`.
impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                for (index, (name, value)) in fields.iter().enumerate() {
                    let before = if index == 0 { '[' } else { ',' };
                    write!(f, "{before}{name}={value}")?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(one), Element::Field(two)) => one.cmp(two),
            (Element::Key(one), Element::Key(two)) => {
                let pairs =
                    one.iter()
                        .zip(two)
                        .map(|((name, value), (other_name, other_value))| {
                            name.cmp(other_name)
                                .then_with(|| compare_values(value, other_value))
                        });
                let first = pairs.into_iter().find(|order| order.is_ne());
                first.unwrap_or_else(|| one.len().cmp(&two.len()))
            }
            (Element::Value(one), Element::Value(two)) => compare_values(one, two),
            (Element::Index(one), Element::Index(two)) => one.cmp(two),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}
impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Element<'_> {}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        // Writing to a string cannot fail.
        other => drop(write!(out, "{other}")),
    }
}

/// A text in JSON.
fn write_text(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    match text.bytes().all(plain) {
        true => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        false => drop(write!(out, "{}", Value::from(text))),
    }
}

/// Any total order in which equal numbers are equal, however they are written.
fn compare_values(one: &Value, two: &Value) -> Ordering {
    match (one, two) {
        (Value::String(one), Value::String(two)) => one.cmp(two),
        (Value::Bool(one), Value::Bool(two)) => one.cmp(two),
        (Value::Number(one), Value::Number(two)) => match (one.as_i64(), two.as_i64()) {
            (Some(one), Some(two)) => one.cmp(&two),
            _ => one
                .as_f64()
                .unwrap_or(0.0)
                .total_cmp(&two.as_f64().unwrap_or(0.0)),
        },
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            one.to_string().cmp(&two.to_string())
        }
        _ => rank(one).cmp(&rank(two)),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

/// A set of paths as a tree; nodes are ordered and never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set<'a>(Vec<Node<'a>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) element: Element<'a>,
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    pub(super) children: Set<'a>,
}

impl<'a> Node<'a> {
    /// The same step with these contents; `None` when there are none.
    fn with(&self, member: bool, children: Set<'a>) -> Option<Node<'a>> {
        (member || !children.is_empty()).then(|| Node {
            element: self.element.clone(),
            member,
            children,
        })
    }
}

/// What one side, both, or the other side of a merge has.
enum Zip<'s, 'a, 'b> {
    Left(&'s Node<'a>),
    Right(&'s Node<'b>),
    Both(&'s Node<'a>, &'s Node<'b>),
}

impl<'a> Set<'a> {
    pub(super) fn new() -> Set<'a> {
        Set(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn nodes(&self) -> &[Node<'a>] {
        &self.0
    }

    /// Adds a node that is not there yet; call [`Set::sort`] unless they come in order.
    pub(super) fn push(&mut self, element: Element<'a>, member: bool, children: Set<'a>) {
        if member || !children.is_empty() {
            self.0.push(Node {
                element,
                member,
                children,
            });
        }
    }

    pub(super) fn sort(&mut self) {
        if !self.0.is_sorted_by(|one, two| one.element <= two.element) {
            self.0.sort_by(|one, two| one.element.cmp(&two.element));
        }
    }

    /// The node of a step.
    pub(super) fn get(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        // Steps are compared across lifetimes, which `binary_search` by value cannot.
        let at = self.0.binary_search_by(|node| node.element.cmp(element));
        at.ok().map(|index| &self.0[index])
    }

    fn zip<'s, 'b>(
        &'s self,
        other: &'s Set<'b>,
        mut each: impl FnMut(Zip<'s, 'a, 'b>) -> Option<Node<'a>>,
    ) -> Set<'a> {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut out = Vec::new();
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some(one), Some(two)) => one.element.cmp(&two.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Set(out),
            };
            let pair = match order {
                Ordering::Less => left.next().map(Zip::Left),
                Ordering::Greater => right.next().map(Zip::Right),
                Ordering::Equal => left
                    .next()
                    .zip(right.next())
                    .map(|(one, two)| Zip::Both(one, two)),
            };
            out.extend(
                pair.and_then(&mut each)
                    .filter(|node| node.member || !node.children.is_empty()),
            );
        }
    }

    /// What is in either.
    pub(super) fn union(&self, other: &Set<'a>) -> Set<'a> {
        self.zip(other, |pair| {
            Some(match pair {
                Zip::Left(node) | Zip::Right(node) => node.clone(),
                Zip::Both(one, two) => Node {
                    element: one.element.clone(),
                    member: one.member || two.member,
                    children: one.children.union(&two.children),
                },
            })
        })
    }

    /// What is in both.
    pub(super) fn intersection(&self, other: &Set<'_>) -> Set<'a> {
        self.zip(other, |pair| match pair {
            Zip::Both(one, two) => {
                let children = one.children.intersection(&two.children);
                one.with(one.member && two.member, children)
            }
            _ => None,
        })
    }

    /// What is here and not in the other. A parent in the other does not take its children.
    pub(super) fn difference(&self, other: &Set<'_>) -> Set<'a> {
        self.zip(other, |pair| match pair {
            Zip::Left(node) => Some(node.clone()),
            Zip::Right(_) => None,
            Zip::Both(one, two) => {
                let children = one.children.difference(&two.children);
                one.with(one.member && !two.member, children)
            }
        })
    }

    /// Takes out one path of field names; what is below it too, if `whole`.
    fn take_out(&mut self, path: &str, whole: bool) {
        let (name, rest) = match path.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let wanted = Element::Field(name);
        let Ok(at) = self.0.binary_search_by(|node| node.element.cmp(&wanted)) else {
            return;
        };
        let node = &mut self.0[at];
        match rest {
            Some(rest) => node.children.take_out(rest, whole),
            None => {
                node.member = false;
                if whole {
                    node.children = Set::new();
                }
            }
        }
        if !node.member && node.children.is_empty() {
            self.0.remove(at);
        }
    }

    /// The set without these paths of field names; what is below them stays.
    pub(super) fn without_paths(mut self, paths: &[&str]) -> Set<'a> {
        for path in paths {
            self.take_out(path, false);
        }
        self
    }

    /// The same, but what is below them goes too.
    pub(super) fn without_trees(mut self, paths: &[&str]) -> Set<'a> {
        for path in paths {
            self.take_out(path, true);
        }
        self
    }

    /// All paths in upstream's order: of one place, then below it.
    pub(super) fn paths(&self) -> Vec<String> {
        fn collect(set: &Set<'_>, prefix: &str, out: &mut Vec<String>) {
            let path = |node: &Node<'_>| format!("{prefix}{}", node.element);
            out.extend(set.0.iter().filter(|node| node.member).map(path));
            for node in set.0.iter().filter(|node| !node.children.is_empty()) {
                collect(&node.children, &path(node), out);
            }
        }
        let mut out = Vec::new();
        collect(self, "", &mut out);
        out
    }

    /// `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let entries = self.0.iter().map(|node| {
            let mut inner = node.children.encode();
            if let (true, false, Value::Object(map)) =
                (node.member, node.children.is_empty(), &mut inner)
            {
                map.insert(".".into(), Value::Object(Map::new()));
            }
            (node.element.encode(), inner)
        });
        Value::Object(entries.collect())
    }

    /// Reads `fieldsV1`; what is not understood is left out, as upstream does.
    pub(super) fn decode(fields: &'a Value) -> Set<'a> {
        let mut set = Set::new();
        for (key, value) in fields.as_object().into_iter().flatten() {
            if let Some(element) = Element::decode(key) {
                let map = value.as_object();
                let children = Set::decode(value);
                let member = map.is_none_or(|map| map.contains_key(".")) || children.is_empty();
                set.push(element, member, children);
            }
        }
        set.sort();
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(fields: &Value) -> Set<'_> {
        Set::decode(fields)
    }

    #[test]
    fn fields_survive_both_ways() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:finalizers": {"v:\"a\"": {}},
                "f:list": {"i:10": {}, "i:9": {}},
            },
        });
        assert_eq!(set(&fields).encode(), fields);
    }

    #[test]
    fn difference_keeps_children_of_what_is_taken() {
        let one = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}});
        let two = json!({"f:a": {}});
        assert_eq!(
            set(&one).difference(&set(&two)).encode(),
            json!({"f:a": {"f:b": {}}, "f:c": {}})
        );
        assert_eq!(
            set(&one).without_paths(&["a", "c.d"]).encode(),
            json!({"f:a": {"f:b": {}}, "f:c": {}})
        );
        assert_eq!(
            set(&one).without_trees(&["a", "x.y"]).encode(),
            json!({"f:c": {}})
        );
        assert_eq!(set(&one).without_trees(&["a.b", "c"]).encode(), two);
        assert_eq!(
            set(&one).intersection(&set(&two)).encode(),
            json!({"f:a": {}})
        );
        assert_eq!(
            set(&two).union(&set(&json!({"f:a": {"f:d": {}}}))).encode(),
            json!({"f:a": {".": {}, "f:d": {}}})
        );
    }

    #[test]
    fn paths_read_like_upstreams() {
        let fields = json!({"f:spec": {".": {}, "f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}}}}, "f:x": {"v:\"a\"": {}}});
        assert_eq!(
            set(&fields).paths(),
            [
                ".spec",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image",
                ".x[=\"a\"]"
            ]
        );
    }
}
