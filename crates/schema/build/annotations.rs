//! Reads what `k8s-pb` knows of each field: the protobuf tag and the `+` lines of its comment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Fallible;

/// One protobuf message.
#[derive(Clone, Default)]
pub(crate) struct Message {
    /// Marks of the message itself.
    pub(crate) marks: Marks,
    /// By lower-case name without underscores.
    pub(crate) fields: BTreeMap<String, Annotated>,
}

/// One protobuf field.
#[derive(Clone, Default)]
pub(crate) struct Annotated {
    /// As text; `2.1` for a field with tag 1 of a message that JSON has inline and tag 2 holds.
    pub(crate) tag: String,
    pub(crate) marks: Marks,
}

/// `name` → values, of the lines `+name=value`.
pub(crate) type Marks = BTreeMap<String, Vec<String>>;

/// All messages below a folder, by full name in lower case (`io.k8s.api.apps.v1.deployment`):
/// prost writes `GrpcAction` where the API has `GRPCAction`.
pub(crate) fn read(folder: &Path) -> Fallible<BTreeMap<String, Message>> {
    let mut messages = BTreeMap::new();
    let mut folders = vec![(folder.to_owned(), String::from("io.k8s"))];
    while let Some((next, name)) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let base = path
                .file_name()
                .map(|name| name.to_string_lossy().replace('_', "-"));
            let base = base.unwrap_or_default();
            if path.is_dir() {
                folders.push((path, format!("{name}.{base}")));
            } else if base == "mod.rs" {
                read_file(&fs::read_to_string(&path)?, &name, &mut messages);
            }
        }
    }
    Ok(messages)
}

fn read_file(text: &str, module: &str, messages: &mut BTreeMap<String, Message>) {
    let mut marks: Marks = BTreeMap::new();
    let mut tag = String::new();
    let mut message: Option<(String, Message)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(mark) = line.strip_prefix("/// +") {
            let (name, value) = mark.split_once('=').unwrap_or((mark, ""));
            marks
                .entry(name.to_owned())
                .or_default()
                .push(value.to_owned());
        } else if let Some(attribute) = line.strip_prefix("#[prost(") {
            tag = tag_of(attribute);
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = rest.trim_end_matches([' ', '{', '}']);
            let start = Message {
                marks: std::mem::take(&mut marks),
                fields: BTreeMap::new(),
            };
            message = Some((format!("{module}.{name}").to_lowercase(), start));
            if rest.ends_with("{}") {
                messages.extend(message.take());
            }
        } else if let (Some((_, message)), Some(rest)) = (&mut message, line.strip_prefix("pub ")) {
            let name = rest.split(':').next().unwrap_or(rest);
            let field = Annotated {
                tag: std::mem::take(&mut tag),
                marks: std::mem::take(&mut marks),
            };
            message.fields.insert(plain(name), field);
        } else if line == "}" {
            messages.extend(message.take());
        }
    }
}

/// `r#type` and `cluster_ip` as `type` and `clusterip`.
pub(crate) fn plain(name: &str) -> String {
    name.trim_start_matches("r#")
        .replace(['_', '$', '-'], "")
        .to_lowercase()
}

fn tag_of(attribute: &str) -> String {
    let rest = attribute
        .split_once("tag = \"")
        .map_or("", |(_, rest)| rest);
    rest.split_once('"')
        .map_or("", |(digits, _)| digits)
        .to_owned()
}
