//! Reads the `json_schema!` blocks of `k8s-openapi`: JSON with a few Rust expressions in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Fallible;

/// One published type.
pub(crate) struct Published {
    /// The schema; references stand as `{"$ref": "io.k8s…"}`.
    pub(crate) schema: Value,
    /// `group/version/kind`, when it is a kind.
    pub(crate) kind: Option<String>,
    /// The name of its list kind, when it can be listed.
    pub(crate) list_kind: Option<String>,
}

/// All types below a folder, by full name.
pub(crate) fn read(folder: &Path) -> Fallible<BTreeMap<String, Published>> {
    let mut types = BTreeMap::new();
    let mut by_path = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some((name, rust, published)) = read_file(&path)? {
                by_path.insert(rust, name.clone());
                types.insert(name, published);
            }
        }
    }
    for published in types.values_mut() {
        resolve(&mut published.schema, &by_path)?;
    }
    Ok(types)
}

/// Name, Rust path and content of one file; `None` when it defines no type.
fn read_file(path: &Path) -> Fallible<Option<(String, String, Published)>> {
    let text = fs::read_to_string(path)?;
    let marker = "// Generated from definition ";
    let Some(name) = text.lines().find_map(|line| line.strip_prefix(marker)) else {
        return Ok(None);
    };
    let Some(start) = text.find("json_schema!(") else {
        return Ok(None);
    };
    let mut reader = Reader {
        text: &text[start + "json_schema!(".len()..],
    };
    let schema = reader
        .value()
        .map_err(|fault| format!("{}: {fault}", path.display()))?;
    // `io.k8s.api.apps.v1.X` is `crate::api::apps::v1::X`.
    let module = name.strip_prefix("io.k8s.").unwrap_or(name);
    let rust = format!("crate::{}", module.replace(['.'], "::").replace('-', "_"));
    let constant = |name: &str| {
        let (_, rest) = text.split_once(&format!("const {name}: &'static str = \""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let kind = match (constant("GROUP"), constant("VERSION"), constant("KIND")) {
        (Some(group), Some(version), Some(kind)) => Some(format!("{group}/{version}/{kind}")),
        _ => None,
    };
    let published = Published {
        schema,
        kind,
        list_kind: constant("LIST_KIND"),
    };
    Ok(Some((name.to_owned(), rust, published)))
}

/// Turns Rust paths in `$ref` into full names.
fn resolve(schema: &mut Value, by_path: &BTreeMap<String, String>) -> Fallible<()> {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(path)) = map.get_mut("$ref") {
                let name = by_path.get(path).ok_or(format!("no type {path}"))?;
                *path = name.clone();
            }
            map.values_mut()
                .try_for_each(|value| resolve(value, by_path))
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| resolve(item, by_path)),
        _ => Ok(()),
    }
}

struct Reader<'text> {
    text: &'text str,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        match self.text.strip_prefix(token) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Fallible<()> {
        match self.take(token) {
            true => Ok(()),
            false => {
                let near: String = self.text.chars().take(60).collect();
                Err(format!("expected {token:?} before {near:?}").into())
            }
        }
    }

    fn value(&mut self) -> Fallible<Value> {
        self.skip();
        if self.take("(") {
            let value = self.value()?;
            self.expect(")")?;
            return Ok(value);
        }
        if self.take("__gen.subschema_for::<") {
            return self.reference();
        }
        if self.take("[") {
            return self.list();
        }
        if self.take("{") {
            self.skip();
            return match self.text.starts_with("let ") {
                true => self.block(),
                false => self.object(),
            };
        }
        for (word, value) in [("true", true), ("false", false)] {
            if self.take(word) {
                return Ok(value.into());
            }
        }
        Ok(Value::String(self.string()?))
    }

    /// After `__gen.subschema_for::<`.
    fn reference(&mut self) -> Fallible<Value> {
        let (path, rest) = self.text.split_once(">()").ok_or("reference without end")?;
        self.text = rest;
        Ok(Value::Object(Map::from_iter([(
            "$ref".into(),
            path.into(),
        )])))
    }

    fn list(&mut self) -> Fallible<Value> {
        let mut items = Vec::new();
        while !self.take("]") {
            items.push(self.value()?);
            self.take(",");
        }
        Ok(items.into())
    }

    fn object(&mut self) -> Fallible<Value> {
        let mut map = Map::new();
        while !self.take("}") {
            let key = self.string()?;
            self.expect(":")?;
            map.insert(key, self.value()?);
            self.take(",");
        }
        Ok(Value::Object(map))
    }

    /// `let mut schema_obj = <reference>; schema_obj.ensure_object().insert("k".into(), "v".into()); schema_obj }`
    fn block(&mut self) -> Fallible<Value> {
        self.expect("let mut schema_obj =")?;
        let mut value = self.value()?;
        self.expect(";")?;
        while self.take("schema_obj.ensure_object().insert(") {
            let key = self.string()?;
            self.expect(".into(),")?;
            value[key] = self.value()?;
            self.expect(".into());")?;
        }
        self.expect("schema_obj")?;
        self.expect("}")?;
        Ok(value)
    }

    fn string(&mut self) -> Fallible<String> {
        self.expect("\"")?;
        let mut out = String::new();
        let mut chars = self.text.char_indices();
        while let Some((index, character)) = chars.next() {
            match character {
                '"' => {
                    self.text = &self.text[index + 1..];
                    return Ok(out);
                }
                '\\' => match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some(plain @ ('"' | '\\' | '\'')) => out.push(plain),
                    other => return Err(format!("unknown escape {other:?}").into()),
                },
                plain => out.push(plain),
            }
        }
        Err("text without end".into())
    }
}
