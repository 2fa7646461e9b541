//! The group `apiextensions.k8s.io`: custom resources define themselves with it.

use meta::Names;

use crate::plain::Plain;
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let names = Names::cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    );
    let names = names
        .short(&["crd", "crds"])
        .categories(&["api-extensions"]);
    vec![
        Row::new(names, Plain::COLUMNS, Plain::CREATED)
            .status()
            .generation()
            .needs_version(),
    ]
}
