//! Files of a pod's volumes that stand in each other's way.

use serde_json::Value;

use crate::spot::Spot;
use crate::tree::Tree;

/// A file and what puts it there.
#[derive(Clone, PartialEq, Eq)]
struct File {
    path: String,
    source: String,
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source.as_str() {
            "" => write!(f, "{:?}", self.path),
            source => write!(f, "{:?} ({source})", self.path),
        }
    }
}

/// Warnings about volumes two of whose files have one path, or paths below each other.
pub(super) fn overlapping(spec: &Spot<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for volume in spec.items("volumes") {
        let name = volume.text("name");
        let mut say = |what: &str, files: Vec<File>| {
            let clashes = clashes(files).into_iter();
            warnings.extend(
                clashes
                    .map(|clash| format!("volume {name:?} ({what}): overlapping paths: {clash}")),
            );
        };
        for (field, word, named) in [
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
        ] {
            let source = volume.at(field);
            if !source.is_null() {
                let what = format!("{word} {:?}", source.text(named));
                say(&what, files(source, ""));
            }
        }
        say("DownwardAPI", files(volume.at("downwardAPI"), ""));
        let mut all = Vec::new();
        for source in volume.items("projected.sources") {
            match source
                .value
                .as_object()
                .is_none_or(serde_json::Map::is_empty)
            {
                true => warnings.push(format!(
                    "volume {name:?} (Projected) has no sources provided"
                )),
                false => all.extend(projected(&source)),
            }
        }
        let clashes = clashes(all).into_iter();
        warnings.extend(
            clashes.map(|clash| format!("volume {name:?} (Projected): overlapping paths: {clash}")),
        );
    }
    warnings
}

fn files(source: &Value, from: &str) -> Vec<File> {
    let items = source.list("items").iter();
    items.map(|item| file(item.text("path"), from)).collect()
}

fn file(path: &str, source: &str) -> File {
    File {
        path: path.trim_end_matches('/').to_owned(),
        source: source.to_owned(),
    }
}

/// The files of one source of a projected volume.
fn projected(source: &Spot<'_>) -> Vec<File> {
    for (field, word) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
        let own = source.child(field);
        if own.has("items") {
            return files(&own, &format!("{word} {:?}", own.text("name")));
        }
    }
    if source.has("downwardAPI.items") {
        return files(&source.child("downwardAPI"), "DownwardAPI");
    }
    if let Some(token) = source.some("serviceAccountToken") {
        return vec![file(token.text("path"), "ServiceAccountToken")];
    }
    if let Some(bundle) = source.some("clusterTrustBundle") {
        let name = match bundle.has("name") {
            true => bundle.text("name"),
            false => bundle.text("signerName"),
        };
        return vec![file(
            bundle.text("path"),
            &format!("ClusterTrustBundle {name:?}"),
        )];
    }
    let parts = [
        ("certificateChainPath", "PodCertificate chain"),
        ("keyPath", "PodCertificate key"),
        ("credentialBundlePath", "PodCertificate credential bundle"),
    ];
    let certificate = source.child("podCertificate");
    let parts = parts
        .into_iter()
        .filter(|(field, _)| !certificate.text(field).is_empty());
    parts
        .map(|(field, word)| file(certificate.text(field), word))
        .collect()
}

/// Each file with those before it that it clashes with.
fn clashes(files: Vec<File>) -> Vec<String> {
    let mut found = Vec::new();
    for (index, file) in files
        .iter()
        .enumerate()
        .filter(|(_, file)| !file.path.is_empty())
    {
        let below = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let clashing = files[..index].iter().filter(|other| {
            !other.path.is_empty()
                && (below(&other.path, &file.path) || below(&file.path, &other.path))
        });
        found.extend(clashing.map(|other| format!("{file} with {other}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_below_files_are_pointed_out() {
        let items = |paths: &[&str]| {
            let items: Vec<_> = paths
                .iter()
                .map(|path| json!({"key": "k", "path": path}))
                .collect();
            json!(items)
        };
        let pod = json!({"spec": {"volumes": [
            {"name": "a", "configMap": {"name": "m", "items": items(&["x", "x/y", "xy"])}},
            {"name": "b", "projected": {"sources": [
                {"secret": {"name": "s", "items": items(&["token", "z/"])}},
                {"serviceAccountToken": {"path": "token"}}, {},
                {"downwardAPI": {"items": items(&["z"])}}]}},
            {"name": "c", "secret": {"secretName": "s", "items": items(&["p", "q"])}},
        ]}});
        assert_eq!(
            overlapping(&Spot::new(&pod, "spec")),
            [
                "volume \"a\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\"",
                "volume \"b\" (Projected) has no sources provided",
                "volume \"b\" (Projected): overlapping paths: \"token\" (ServiceAccountToken) with \
                 \"token\" (Secret \"s\")",
                "volume \"b\" (Projected): overlapping paths: \"z\" (DownwardAPI) with \"z\" \
                 (Secret \"s\")",
            ]
        );
    }
}
