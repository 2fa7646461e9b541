//! In which form an answer is wanted.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use meta::{Reason, Status};

/// What the answer's objects are turned into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As they are.
    #[default]
    Object,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
}

/// The text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Text {
    #[default]
    Json,
    Yaml,
}

/// The outcome of negotiation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accept {
    pub(crate) shape: Shape,
    pub(crate) text: Text,
    pub(crate) gzip: bool,
}

impl Accept {
    /// Chooses the first acceptable media type; 406 when there is none.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Accept, Status> {
        let gzip = headers
            .get_all(ACCEPT_ENCODING)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().starts_with("gzip")));
        let texts = headers.get_all(ACCEPT).iter();
        let texts: Vec<&str> = texts.filter_map(|value| value.to_str().ok()).collect();
        if texts.iter().all(|text| text.trim().is_empty()) {
            return Ok(Accept {
                gzip,
                ..Accept::default()
            });
        }
        let mut ranges: Vec<(f32, &str)> = texts
            .iter()
            .flat_map(|text| text.split(','))
            .map(|range| (quality(range), range))
            .collect();
        // Stable: equals stay in the order sent.
        ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let chosen = ranges.iter().find_map(|(_, range)| choose(range));
        match chosen {
            Some((shape, text)) => Ok(Accept { shape, text, gzip }),
            None => Err(not_acceptable()),
        }
    }
}

fn quality(range: &str) -> f32 {
    let mut parameters = range.split(';').skip(1).map(str::trim);
    let quality = parameters.find_map(|parameter| parameter.strip_prefix("q="));
    quality.and_then(|text| text.parse().ok()).unwrap_or(1.0)
}

fn choose(range: &str) -> Option<(Shape, Text)> {
    let mut parts = range.split(';').map(str::trim);
    let text = match parts.next()? {
        "application/json" | "application/*" | "*/*" => Text::Json,
        "application/yaml" => Text::Yaml,
        _ => return None,
    };
    let mut shape = Shape::Object;
    for parameter in parts {
        match parameter.split_once('=')? {
            ("as", "Table") => shape = Shape::Table,
            ("as", "PartialObjectMetadata" | "PartialObjectMetadataList") => {
                shape = Shape::Metadata;
            }
            ("as", _) => return None,
            ("g", "meta.k8s.io") | ("v", "v1") => {}
            ("g" | "v", _) => return None,
            _ => {}
        }
    }
    Some((shape, text))
}

fn not_acceptable() -> Status {
    Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Shape, Text), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accept::read(&headers)
            .map(|accept| (accept.shape, accept.text))
            .map_err(|status| status.code)
    }

    #[test]
    fn the_first_acceptable_type_is_chosen() {
        assert_eq!(
            read(
                "application/json;as=Table;v=v1;g=meta.k8s.io,\
                 application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
            ),
            Ok((Shape::Table, Text::Json))
        );
        assert_eq!(
            read("application/vnd.kubernetes.protobuf, application/json"),
            Ok((Shape::Object, Text::Json))
        );
        assert_eq!(read("*/*"), Ok((Shape::Object, Text::Json)));
        assert_eq!(read("application/yaml"), Ok((Shape::Object, Text::Yaml)));
        assert_eq!(
            read("text/html;q=0.9, application/json;q=0.1"),
            Ok((Shape::Object, Text::Json))
        );
        assert_eq!(read("application/vnd.kubernetes.protobuf"), Err(406));
    }
}
