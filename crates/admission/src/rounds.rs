//! Who is asked once more when an object has changed since: upstream's reinvocation.

use std::collections::BTreeSet;

use serde_json::Value;

/// Which policies, or which webhooks, a second pass is to ask again.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Asked since the last change, and willing to be asked again.
    called: BTreeSet<String>,
    again: BTreeSet<String>,
    /// What the last pass left behind.
    output: Option<Value>,
}

impl Rounds {
    /// The second pass begins with this object; others may have changed it since the first.
    pub fn begin_again(&mut self, object: &Value) {
        if self.output.as_ref() != Some(object) {
            self.require();
        }
    }

    /// The object has changed: those asked so far are to be asked again.
    pub fn require(&mut self) {
        self.again.append(&mut self.called);
    }

    /// Whether somebody is to be asked in the second pass.
    pub fn is_due(&self, key: &str) -> bool {
        self.again.contains(key)
    }

    /// Somebody who may be asked again has been asked.
    pub fn called(&mut self, key: String) {
        self.called.insert(key);
    }

    /// The pass is over.
    pub fn end(&mut self, object: &Value) {
        self.output = Some(object.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn those_before_a_change_are_asked_again() {
        let mut rounds = Rounds::default();
        rounds.called("a".into());
        rounds.require();
        rounds.called("b".into());
        rounds.end(&json!(1));
        assert!(rounds.is_due("a") && !rounds.is_due("b"));
        rounds.begin_again(&json!(1));
        assert!(!rounds.is_due("b"));
        rounds.begin_again(&json!(2));
        assert!(rounds.is_due("b") && !rounds.is_due("c"));
    }
}
