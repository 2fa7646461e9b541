//! Static pods that a web server describes: asked for in rounds, since it tells of no changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::sync::watch;

use crate::pod::PodExt;
use crate::pods::StaticPods;
use crate::static_pods::{self, Source};
use crate::web::{self, Manner, Url};

/// How long the server may take, as upstream has it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read, as upstream has it.
const BYTES_MAX: usize = 10 << 20;
/// Shortest pause between two rounds.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// So many failures in a row are told to everybody.
const FAILURES_TOLD: u32 = 3;

/// Where pods are described: `staticPodURL`, `staticPodURLHeader` and `httpCheckFrequency`.
#[derive(Clone)]
pub struct StaticPodUrl {
    url: Url,
    manner: Manner,
    interval: Duration,
}

impl StaticPodUrl {
    /// Says what is wrong with the address or a header. Servers must have a certificate that the
    /// system trusts.
    pub fn new(
        url: &str,
        headers: &BTreeMap<String, Vec<String>>,
        interval: Duration,
    ) -> Result<StaticPodUrl, String> {
        let mut map = HeaderMap::new();
        for (name, values) in headers {
            let bad = || format!("header {name:?} is none of HTTP");
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            for value in values {
                let value = HeaderValue::from_str(value).map_err(|_| bad())?;
                map.append(key.clone(), value);
            }
        }
        let url = Url::parse(url, map)?;
        let tls = match url.https {
            true => Some(webhook::trusting(&[]).map_err(|error| error.to_string())?),
            false => None,
        };
        let manner = Manner {
            agent: "kubelet/v1.36.2",
            tls: tls.map(Arc::new),
            bytes_max: BYTES_MAX,
        };
        Ok(StaticPodUrl {
            url,
            manner,
            interval: interval.max(INTERVAL_MIN),
        })
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        let answer = web::get_followed_in(&self.manner, &self.url, TIMEOUT).await?;
        match answer.status {
            200 if answer.whole => Ok(answer.body),
            200 => Err("the answer breaks off, or is too long".to_owned()),
            other => Err(format!("status {other}")),
        }
    }
}

/// Asks until the process stops. What the server said last stands while it does not answer.
pub(crate) async fn follow(
    from: StaticPodUrl,
    node_name: String,
    pods: watch::Sender<Option<StaticPods>>,
    stop: Stop,
) {
    let mut rounds = tokio::time::interval(from.interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = None;
    let mut failures = 0_u32;
    loop {
        let answer = async {
            rounds.tick().await;
            from.read().await
        };
        let answer = tokio::select! {
            answer = answer => answer,
            () = stop.raised() => return,
        };
        let read = match answer {
            Ok(body) if last.as_ref() == Some(&body) => continue,
            Ok(body) => {
                let read = decode(&body, &from.url.shown(), &node_name);
                last = Some(body);
                read
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(fresh) => {
                failures = 0;
                pods.send_if_modified(|known| static_pods::replace(known, fresh));
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                let url = from.url.shown();
                match failures <= FAILURES_TOLD {
                    true => tracing::warn!(error, url, "static pods not read"),
                    false => tracing::debug!(error, url, "static pods not read"),
                }
            }
        }
    }
}

/// A pod, a list of pods, or nothing at all.
fn decode(body: &[u8], url: &str, node_name: &str) -> Result<StaticPods, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    if text.is_empty() {
        return Ok(StaticPods::new());
    }
    let mut tree: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let trees = match tree["kind"].as_str() {
        Some("Pod") => vec![tree],
        Some("PodList") => match tree["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        },
        _ => return Err("kind is neither Pod nor PodList".to_owned()),
    };
    let pod = |tree: Value| {
        let salt = format!("{url}\n{tree}");
        let pod: Pod = static_pods::complete(tree, &salt, node_name, Source::Http)?;
        Ok((pod.uid().to_owned(), Arc::new(pod)))
    };
    trees.into_iter().map(pod).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_or_a_list_is_read() {
        let pod = |name: &str| {
            format!(
                "{{\"metadata\": {{\"name\": {name:?}}}, \"spec\": {{\"containers\": [{{\"name\": \"c\", \"image\": \"x\"}}]}}}}"
            )
        };
        let list = format!(
            "{{\"kind\": \"PodList\", \"items\": [{}, {}]}}",
            pod("a"),
            pod("b")
        );
        let names = |text: &str| -> Result<Vec<String>, String> {
            let pods = decode(text.as_bytes(), "http://x/", "n1")?;
            assert!(pods.values().all(|pod| pod.is_static()));
            let mut names: Vec<String> = pods.values().map(|pod| pod.name().to_owned()).collect();
            names.sort();
            Ok(names)
        };
        assert_eq!(names(&list).unwrap(), ["a-n1", "b-n1"]);
        let yaml = "kind: Pod\nmetadata: {name: w}\nspec: {containers: [{name: c, image: x}]}\n";
        assert_eq!(names(yaml).unwrap(), ["w-n1"]);
        assert!(names("").unwrap().is_empty());
        assert!(names("kind: Deployment").is_err());
        assert!(names("kind: PodList\nitems: [{metadata: {name: a}}]").is_err());
    }

    #[test]
    fn faults_are_named() {
        let new = |url: &str, header: &str| {
            let headers = BTreeMap::from([(header.to_owned(), vec!["v".to_owned()])]);
            StaticPodUrl::new(url, &headers, Duration::ZERO)
        };
        assert!(new("http://x/pods", "X-A").is_ok());
        assert!(new("ftp://x/pods", "X-A").is_err());
        assert!(new("/pods", "X-A").is_err());
        assert!(new("http://x/pods", "no header").is_err());
    }
}
