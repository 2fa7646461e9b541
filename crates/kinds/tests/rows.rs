//! Every built-in kind is there once, and its parts fit together.

use std::collections::BTreeSet;

use serde_json::json;

#[test]
fn rows_fit_together() {
    let now = jiff::Timestamp::now();
    let mut seen = BTreeSet::new();
    let mut short = BTreeSet::new();
    for row in kinds::rows() {
        let names = &row.names;
        assert!(seen.insert(names.path(None, None)), "{names:?} twice");
        for name in &names.short {
            assert!(short.insert(name.clone()), "{name} twice");
        }
        let cells = row.strategy.cells(&json!({}), now);
        assert_eq!(cells.len(), row.columns.len(), "{}", names.kind);
        let fields = row.strategy.selectable_fields(&json!({}));
        let fields: Vec<_> = fields.into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            fields,
            row.strategy.selectable_field_names(),
            "{}",
            names.kind
        );
    }
    assert!(kinds::row("apps", "Deployment").is_some());
    assert!(kinds::row("", "Deployment").is_none());
}

/// Upstream's discovery, line by line.
fn line(names: &meta::Names, row: &kinds::Row) -> String {
    let scope = match names.is_namespaced() {
        true => "namespaced",
        false => "cluster",
    };
    let verbs = match row.verbs {
        kinds::Verbs::All => "all",
        kinds::Verbs::NoDeleteCollection => "one",
        kinds::Verbs::CreateOnly => "create",
        kinds::Verbs::Read => "read",
    };
    let mut line = format!(
        "{}/{} {} {} {scope} short={} in={} {verbs}",
        names.group,
        names.version,
        names.plural,
        names.kind,
        names.short.join(","),
        names.categories.join(","),
    );
    if row.has_status {
        line.push_str(" status");
    }
    if row.scale.is_some() {
        line.push_str(" scale");
    }
    line
}

#[test]
fn kinds_are_called_as_upstream_calls_them() {
    let views = kinds::views().iter().map(|view| {
        let row = view.row().expect("a view of a row");
        line(&view.names, &row)
    });
    let mut lines: Vec<_> = kinds::rows()
        .iter()
        .map(|row| line(&row.names, row))
        .chain(views)
        .collect();
    lines.sort();
    let expected = include_str!("names.txt").lines().skip(1);
    assert_eq!(lines, expected.collect::<Vec<_>>());
}
