//! What servers answer besides single objects: lists put together of encoded items, events of
//! watches, and the few kinds whose shape is not published.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::wire::Writer;
use super::{MAGIC, encode, seal};
use crate::types::{Field, Heads, ListKind, PatchStrategy, Presence, Shape, Text, Type, TypeRef};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// `contentEncoding` and `contentType` of an envelope, both empty.
const TAIL: [u8; 4] = [3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// The envelope of any built-in kind, found by the tree's own `apiVersion` and `kind`; `None` for
/// kinds that have no protobuf form.
pub fn seal_tree(tree: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = (tree["apiVersion"].as_str()?, tree["kind"].as_str()?);
    let raw = raw_of(api_version, kind, tree)?;
    Some(seal(api_version, kind, &raw))
}

fn raw_of(api_version: &str, kind: &str, tree: &Value) -> Option<Vec<u8>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    match (group, kind) {
        ("meta.k8s.io", "PartialObjectMetadata") => Some(metadata(&tree["metadata"])),
        ("meta.k8s.io", "PartialObjectMetadataList") => {
            let items = tree["items"].as_array().into_iter().flatten();
            let items: Vec<Vec<u8>> = items.map(|item| metadata(&item["metadata"])).collect();
            let mut out = list_metadata(&tree["metadata"]);
            items.iter().for_each(|item| out.bytes(2, item));
            Some(out.finish())
        }
        ("apidiscovery.k8s.io", "APIGroupDiscoveryList") => Some(encode(&DISCOVERY, tree)),
        _ => Some(encode(crate::builtin(group, version, kind)?, tree)),
    }
}

/// `PartialObjectMetadata` with this metadata, without envelope.
pub fn metadata(metadata: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    match crate::named(&format!("{META}.ObjectMeta")) {
        Some(ty) => out.bytes(1, &encode(ty, metadata)),
        None => out.bytes(1, b""),
    }
    out.finish()
}

fn list_metadata(metadata: &Value) -> Writer {
    let mut out = Writer::default();
    match crate::named(&format!("{META}.ListMeta")) {
        Some(ty) => out.bytes(1, &encode(ty, metadata)),
        None => out.bytes(1, b""),
    }
    out
}

/// The beginning of a list's envelope; [`item_head`] and the item's message follow for each item,
/// and [`LIST_END`] after the last. `items` are the lengths of their messages.
pub fn list_head(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = usize>,
) -> Vec<u8> {
    let head = list_metadata(metadata).finish();
    let items: usize = items.map(|length| item_head(length).len() + length).sum();
    let mut out = Writer::default();
    out.message(1, |meta| {
        meta.bytes(1, api_version.as_bytes());
        meta.bytes(2, kind.as_bytes());
    });
    out.length(2, head.len() + items);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&out.finish());
    bytes.extend_from_slice(&head);
    bytes
}

/// What stands before an item of a list.
pub fn item_head(length: usize) -> Vec<u8> {
    let mut out = Writer::default();
    out.length(2, length);
    out.finish()
}

/// The end of a list's envelope.
pub const LIST_END: [u8; 4] = TAIL;

/// One event of a watch: its length in four bytes, and a `WatchEvent` around the sealed object.
pub fn watch_frame(event: &str, sealed: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, event.as_bytes());
    out.message(2, |object| object.bytes(1, sealed));
    let event = out.finish();
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&event);
    frame
}

/// `apidiscovery.k8s.io` is served and not published.
static DISCOVERY: LazyLock<Type> = LazyLock::new(|| {
    let text = || Shape::Text;
    let list = |item: Shape| Shape::List(Box::new(item), ListKind::Atomic);
    let of = |ty: Type| Shape::Struct(TypeRef::Owned(Arc::new(ty)));
    let meta = |name: &str| match crate::table::reference(&format!("{META}.{name}")) {
        Some(reference) => Shape::Struct(reference),
        None => Shape::Raw,
    };
    let kind = || {
        let fields = vec![
            field("group", 1, text()),
            field("version", 2, text()),
            field("kind", 3, text()),
        ];
        of(structure("GroupVersionKind", fields))
    };
    let subresource = structure(
        "APISubresourceDiscovery",
        vec![
            field("subresource", 1, text()),
            pointer("responseKind", 2, kind()),
            field("acceptedTypes", 3, list(kind())),
            field("verbs", 4, list(text())),
        ],
    );
    let resource = structure(
        "APIResourceDiscovery",
        vec![
            field("resource", 1, text()),
            pointer("responseKind", 2, kind()),
            field("scope", 3, text()),
            field("singularResource", 4, text()),
            field("verbs", 5, list(text())),
            field("shortNames", 6, list(text())),
            field("categories", 7, list(text())),
            field("subresources", 8, list(of(subresource))),
        ],
    );
    let version = structure(
        "APIVersionDiscovery",
        vec![
            field("version", 1, text()),
            field("resources", 2, list(of(resource))),
            field("freshness", 3, text()),
        ],
    );
    let group = structure(
        "APIGroupDiscovery",
        vec![
            field("metadata", 1, meta("ObjectMeta")),
            field("versions", 2, list(of(version))),
        ],
    );
    structure(
        "APIGroupDiscoveryList",
        vec![
            field("metadata", 1, meta("ListMeta")),
            field("items", 2, list(of(group))),
        ],
    )
});

fn structure(name: &'static str, mut fields: Vec<Field>) -> Type {
    fields.sort_by(|a, b| a.json.cmp(&b.json));
    Type {
        name: Text::Borrowed(name),
        doc: Text::Borrowed(""),
        kinds: Vec::new(),
        fields,
        atomic: false,
        keep_unknown: false,
        heads: Heads::default(),
    }
}

fn field(json: &'static str, tag: u32, shape: Shape) -> Field {
    Field {
        json: Text::Borrowed(json),
        tag,
        within: Vec::new(),
        shape,
        required: false,
        presence: Presence::Always,
        patch: PatchStrategy::default(),
        patch_merge_key: None,
        default: None,
        enumeration: Vec::new(),
        doc: Text::Borrowed(""),
    }
}

fn pointer(json: &'static str, tag: u32, shape: Shape) -> Field {
    Field {
        presence: Presence::Pointer,
        ..field(json, tag, shape)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protobuf::{decode, open};

    #[test]
    fn a_list_of_pieces_is_the_list_encoded_at_once() {
        let tree = json!({"apiVersion": "v1", "kind": "ConfigMapList",
            "metadata": {"resourceVersion": "7", "remainingItemCount": 3},
            "items": [{"metadata": {"name": "a"}, "data": {"k": "x".repeat(300)}},
                {"metadata": {"name": "b"}}]});
        let item = crate::builtin("", "v1", "ConfigMap").unwrap();
        let items: Vec<Vec<u8>> = tree["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tree| encode(item, tree))
            .collect();
        let lengths = items.iter().map(Vec::len);
        let mut bytes = list_head("v1", "ConfigMapList", &tree["metadata"], lengths);
        for item in &items {
            bytes.extend(item_head(item.len()));
            bytes.extend(item);
        }
        bytes.extend(LIST_END);
        assert_eq!(bytes, seal_tree(&tree).unwrap());
        let list = crate::builtin("", "v1", "ConfigMapList").unwrap();
        let back = decode(list, open(&bytes).unwrap().raw).unwrap();
        assert_eq!(back["items"][0]["metadata"]["name"], "a");
        assert_eq!(back["metadata"]["remainingItemCount"], 3);
    }

    #[test]
    fn kinds_that_are_not_published_have_a_form_too() {
        let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
            "metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "a"}}]});
        let sealed = seal_tree(&list).unwrap();
        // Messages of objects have their metadata first, whatever follows.
        let maps = crate::builtin("", "v1", "ConfigMapList").unwrap();
        let back = decode(maps, open(&sealed).unwrap().raw).unwrap();
        assert_eq!(back["metadata"]["resourceVersion"], "9");
        assert_eq!(back["items"][0]["metadata"]["name"], "a");
        let groups = json!({"apiVersion": "apidiscovery.k8s.io/v2", "kind": "APIGroupDiscoveryList",
            "metadata": {}, "items": [{"metadata": {"name": "apps"}, "versions": [{"version": "v1",
                "freshness": "Current", "resources": [{"resource": "deployments",
                "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                "scope": "Namespaced", "singularResource": "deployment", "verbs": ["get"]}]}]}]});
        let sealed = seal_tree(&groups).unwrap();
        let back = decode(&DISCOVERY, open(&sealed).unwrap().raw).unwrap();
        let resource = &back["items"][0]["versions"][0]["resources"][0];
        assert_eq!(resource["responseKind"]["kind"], "Deployment");
        assert_eq!(resource["verbs"], json!(["get"]));
        let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "code": 404,
            "reason": "NotFound", "details": {"name": "x"}});
        let sealed = seal_tree(&status).unwrap();
        let ty = crate::builtin("", "v1", "Status").unwrap();
        assert_eq!(decode(ty, open(&sealed).unwrap().raw).unwrap()["code"], 404);
        assert_eq!(
            seal_tree(&json!({"apiVersion": "example.com/v1", "kind": "Thing"})),
            None
        );
    }

    #[test]
    fn verbs_are_a_message_of_their_own() {
        let ty = crate::named("io.k8s.apimachinery.pkg.apis.meta.v1.APIResource").unwrap();
        let bytes = encode(ty, &json!({"name": "a", "verbs": ["get", "list"]}));
        let verbs = b"\x22\x0b\x0a\x03get\x0a\x04list";
        assert!(
            bytes.windows(verbs.len()).any(|part| part == verbs),
            "{bytes:?}"
        );
        assert_eq!(decode(ty, &bytes).unwrap()["verbs"], json!(["get", "list"]));
    }

    #[test]
    fn frames_say_their_length() {
        let frame = watch_frame("ADDED", b"object");
        assert_eq!(frame, b"\0\0\0\x11\x0a\x05ADDED\x12\x08\x0a\x06object");
    }
}
