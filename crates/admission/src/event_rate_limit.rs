//! EventRateLimit: no flood of events drowns the server.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use meta::{Faults, Object, Reason, Status};
use parking_lot::Mutex;
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::settings::{ConfigError, fields};
use crate::tree::{list, text};

const NAME: &str = "EventRateLimit";
const TYPES: [&str; 4] = ["Server", "Namespace", "User", "SourceAndObject"];
/// As many buckets a limit keeps unless it says otherwise.
const CACHE_DEFAULT: usize = 4096;

#[derive(Default)]
pub(crate) struct EventRateLimit {
    limits: Vec<Limit>,
}

struct Limit {
    kind: String,
    /// Events per second in the long run.
    rate: f64,
    /// Events at once.
    burst: f64,
    cache: usize,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_key: HashMap<String, Bucket>,
    /// Keys by their last use, oldest first.
    used: BTreeMap<u64, String>,
    clock: u64,
}

struct Bucket {
    left: f64,
    at: Instant,
    used: u64,
}

impl EventRateLimit {
    pub(crate) fn new(config: &Value) -> Result<EventRateLimit, ConfigError> {
        if config.is_null() {
            return Ok(EventRateLimit::default());
        }
        fields(NAME, config, &["apiVersion", "kind", "limits"])?;
        let mut faults = Faults::new();
        if list(config, "limits").len() == 0 {
            faults.invalid("limits", Value::Null, "must not be empty");
        }
        let mut limits = Vec::new();
        for (index, limit) in list(config, "limits").enumerate() {
            fields(NAME, limit, &["type", "qps", "burst", "cacheSize"])?;
            let path = |field: &str| format!("limits[{index}].{field}");
            let number = |field: &str| limit.get(field).and_then(Value::as_i64).unwrap_or(0);
            let kind = text(limit, "type");
            if !TYPES.contains(&kind) {
                faults.not_supported(path("type"), kind, &TYPES);
            }
            for field in ["burst", "qps"] {
                if number(field) <= 0 {
                    faults.invalid(path(field), number(field), "must be positive");
                }
            }
            let cache = number("cacheSize");
            if kind != "Server" && cache < 0 {
                faults.invalid(path("cacheSize"), cache, "must not be negative");
            }
            limits.push(Limit {
                kind: kind.to_owned(),
                rate: f64::from(i32::try_from(number("qps")).unwrap_or(i32::MAX)),
                burst: f64::from(i32::try_from(number("burst")).unwrap_or(i32::MAX)),
                cache: match usize::try_from(cache) {
                    Ok(0) | Err(_) => CACHE_DEFAULT,
                    Ok(size) => size,
                },
                buckets: Mutex::default(),
            });
        }
        match faults.is_empty() {
            true => Ok(EventRateLimit { limits }),
            false => Err(ConfigError::new(NAME, faults.summary())),
        }
    }

    fn judge(&self, request: &Request<'_>, event: &Object, now: Instant) -> Result<(), Status> {
        let mut reached = Vec::new();
        for limit in &self.limits {
            let key = limit.key(request, event);
            if !limit.take(&key, now) {
                let kind = &limit.kind;
                reached.push(format!("limit reached on type {kind} for key {key}"));
            }
        }
        let why = match reached.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            _ => format!("[{}]", reached.join(", ")),
        };
        Err(Status::new(Reason::TooManyRequests, why))
    }
}

impl Limit {
    fn key(&self, request: &Request<'_>, event: &Object) -> String {
        match self.kind.as_str() {
            "Namespace" => request.namespace.to_owned(),
            "User" => request.user.name.clone(),
            "SourceAndObject" => [
                "/source/component",
                "/source/host",
                "/involvedObject/kind",
                "/involvedObject/namespace",
                "/involvedObject/name",
                "/involvedObject/uid",
                "/involvedObject/apiVersion",
            ]
            .map(|pointer| event.text(pointer))
            .concat(),
            _ => String::new(),
        }
    }

    /// Takes one from the key's bucket.
    fn take(&self, key: &str, now: Instant) -> bool {
        let mut buckets = self.buckets.lock();
        let buckets = &mut *buckets;
        buckets.clock += 1;
        let bucket = buckets.by_key.entry(key.to_owned()).or_insert(Bucket {
            left: self.burst,
            at: now,
            used: 0,
        });
        buckets.used.remove(&bucket.used);
        bucket.used = buckets.clock;
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * self.rate).min(self.burst);
        bucket.at = now;
        let allowed = bucket.left >= 1.0;
        if allowed {
            bucket.left -= 1.0;
        }
        buckets.used.insert(buckets.clock, key.to_owned());
        while buckets.by_key.len() > self.cache
            && let Some((_, oldest)) = buckets.used.pop_first()
        {
            buckets.by_key.remove(&oldest);
        }
        allowed
    }
}

impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(event) = object.filter(|_| written && !request.dry_run) else {
            return Ok(());
        };
        match request.resource_is("events") {
            true => self.judge(request, event, Instant::now()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::testing::{object, request};

    #[test]
    fn a_bucket_empties_and_fills() {
        let config =
            json!({"limits": [{"type": "Namespace", "qps": 1, "burst": 2, "cacheSize": 1}]});
        let plugin = EventRateLimit::new(&config).expect("a configuration");
        let event = object(json!({"metadata": {"name": "e"}}));
        let mut asked = request(Operation::Create, "events", "e");
        let start = Instant::now();
        let judge = |asked: &crate::testing::Asked, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            let judged = plugin.judge(&asked.borrow(), &event, now);
            judged.map_err(|status| (status.code, status.message))
        };
        assert_eq!((judge(&asked, 0), judge(&asked, 0)), (Ok(()), Ok(())));
        let why = "limit reached on type Namespace for key default".to_owned();
        assert_eq!(judge(&asked, 0), Err((429, why)));
        assert_eq!(judge(&asked, 1), Ok(()));
        assert!(judge(&asked, 1).is_err());
        // The bucket of another namespace pushes this one out.
        asked.namespace = "other".into();
        assert_eq!(judge(&asked, 1), Ok(()));
        asked.namespace = "default".into();
        assert_eq!(judge(&asked, 1), Ok(()));
    }

    #[test]
    fn configuration_is_checked() {
        let config = json!({"limits": [{"type": "X", "qps": 0, "burst": 1}]});
        let error = EventRateLimit::new(&config)
            .err()
            .map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.contains("limits[0].qps: Invalid value: 0: must be positive"),
            "{error}"
        );
    }
}
