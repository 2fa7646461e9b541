//! The old format of the log: one line of text per event, with the least of what it says.

use jiff::Timestamp;
use serde_json::Value;

/// An event, which comes as JSON, as a line.
pub(crate) fn line(event: &[u8]) -> Result<String, serde_json::Error> {
    let event: Value = serde_json::from_slice(event)?;
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or("");
    let list = |path: &str| {
        let list = event.pointer(path).and_then(Value::as_array)?;
        let quoted = list
            .iter()
            .filter_map(Value::as_str)
            .map(|own| format!("{own:?}"));
        Some(quoted.collect::<Vec<_>>().join(","))
    };
    let or = |text: &str, else_: &str| match text {
        "" => else_.to_owned(),
        text => text.to_owned(),
    };
    let user = or(text("/user/username"), "<none>");
    let groups = list("/user/groups").filter(|own| !own.is_empty() && user != "<none>");
    let groups = groups.unwrap_or_else(|| "<none>".into());
    let (mut as_user, mut as_groups) = ("<self>".to_owned(), "<lookup>".to_owned());
    if event.get("impersonatedUser").is_some() {
        as_user = text("/impersonatedUser/username").to_owned();
        as_groups = list("/impersonatedUser/groups").unwrap_or(as_groups);
    }
    let code = event
        .pointer("/responseStatus/code")
        .and_then(Value::as_i64);
    let response = code.map_or("<deferred>".into(), |code| code.to_string());
    let ip = event.pointer("/sourceIPs/0").and_then(Value::as_str);
    Ok(format!(
        "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={user:?} groups={groups:?} \
         as={as_user:?} asgroups={as_groups:?} user-agent={:?} namespace={:?} uri={:?} \
         response=\"{response}\"",
        nanoseconds(text("/requestReceivedTimestamp")),
        text("/auditID"),
        text("/stage"),
        ip.unwrap_or("<unknown>"),
        text("/verb"),
        text("/userAgent"),
        or(text("/objectRef/namespace"), "<none>"),
        text("/requestURI"),
    ))
}

/// A time with as many digits as it needs.
fn nanoseconds(time: &str) -> String {
    time.parse::<Timestamp>()
        .map_or_else(|_| time.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_lines_of_text() {
        let event = json!({"requestReceivedTimestamp": "2026-01-01T00:00:00.120000Z",
            "auditID": "7", "stage": "ResponseComplete", "sourceIPs": ["192.0.2.7"], "verb": "get",
            "user": {"username": "jane", "groups": ["a", "b"]}, "userAgent": "kubectl",
            "objectRef": {"namespace": "default"}, "requestURI": "/api?x=\"",
            "responseStatus": {"code": 200}});
        assert_eq!(
            line(event.to_string().as_bytes()).unwrap(),
            "2026-01-01T00:00:00.12Z AUDIT: id=\"7\" stage=\"ResponseComplete\" ip=\"192.0.2.7\" \
             method=\"get\" user=\"jane\" groups=\"\\\"a\\\",\\\"b\\\"\" as=\"<self>\" \
             asgroups=\"<lookup>\" user-agent=\"kubectl\" namespace=\"default\" \
             uri=\"/api?x=\\\"\" response=\"200\""
        );
        let event = json!({"requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
            "impersonatedUser": {"username": "joe"}});
        assert_eq!(
            line(event.to_string().as_bytes()).unwrap(),
            "2026-01-01T00:00:00Z AUDIT: id=\"\" stage=\"\" ip=\"<unknown>\" method=\"\" \
             user=\"<none>\" groups=\"<none>\" as=\"joe\" asgroups=\"<lookup>\" user-agent=\"\" \
             namespace=\"<none>\" uri=\"\" response=\"<deferred>\""
        );
    }
}
