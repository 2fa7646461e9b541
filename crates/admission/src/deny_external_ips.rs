//! DenyServiceExternalIPs: services take no addresses that they do not have already.

use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, spec};

pub(crate) struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(service) = object.filter(|_| written && request.is_on("services")) else {
            return Ok(());
        };
        let old = request.old.map_or(&Value::Null, spec);
        let has = |address: &Value| list(old, "externalIPs").any(|one| one == address);
        match list(spec(service), "externalIPs").all(has) {
            true => Ok(()),
            false => {
                let why = "Use of external IPs is denied by admission control";
                Err(request.refused(object, why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn only_addresses_at_hand_may_stay() {
        let service = |addresses: Value| object(json!({"spec": {"externalIPs": addresses}}));
        let mut asked = request(Operation::Update, "services", "web");
        asked.old = Some(service(json!(["1.1.1.1", "2.2.2.2"])));
        let judge = |given: Value| {
            let given = service(given);
            DenyServiceExternalIps.validate(&asked.borrow(), Some(&given), &World::default())
        };
        assert!(judge(json!(["1.1.1.1"])).is_ok());
        assert!(judge(json!(["3.3.3.3"])).is_err());
    }
}
