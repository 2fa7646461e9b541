//! Nobody hands out permissions that he does not hold.

use super::rule::{described, quoted, uncovered};
use super::{Rbac, Rule};
use crate::identity::Identity;

impl Rbac {
    /// Whether the user holds all of `wanted` in a namespace (empty: cluster-wide); the error is
    /// upstream's sentence.
    pub fn confirm_held(
        &self,
        identity: &Identity,
        namespace: &str,
        wanted: &[Rule],
    ) -> Result<(), String> {
        let missing = uncovered(&self.rules_for(identity, namespace), wanted);
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            identity.name,
            quoted(&identity.groups),
            described(missing)
        ))
    }
}
