//! The group `authentication.k8s.io`: questions about identities, never kept.

use meta::Names;

use crate::plain::Plain;
use crate::row::{Row, Verbs};

pub(crate) fn rows() -> Vec<Row> {
    let row = |kind, plural| {
        let names = Names::cluster("authentication.k8s.io", "v1", kind, plural);
        Row::new(names, Plain::COLUMNS, Plain::ANSWER).verbs(Verbs::CreateOnly)
    };
    vec![
        row("SelfSubjectReview", "selfsubjectreviews"),
        row("TokenReview", "tokenreviews"),
    ]
}
