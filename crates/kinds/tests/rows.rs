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
