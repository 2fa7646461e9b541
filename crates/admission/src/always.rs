//! AlwaysAdmit and AlwaysDeny: for tests of clusters only.

use meta::{Object, Status};

use crate::plugin::{Lookup, Plugin, Request};

pub(crate) struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }
}

pub(crate) struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        Err(request.refused(Some(object), WHY))
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        Err(request.refused(object, WHY))
    }
}

const WHY: &str = "admission control is denying all modifications";
