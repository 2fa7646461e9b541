//! Label and field selectors: their text form and what they match.

mod parse;

use std::fmt;

/// One condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// What `In` means with one value, written as an equation.
    Equal(String, String),
    NotEqual(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    GreaterThan(String, i64),
    LessThan(String, i64),
}

/// A conjunction of conditions on labels; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

/// A selector's text that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Requirement {
    /// Whether labels, looked up by key, satisfy the condition.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let number = |key: &str| label(key).and_then(|text| text.parse::<i64>().ok());
        match self {
            Requirement::Equal(key, value) => label(key).is_some_and(|text| text == value),
            Requirement::NotEqual(key, value) => label(key).is_none_or(|text| text != value),
            Requirement::In(key, values) => {
                label(key).is_some_and(|text| values.iter().any(|value| value == text))
            }
            Requirement::NotIn(key, values) => {
                !label(key).is_some_and(|text| values.iter().any(|value| value == text))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::GreaterThan(key, bound) => number(key).is_some_and(|n| n > *bound),
            Requirement::LessThan(key, bound) => number(key).is_some_and(|n| n < *bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::Equal(key, value) => write!(f, "{key}={value}"),
            Requirement::NotEqual(key, value) => write!(f, "{key}!={value}"),
            Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(",")),
            Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(",")),
            Requirement::Exists(key) => f.write_str(key),
            Requirement::Absent(key) => write!(f, "!{key}"),
            Requirement::GreaterThan(key, bound) => write!(f, "{key}>{bound}"),
            Requirement::LessThan(key, bound) => write!(f, "{key}<{bound}"),
        }
    }
}

impl LabelSelector {
    /// Reads the text form: `app=web,tier in (a,b),!canary`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        parse::labels(text)
    }

    /// The selector that asks for each of these labels.
    pub fn equal<K: Into<String>, V: Into<String>>(
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> LabelSelector {
        let one = |(key, value): (K, V)| Requirement::Equal(key.into(), value.into());
        LabelSelector {
            requirements: labels.into_iter().map(one).collect(),
        }
    }

    /// Reads `metav1.LabelSelector` (`matchLabels`, `matchExpressions`) from its JSON form.
    pub fn from_value(value: &serde_json::Value) -> Result<LabelSelector, SelectorError> {
        let mut selector = LabelSelector::default();
        let labels = value
            .get("matchLabels")
            .and_then(|labels| labels.as_object());
        for (key, wanted) in labels.into_iter().flatten() {
            let wanted = wanted.as_str().unwrap_or_default().to_owned();
            selector
                .requirements
                .push(Requirement::Equal(key.clone(), wanted));
        }
        let expressions = value
            .get("matchExpressions")
            .and_then(|list| list.as_array());
        for expression in expressions.into_iter().flatten() {
            let text = |field: &str| expression.get(field).and_then(|v| v.as_str()).unwrap_or("");
            let values = expression.get("values").and_then(|list| list.as_array());
            let values = values.into_iter().flatten().filter_map(|v| v.as_str());
            let values: Vec<String> = values.map(str::to_owned).collect();
            let key = text("key").to_owned();
            selector.requirements.push(match text("operator") {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::Absent(key),
                other => {
                    let why = format!("\"{other}\" is not a valid label selector operator");
                    return Err(SelectorError(why));
                }
            });
        }
        Ok(selector)
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels, looked up by key, satisfy every condition.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(&label))
    }

    /// [`LabelSelector::matches`] on a map of labels.
    pub fn matches_map(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self
            .requirements
            .iter()
            .map(Requirement::to_string)
            .collect();
        f.write_str(&parts.join(","))
    }
}

/// A conjunction of `field=value` and `field!=value`; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, whether it must be equal (else: must differ), value.
    pub requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Reads the text form: `metadata.name=web,status.phase!=Running`.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        parse::fields(text)
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether fields, looked up by path, satisfy every condition; an absent field is empty text.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        let holds = |(path, equal, value): &(String, bool, String)| {
            (field(path).unwrap_or("") == value.as_str()) == *equal
        };
        self.requirements.iter().all(holds)
    }

    /// The value that `path` must equal, if the selector asks for one.
    pub fn required_value(&self, path: &str) -> Option<&str> {
        let mut equal = self
            .requirements
            .iter()
            .filter(|(field, equal, _)| field == path && *equal);
        equal.next().map(|(_, _, value)| value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |(field, equal, value): &(String, bool, String)| {
            format!("{field}{}{value}", if *equal { "=" } else { "!=" })
        };
        let parts: Vec<_> = self.requirements.iter().map(part).collect();
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &[(&str, &str)], expected: bool) {
        let selector = LabelSelector::parse(selector).unwrap();
        let look = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        assert_eq!(selector.matches(look), expected, "{selector}");
    }

    #[test]
    fn conditions_match() {
        let labels = [("app", "web"), ("tier", "front"), ("rank", "7")];
        check("", &labels, true);
        check("app=web", &labels, true);
        check("app==web,tier in (front, back)", &labels, true);
        check("tier notin (front)", &labels, false);
        check("absent notin (front)", &labels, true);
        check("absent!=x", &labels, true);
        check("!absent,app", &labels, true);
        check("rank>6,rank<8", &labels, true);
        check("rank>7", &labels, false);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["app in (a", "app of (a)", "=x", "a b", "-x=1", "app=sp ace"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
        assert!(FieldSelector::parse("metadata.name").is_err());
    }

    #[test]
    fn fields_match() {
        let selector = FieldSelector::parse("status.phase!=Running,metadata.name=a").unwrap();
        assert!(selector.matches(|path| (path == "metadata.name").then_some("a")));
        assert_eq!(selector.required_value("metadata.name"), Some("a"));
        assert_eq!(
            selector.to_string(),
            "status.phase!=Running,metadata.name=a"
        );
    }
}
