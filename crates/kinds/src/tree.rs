//! Walking JSON trees without panics: dotted paths, and something sensible
//! (null, empty, zero) wherever a field is absent or of the wrong type.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Reading and changing a tree by paths such as `spec.template.spec`.
pub(crate) trait Tree {
    /// The value at `path`; null when absent. The empty path is the tree itself.
    fn at(&self, path: &str) -> &Value;
    /// The text at `path`, or the empty one.
    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or("")
    }
    /// The whole number at `path`, or 0.
    fn int(&self, path: &str) -> i64 {
        self.at(path).as_i64().unwrap_or(0)
    }
    /// The whole number at `path`, when there is one.
    fn maybe_int(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }
    /// The boolean at `path`, or false.
    fn flag(&self, path: &str) -> bool {
        self.at(path).as_bool().unwrap_or(false)
    }
    /// The items at `path`, or none.
    fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }
    /// The texts in the list at `path`; others are skipped.
    fn texts(&self, path: &str) -> impl Iterator<Item = &str> {
        self.list(path).iter().filter_map(Value::as_str)
    }
    /// The fields at `path`, or none, sorted by name.
    fn fields(&self, path: &str) -> impl Iterator<Item = (&str, &Value)> {
        let map = self.at(path).as_object();
        map.into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value))
    }
    /// Whether `path` holds anything but null.
    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }
    /// How many items or fields `path` holds.
    fn count(&self, path: &str) -> usize {
        match self.at(path) {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// The value at `path` when all of the way exists.
    fn at_mut(&mut self, path: &str) -> Option<&mut Value>;
    /// The place at `path`, made (as null, in maps) when absent; `None` when something
    /// that is no map is in the way.
    fn place(&mut self, path: &str) -> Option<&mut Value>;
    /// The items at `path`, or none.
    fn list_mut(&mut self, path: &str) -> &mut [Value] {
        match self.at_mut(path) {
            Some(Value::Array(list)) => list.as_mut_slice(),
            _ => &mut [],
        }
    }
    /// Sets `path`.
    fn set(&mut self, path: &str, value: impl Into<Value>) {
        if let Some(place) = self.place(path) {
            *place = value.into();
        }
    }
    /// Sets `path` when it is absent or null.
    fn fill(&mut self, path: &str, value: impl Into<Value>) {
        if !self.has(path) {
            self.set(path, value);
        }
    }
    /// Sets `path` when it is absent or the empty text.
    fn fill_text(&mut self, path: &str, text: &str) {
        if !self.has(path) || self.at(path) == "" {
            self.set(path, text);
        }
    }
    /// Sets `path` when it is absent or zero.
    fn fill_zero(&mut self, path: &str, number: i64) {
        if !self.has(path) || self.at(path) == &Value::from(0) {
            self.set(path, number);
        }
    }
    /// Makes `path` a map when it is absent or null.
    fn fill_map(&mut self, path: &str) {
        self.fill(path, Map::new());
    }
    /// Removes the field at `path`.
    fn drop_field(&mut self, path: &str);
}

impl Tree for Value {
    fn at(&self, path: &str) -> &Value {
        if path.is_empty() {
            return self;
        }
        let (mut here, mut rest) = (self, path);
        loop {
            let Value::Object(map) = here else {
                return &NULL;
            };
            // Hot, and names are short: a search for dots that is made for long texts costs more.
            let dot = rest.bytes().position(|byte| byte == b'.');
            let (name, next) = match dot {
                None => (rest, None),
                Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
            };
            match (map.get(name), next) {
                (None, _) => return &NULL,
                (Some(value), None) => return value,
                (Some(value), Some(next)) => (here, rest) = (value, next),
            }
        }
    }

    fn at_mut(&mut self, path: &str) -> Option<&mut Value> {
        let mut here = self;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            here = here.get_mut(name)?;
        }
        Some(here)
    }

    fn place(&mut self, path: &str) -> Option<&mut Value> {
        let mut here = self;
        for name in path.split('.') {
            if here.is_null() {
                *here = Value::Object(Map::new());
            }
            here = here
                .as_object_mut()?
                .entry(name.to_owned())
                .or_insert(Value::Null);
        }
        Some(here)
    }

    fn drop_field(&mut self, path: &str) {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        if let Some(Value::Object(map)) = self.at_mut(parent) {
            map.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_and_odd_fields_read_as_nothing() {
        let tree = json!({"a": {"b": 1}, "c": [1, "x"]});
        assert_eq!(tree.int("a.b"), 1);
        assert_eq!(tree.text("a.b"), "");
        assert!(!tree.has("a.b.c.d"));
        assert_eq!(tree.texts("c").collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn changes_make_their_way_but_break_nothing() {
        let mut tree = json!({"a": 1});
        tree.fill("b.c", 2);
        tree.fill("a.x", 3);
        tree.fill("b.c", 4);
        assert_eq!(tree, json!({"a": 1, "b": {"c": 2}}));
        tree.drop_field("b.c");
        tree.drop_field("z.c");
        assert_eq!(tree, json!({"a": 1, "b": {}}));
    }
}
