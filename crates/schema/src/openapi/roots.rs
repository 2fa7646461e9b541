//! Documents of paths that belong to no version: what groups there are, and what the server is.

use serde_json::{Map, Value, json};

use super::paths::{BODIES, META, words};
use super::schemas::Schemas;

/// Paths with a document of their own, besides those of groups.
pub const ROOTS: [&str; 5] = [
    ".well-known/openid-configuration",
    "api",
    "apis",
    "openid/v1/jwks",
    "version",
];

/// The one operation of such a path.
struct Operation {
    tag: String,
    id: String,
    text: &'static str,
    /// A type by name; texts otherwise.
    answer: Option<&'static str>,
    media: &'static [&'static str],
}

/// The document of one of [`ROOTS`] or of `apis/<group>`.
pub fn root(path: &str) -> Option<Value> {
    let operation = operation(path)?;
    let mut schemas = Schemas::default();
    let schema = match operation.answer {
        Some(name) => {
            let package = match name {
                "Info" => "io.k8s.apimachinery.pkg.version",
                _ => META,
            };
            schemas.reference(&format!("{package}.{name}"))
        }
        None => json!({"type": "string"}),
    };
    let media = operation.media.iter();
    let content: Map<String, Value> = media
        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
        .collect();
    let get = json!({
        "tags": [operation.tag], "description": operation.text, "operationId": operation.id,
        "responses": {
            "200": {"description": "OK", "content": content},
            "401": {"description": "Unauthorized"},
        },
    });
    let mut paths = Map::new();
    paths.insert(format!("/{path}/"), json!({"get": get}));
    Some(super::whole(paths, schemas))
}

fn operation(path: &str) -> Option<Operation> {
    const JSON: &[&str] = &["application/json"];
    let of = |tag: &str, id: &str, text, answer, media| Operation {
        tag: tag.to_owned(),
        id: id.to_owned(),
        text,
        answer,
        media,
    };
    Some(match path {
        "api" => of(
            "core",
            "getCoreAPIVersions",
            "get available API versions",
            Some("APIVersions"),
            &BODIES,
        ),
        "apis" => of(
            "apis",
            "getAPIVersions",
            "get available API versions",
            Some("APIGroupList"),
            &BODIES,
        ),
        "version" => of(
            "version",
            "getCodeVersion",
            "get the version information for this server",
            Some("Info"),
            JSON,
        ),
        ".well-known/openid-configuration" => of(
            "WellKnown",
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery \
             doc'",
            None,
            JSON,
        ),
        "openid/v1/jwks" => of(
            "openid",
            "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token \
             verification keys)",
            None,
            &["application/jwk-set+json"],
        ),
        path => {
            let group = path.strip_prefix("apis/")?;
            let tag = super::paths::group_tag(group);
            let id = format!("get{}APIGroup", words(&tag));
            let answer = Some("APIGroup");
            of(&tag, &id, "get information of a group", answer, &BODIES)
        }
    })
}
