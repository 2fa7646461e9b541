//! Reads `overlay.txt`: facts that the sources lack.

use std::collections::BTreeMap;

use crate::Fallible;

/// By type's full name, then field: the words after it.
#[derive(Default)]
pub(crate) struct Overlay {
    /// `p`, `w`, `n` or `o`, see `types::Presence`.
    pub(crate) presence: BTreeMap<(String, String), char>,
    /// Whether a field is required, where `k8s-openapi` says otherwise.
    pub(crate) required: BTreeMap<(String, String), bool>,
    /// Messages that JSON has inline: the outer message, the tag that holds it, its name.
    pub(crate) inline: Vec<(String, String, String)>,
    /// Protobuf tags.
    pub(crate) tags: BTreeMap<(String, String), String>,
    /// Marks such as `listType=map`.
    pub(crate) marks: BTreeMap<(String, String), Vec<String>>,
}

/// One fact a line: `pointer|always|nullable|omit TYPE FIELD…`, `tag TYPE FIELD=TAG…`,
/// `required|optional TYPE FIELD…`, `inline TYPE TAG TYPE`, `mark TYPE FIELD NAME=VALUE…`
/// with `~` for spaces.
pub(crate) fn read(text: &str) -> Fallible<Overlay> {
    let mut overlay = Overlay::default();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let mut words = line.split_whitespace();
        let fact = words.next().ok_or("no fact")?;
        let name = format!("io.k8s.{}", words.next().ok_or("no type")?);
        match fact {
            "pointer" | "always" | "nullable" | "omit" => {
                let code = match fact {
                    "pointer" => 'p',
                    "always" => 'w',
                    "nullable" => 'n',
                    _ => 'o',
                };
                for field in words {
                    overlay
                        .presence
                        .insert((name.clone(), field.to_owned()), code);
                }
            }
            "required" | "optional" => {
                let required = fact == "required";
                overlay
                    .required
                    .extend(words.map(|field| ((name.clone(), field.to_owned()), required)));
            }
            "inline" => {
                let tag = words.next().ok_or("no tag")?.to_owned();
                let inner = format!("io.k8s.{}", words.next().ok_or("no message")?);
                overlay.inline.push((name, tag, inner));
            }
            "tag" => {
                for word in words {
                    let (field, tag) = word.split_once('=').ok_or("no tag")?;
                    overlay
                        .tags
                        .insert((name.clone(), field.to_owned()), tag.to_owned());
                }
            }
            "mark" => {
                let field = words.next().ok_or("no field")?.to_owned();
                let marks = words.map(|word| word.replace('~', " "));
                overlay
                    .marks
                    .entry((name, field))
                    .or_default()
                    .extend(marks);
            }
            other => return Err(format!("unknown fact {other}").into()),
        }
    }
    Ok(overlay)
}
