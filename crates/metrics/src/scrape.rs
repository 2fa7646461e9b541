//! One look at one kubelet: the counters of `/metrics/resource`.

use std::collections::HashMap;

/// Greatest number of containers of a node that are looked at.
const CONTAINERS_MAX: usize = 8_192;

/// Use of processors and memory up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
    /// When a container began, in seconds since the epoch.
    pub(crate) begun: Option<f64>,
}

/// Namespace, pod and container.
pub(crate) type Name = (String, String, String);

/// What a kubelet said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    pub(crate) node: Point,
    pub(crate) containers: HashMap<Name, Point>,
}

impl Scrape {
    /// Reads Prometheus' text form; what is unknown is left out.
    pub(crate) fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, labels, value, at)) = sample(line) else {
                continue;
            };
            let point = match name.strip_prefix("node_") {
                Some(_) => &mut scrape.node,
                None => match container(labels) {
                    Some(name)
                        if scrape.containers.contains_key(&name)
                            || scrape.containers.len() < CONTAINERS_MAX =>
                    {
                        scrape.containers.entry(name).or_default()
                    }
                    _ => continue,
                },
            };
            match name {
                "node_cpu_usage_seconds_total" | "container_cpu_usage_seconds_total" => {
                    point.cpu_seconds = Some(value);
                    point.at = at.unwrap_or(0);
                }
                "node_memory_working_set_bytes" | "container_memory_working_set_bytes" => {
                    point.memory_bytes = Some(value);
                }
                "container_start_time_seconds" => point.begun = Some(value),
                _ => {}
            }
        }
        let whole = |_: &Name, point: &mut Point| {
            point.cpu_seconds.is_some() && point.memory_bytes.is_some() && point.at > 0
        };
        scrape.containers.retain(whole);
        scrape
    }
}

/// Name, text of the labels, value and moment of a line.
fn sample(line: &str) -> Option<(&str, &str, f64, Option<i64>)> {
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok().filter(|v: &f64| v.is_finite())?;
    Some((
        name,
        labels,
        value,
        words.next().and_then(|at| at.parse().ok()),
    ))
}

/// Which container labels name. Names have nothing that is escaped.
fn container(labels: &str) -> Option<Name> {
    let label = |wanted: &str| {
        let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == wanted)?;
        Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    };
    Some((label("namespace")?, label("pod")?, label("container")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_container() {
        let text = "# TYPE container_cpu_usage_seconds_total counter\n\
            container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} 1.5 2000\n\
            container_memory_working_set_bytes{container=\"a\",namespace=\"n\",pod=\"p\"} 4096 2000\n\
            container_start_time_seconds{container=\"a\",namespace=\"n\",pod=\"p\"} 1.25\n\
            container_cpu_usage_seconds_total{container=\"half\",namespace=\"n\",pod=\"p\"} 1 2000\n\
            pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 9 2000\n\
            node_cpu_usage_seconds_total 7 2100\nnode_memory_working_set_bytes 8192 2100\n\
            nonsense\nresource_scrape_error 0\n";
        let scrape = Scrape::parse(text);
        let name = ("n".to_owned(), "p".to_owned(), "a".to_owned());
        let point = Point {
            at: 2000,
            cpu_seconds: Some(1.5),
            memory_bytes: Some(4096.0),
            begun: Some(1.25),
        };
        assert_eq!(scrape.containers, HashMap::from([(name, point)]));
        assert_eq!((scrape.node.at, scrape.node.cpu_seconds), (2100, Some(7.0)));
    }
}
