//! Reads `overlay.txt`: facts that the sources lack.

use std::collections::BTreeMap;

use crate::Fallible;

/// By type's full name, then field: the words after it.
#[derive(Default)]
pub(crate) struct Overlay {
    /// `p`, `w` or `o`, see `types::Presence`.
    pub(crate) presence: BTreeMap<(String, String), char>,
    /// Protobuf tags, `outer.inner` for fields that JSON has inline.
    pub(crate) tags: BTreeMap<(String, String), String>,
    /// Marks such as `listType=map`.
    pub(crate) marks: BTreeMap<(String, String), Vec<String>>,
}

/// One fact a line: `pointer|always|omit TYPE FIELD…`, `tag TYPE FIELD=TAG…`, `mark TYPE FIELD NAME=VALUE…`.
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
            "pointer" | "always" | "omit" => {
                let code = match fact {
                    "pointer" => 'p',
                    "always" => 'w',
                    _ => 'o',
                };
                for field in words {
                    overlay
                        .presence
                        .insert((name.clone(), field.to_owned()), code);
                }
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
                let marks = words.map(str::to_owned).collect();
                overlay.marks.insert((name, field), marks);
            }
            other => return Err(format!("unknown fact {other}").into()),
        }
    }
    Ok(overlay)
}
