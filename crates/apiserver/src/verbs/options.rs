//! Which options of lists and watches go together.

use meta::{FaultKind, Faults, Status};

use crate::chain::Query;

const MATCH: &str = "resourceVersionMatch";
const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

/// 422 when the options of a list contradict each other.
pub(crate) fn check_list(query: &Query) -> Result<(), Status> {
    numbers(query)?;
    let (version, rule) = (query.get("resourceVersion"), query.get(MATCH));
    let mut faults = Faults::new();
    let mut forbid = |field: &str, why: &str| faults.forbidden(field, why);
    if let Some(rule) = rule {
        if version.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            forbid(MATCH, why);
        }
        if query.get("continue").is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            forbid(MATCH, why);
        }
        if rule == EXACT && version == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            forbid(MATCH, why);
        }
        if rule != EXACT && rule != NOT_OLDER {
            not_supported(&mut faults, rule, &[EXACT, NOT_OLDER, ""]);
        }
    }
    if query.get("sendInitialEvents").is_some() {
        let why = "sendInitialEvents is forbidden for list";
        faults.forbidden("sendInitialEvents", why);
    }
    verdict(&faults)
}

/// The same for a watch.
pub(crate) fn check_watch(query: &Query) -> Result<(), Status> {
    numbers(query)?;
    let (asked, rule) = (query.get("sendInitialEvents"), query.get(MATCH));
    let mut faults = Faults::new();
    if asked.is_some() && rule != Some(NOT_OLDER) {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        faults.forbidden(MATCH, why);
    }
    if let Some(rule) = rule {
        if asked.is_none() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            faults.forbidden(MATCH, why);
        }
        if rule != NOT_OLDER {
            not_supported(&mut faults, rule, &[NOT_OLDER]);
        }
    }
    // Who names neither asks for what there is, as if by name.
    let usual = matches!(query.get("resourceVersion"), None | Some("0"));
    let asks = rule.is_some() || (asked.is_none() && usual);
    if asks && query.get("continue").is_some() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        faults.forbidden(MATCH, why);
    }
    verdict(&faults)
}

/// 400 for numbers that are none.
fn numbers(query: &Query) -> Result<(), Status> {
    query.number("timeoutSeconds")?;
    query.number("limit")?;
    Ok(())
}

fn not_supported(faults: &mut Faults, rule: &str, known: &[&str]) {
    let known: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
    let detail = format!("supported values: {}", known.join(", "));
    faults.add(MATCH, FaultKind::NotSupported, rule.into(), detail);
}

fn verdict(faults: &Faults) -> Result<(), Status> {
    super::given::verdict("ListOptions", faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let list = |text: &str| check_list(&Query::parse(text).unwrap()).map_err(|s| s.message);
        let watch = |text: &str| check_watch(&Query::parse(text).unwrap()).map_err(|s| s.message);
        let prefix = "ListOptions.meta.k8s.io \"\" is invalid: ";
        assert_eq!(list("resourceVersion=5&resourceVersionMatch=Exact"), Ok(()));
        assert_eq!(
            list("resourceVersionMatch=Exact").unwrap_err(),
            format!(
                "{prefix}resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
                 unless resourceVersion is provided"
            )
        );
        assert_eq!(
            list("resourceVersion=5&resourceVersionMatch=x").unwrap_err(),
            format!(
                "{prefix}resourceVersionMatch: Unsupported value: \"x\": supported values: \
                 \"Exact\", \"NotOlderThan\", \"\""
            )
        );
        assert!(list("sendInitialEvents=true").is_err());
        let good = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(watch(good), Ok(()));
        assert_eq!(
            watch("sendInitialEvents=true").unwrap_err(),
            format!(
                "{prefix}resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                 resourceVersionMatch to NotOlderThan"
            )
        );
        assert!(watch("resourceVersionMatch=NotOlderThan").is_err());
    }
}
