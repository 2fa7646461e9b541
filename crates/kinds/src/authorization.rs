//! The group `authorization.k8s.io`: questions about permissions, never kept.

use meta::Names;

use crate::plain::Plain;
use crate::row::{Row, Verbs};

const GROUP: &str = "authorization.k8s.io";

#[rustfmt::skip]
pub(crate) fn rows() -> Vec<Row> {
    let row = |names| Row::new(names, Plain::COLUMNS, Plain::ANSWER).verbs(Verbs::CreateOnly);
    vec![
        row(Names::namespaced(GROUP, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews")),
        row(Names::cluster(GROUP, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews")),
        row(Names::cluster(GROUP, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews")),
        row(Names::cluster(GROUP, "v1", "SubjectAccessReview", "subjectaccessreviews")),
    ]
}
