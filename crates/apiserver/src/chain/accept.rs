//! In which form an answer is wanted.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use meta::{Reason, Status};

use serde_json::Value;

use super::Query;
use crate::protobuf;

/// The kind of an object without all but its metadata.
const METADATA_KIND: &str = "PartialObjectMetadata";

/// What the answer's objects are turned into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As they are.
    #[default]
    Object,
    /// `meta.k8s.io Table`.
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
    /// All groups in one document; only discovery has it.
    Groups,
}

/// The encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Media {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    /// In the order in which a wildcard chooses.
    const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

/// What the endpoint can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Whether objects have a protobuf form; metadata always has.
    pub(crate) protobuf: bool,
    /// Whether objects may be turned into tables and metadata.
    pub(crate) shapes: bool,
    /// Whether tables are among them.
    pub(crate) tables: bool,
    /// Whether all groups may be had in one document.
    pub(crate) groups: bool,
    /// Whether the answer is a stream, which YAML cannot be.
    pub(crate) stream: bool,
}

impl Offer {
    /// What answers are that are no objects of a resource: statuses, discovery.
    pub(crate) const PLAIN: Offer = Offer {
        protobuf: true,
        shapes: false,
        tables: false,
        groups: false,
        stream: false,
    };
    /// The media types of objects and of discovery.
    pub(crate) const PRODUCED: [&str; 3] =
        ["application/json", "application/yaml", protobuf::MEDIA_TYPE];
    /// Those of collections, which may be watched.
    pub(crate) const PRODUCED_OF_MANY: [&str; 5] = [
        Offer::PRODUCED[0],
        Offer::PRODUCED[1],
        Offer::PRODUCED[2],
        "application/json;stream=watch",
        protobuf::STREAM_TYPE,
    ];
    /// What the roots of discovery answer.
    pub(crate) const GROUPS: Offer = Offer {
        groups: true,
        ..Offer::PLAIN
    };
}

/// The outcome of negotiation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accept {
    pub(crate) shape: Shape,
    pub(crate) media: Media,
    pub(crate) gzip: bool,
    /// Whether shapes are of `meta.k8s.io/v1beta1`.
    pub(crate) beta: bool,
    /// Whether metadata was asked for as a list.
    pub(crate) many: bool,
    /// Whether JSON is indented, for people.
    pub(crate) pretty: bool,
}

impl Accept {
    /// Chooses the acceptable media type that is wanted most; 406 when there is none.
    pub(crate) fn read(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Accept, Status> {
        let base = Accept::usual(headers, query);
        let mut texts = headers.get_all(ACCEPT).iter();
        let texts = texts.by_ref().filter_map(|value| value.to_str().ok());
        let text = texts.collect::<Vec<&str>>().join(",");
        if text.trim().is_empty() || text == "application/json" {
            return Ok(base);
        }
        let mut clauses: Vec<Clause<'_>> = text.split(',').filter_map(Clause::read).collect();
        // Stable: equals stay in the order sent.
        clauses.sort_by(|a, b| b.rank().total_cmp(&a.rank()));
        let chosen = clauses.iter().find_map(|clause| clause.choose(offer, base));
        match chosen {
            Some(accept) if !(offer.stream && accept.media == Media::Yaml) => Ok(accept),
            Some(_) => Err(not_acceptable(offer)),
            // The form is chosen first, as if it were no stream.
            None => Err(not_acceptable(Offer {
                stream: false,
                ..offer
            })),
        }
    }

    /// 406 as upstream's router has it, for whoever names no media type that the route produces,
    /// word for word, nor all of them; the rest is negotiated.
    pub(crate) fn refused_by_router(headers: &HeaderMap, produced: &[&str]) -> Option<Status> {
        let texts = headers.get_all(ACCEPT).iter();
        let texts = texts.filter_map(|value| value.to_str().ok());
        let text = texts.collect::<Vec<&str>>().join(",");
        let known = |range: &str| {
            let range = range.split(';').next().unwrap_or(range).trim();
            range == "*/*" || produced.contains(&range)
        };
        if text.trim().is_empty() || text.split(',').any(known) {
            return None;
        }
        let names = produced.join(", ");
        let text = format!("406: Not Acceptable\n\nAvailable representations: {names}");
        Some(Status::new(Reason::NotAcceptable, text))
    }

    /// JSON, whatever media types are named.
    pub(crate) fn usual(headers: &HeaderMap, query: &Query) -> Accept {
        let codings = headers.get_all(ACCEPT_ENCODING).iter();
        let mut codings = codings.filter_map(|value| value.to_str().ok());
        Accept {
            gzip: codings.any(|value| value.split(',').any(|part| part.trim().starts_with("gzip"))),
            pretty: wants_pretty(headers, query),
            ..Accept::default()
        }
    }

    /// A table or metadata in the version asked for.
    pub(crate) fn versioned(&self, mut tree: Value) -> Value {
        const BETA: &str = "meta.k8s.io/v1beta1";
        if !self.beta {
            return tree;
        }
        tree["apiVersion"] = BETA.into();
        for row in ["rows", "items"] {
            let parts = tree.get_mut(row).and_then(Value::as_array_mut);
            for part in parts.into_iter().flatten() {
                let object = match row {
                    "rows" => part.get_mut("object"),
                    _ => Some(part),
                };
                if let Some(object) = object.filter(|own| own["kind"] == METADATA_KIND) {
                    object["apiVersion"] = BETA.into();
                }
            }
        }
        tree
    }
}

/// As upstream: by parameter, or because a person looks.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(word) = query.get("pretty") {
        return matches!(word, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|person| agent.starts_with(person))
}

/// One range of the header.
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn read(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let range = parts.next().filter(|range| !range.is_empty())?;
        let (kind, subtype) = match range {
            "*" => ("*", "*"),
            range => range.split_once('/')?,
        };
        let pairs = parts.filter_map(|part| part.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.trim(), value.trim().trim_matches('"')));
        let (quality, parameters): (Vec<_>, Vec<_>) = pairs.partition(|(key, _)| *key == "q");
        let quality = quality.first().and_then(|(_, value)| value.parse().ok());
        Some(Clause {
            kind,
            subtype,
            parameters,
            quality: quality.unwrap_or(1.0),
        })
    }

    /// By quality, then by how much is said.
    fn rank(&self) -> f32 {
        let said = f32::from(u8::from(self.kind != "*")) + f32::from(u8::from(self.subtype != "*"));
        self.quality * 10.0 + said
    }

    fn choose(&self, offer: Offer, base: Accept) -> Option<Accept> {
        Media::ALL.iter().find_map(|media| {
            let (kind, subtype) = media.name().split_once('/')?;
            let meant = matches!(self.kind, "*") || self.kind == kind;
            let fits = meant && (self.subtype == "*" || self.subtype == subtype);
            if fits {
                self.with(*media, offer, base)
            } else {
                None
            }
        })
    }

    /// The form that the parameters ask for, if there is one.
    fn with(&self, media: Media, offer: Offer, base: Accept) -> Option<Accept> {
        let get = |key: &str| {
            let mut own = self.parameters.iter().filter(|(own, _)| *own == key);
            own.next_back().map(|(_, value)| *value)
        };
        if get("stream").is_some_and(|word| !word.is_empty() && word != "watch")
            || (get("stream") == Some("watch") && media == Media::Yaml)
        {
            return None;
        }
        let (shape, beta) = match (get("as"), get("g"), get("v")) {
            (None, None, None) => (Shape::Object, false),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some(version))
                if offer.groups && matches!(version, "v2" | "v2beta1") =>
            {
                (Shape::Groups, version == "v2beta1")
            }
            _ if !offer.shapes => return None,
            (Some(kind), Some("meta.k8s.io"), Some(version @ ("v1" | "v1beta1"))) => {
                let shape = match kind {
                    // Cells are of any type, for which protobuf has none.
                    "Table" if offer.tables && media != Media::Protobuf => Shape::Table,
                    "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
                    _ => return None,
                };
                (shape, version == "v1beta1")
            }
            _ => return None,
        };
        if shape == Shape::Object && media == Media::Protobuf && !offer.protobuf {
            return None;
        }
        Some(Accept {
            shape,
            media,
            beta,
            many: get("as") == Some("PartialObjectMetadataList"),
            pretty: get("pretty").map_or(base.pretty, |word| word == "1"),
            gzip: base.gzip,
        })
    }
}

fn not_acceptable(offer: Offer) -> Status {
    let offered = |media: &&Media| match media {
        Media::Json => true,
        Media::Yaml => !offer.stream,
        Media::Protobuf => offer.protobuf,
    };
    let suffix = if offer.stream { ";stream=watch" } else { "" };
    let names = Media::ALL.iter().filter(offered);
    let names: Vec<String> = names
        .map(|media| format!("{}{suffix}", media.name()))
        .collect();
    Status::new(
        Reason::NotAcceptable,
        format!(
            "only the following media types are accepted: {}",
            names.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offer = Offer {
        protobuf: true,
        shapes: true,
        tables: true,
        groups: false,
        stream: false,
    };

    fn read(text: &str, offer: Offer) -> Result<(Shape, Media), u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accept::read(&headers, &Query::default(), offer)
            .map(|accept| (accept.shape, accept.media))
            .map_err(|status| status.code)
    }

    #[test]
    fn what_is_wanted_most_and_can_be_had_is_chosen() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                     application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(read(table, ALL), Ok((Shape::Table, Media::Json)));
        assert_eq!(read(table, Offer::PLAIN), Ok((Shape::Object, Media::Json)));
        let go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(read(go, ALL), Ok((Shape::Object, Media::Protobuf)));
        let custom = Offer {
            protobuf: false,
            ..ALL
        };
        assert_eq!(read(go, custom), Ok((Shape::Object, Media::Json)));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;\
                       g=meta.k8s.io;v=v1";
        assert_eq!(
            read(partial, custom),
            Ok((Shape::Metadata, Media::Protobuf))
        );
        let yaml = "application/yaml";
        assert_eq!(read(yaml, ALL), Ok((Shape::Object, Media::Yaml)));
        let stream = Offer {
            stream: true,
            ..ALL
        };
        assert_eq!(read(yaml, stream), Err(406));
        assert_eq!(read("*/*", ALL), Ok((Shape::Object, Media::Json)));
        assert_eq!(
            read(
                "application/json;q=0.1, application/yaml;q=0.9, text/html",
                ALL
            ),
            Ok((Shape::Object, Media::Yaml))
        );
        assert_eq!(
            read("*/*, application/vnd.kubernetes.protobuf", ALL),
            Ok((Shape::Object, Media::Protobuf))
        );
        let no_table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
        assert_eq!(read(no_table, ALL), Err(406));
        assert_eq!(read("text/plain", ALL), Err(406));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, "text/html".parse().unwrap());
        assert_eq!(
            Accept::refused_by_router(&headers, &Offer::PRODUCED)
                .unwrap()
                .message,
            "406: Not Acceptable\n\nAvailable representations: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf"
        );
        headers.insert(ACCEPT, "application/json;as=Table".parse().unwrap());
        let refused = |headers: &HeaderMap| {
            Accept::refused_by_router(headers, &Offer::PRODUCED_OF_MANY).is_some()
        };
        assert!(!refused(&headers));
        headers.insert(ACCEPT, "application/*".parse().unwrap());
        assert!(refused(&headers));
        headers.insert(ACCEPT, "text/html, */*;q=0.1".parse().unwrap());
        assert!(!refused(&headers));
        assert!(!refused(&HeaderMap::new()));
        let watched = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            let refused = Accept::read(&headers, &Query::default(), stream).unwrap_err();
            refused.message.contains("stream=watch")
        };
        assert!(watched("application/yaml"));
        assert!(!watched("application/json;as=Table"));
        assert_eq!(read("application/json;stream=other", ALL), Err(406));
        assert_eq!(
            read("application/json;as=Table;g=other;v=v1", ALL),
            Err(406)
        );
    }

    #[test]
    fn people_get_indented_json() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "curl/8.1".parse().unwrap());
        let pretty = |headers: &HeaderMap, query: &str| {
            let query = Query::parse(query).unwrap();
            Accept::read(headers, &query, ALL).unwrap().pretty
        };
        assert!(pretty(&headers, ""));
        assert!(!pretty(&headers, "pretty=false"));
        assert!(pretty(&HeaderMap::new(), "pretty=true"));
        assert!(!pretty(&HeaderMap::new(), ""));
    }
}
