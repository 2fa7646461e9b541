//! What a pod calls itself and how it finds others: hostname, resolver
//! configuration, hosts file.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use node_api::DnsConfig;

use crate::config::Config;
use crate::pod::PodExt;

/// A label of a host name has at most so many bytes.
const HOSTNAME_MAX: usize = 63;
/// The C library reads so many servers.
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// Host name and domain (empty without a subdomain).
pub(crate) fn hostname(pod: &Pod, config: &Config) -> (String, String) {
    let spec = pod.spec();
    if let Some(name) = spec
        .hostname_override
        .clone()
        .filter(|_| !pod.host_network())
    {
        return (name, String::new());
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let mut name = name.unwrap_or_else(|| pod.name()).to_owned();
    name.truncate(HOSTNAME_MAX);
    let name = name.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let domain = subdomain.map(|subdomain| {
        format!(
            "{subdomain}.{}.svc.{}",
            pod.namespace(),
            config.cluster_domain
        )
    });
    (name, domain.unwrap_or_default())
}

/// What the sandbox's kernel is told: the node's name on its network, the full name if wished.
pub(crate) fn sandbox_hostname(pod: &Pod, config: &Config) -> String {
    if pod.host_network() {
        return config.node_name.clone();
    }
    let (name, domain) = hostname(pod, config);
    match pod.spec().set_hostname_as_fqdn {
        Some(true) if !domain.is_empty() => format!("{name}.{domain}"),
        _ => name,
    }
}

/// The resolver configuration of a pod; `None` leaves it the node's own file.
pub(crate) fn dns(pod: &Pod, config: &Config) -> Option<DnsConfig> {
    let policy = pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.host_network(),
        _ => false,
    };
    let node = || parse_resolv_conf(&fs::read_to_string(&config.resolv_conf).unwrap_or_default());
    let mut dns = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !config.cluster_dns.is_empty() => of_cluster(pod, config, node()),
        _ => node(),
    };
    if let Some(wish) = &pod.spec().dns_config {
        dns.servers
            .extend(wish.nameservers.iter().flatten().cloned());
        dns.searches.extend(wish.searches.iter().flatten().cloned());
        for option in wish.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            dns.options
                .retain(|known| known.split(':').next() != Some(name.as_str()));
            dns.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    for list in [&mut dns.servers, &mut dns.searches] {
        let mut seen = BTreeSet::new();
        list.retain(|item| seen.insert(item.clone()));
    }
    dns.servers.truncate(SERVERS_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    Some(dns)
}

fn of_cluster(pod: &Pod, config: &Config, node: DnsConfig) -> DnsConfig {
    let domain = &config.cluster_domain;
    let own = [
        format!("{}.svc.{domain}", pod.namespace()),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    DnsConfig {
        servers: config.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches: own.into_iter().chain(node.searches).collect(),
        options: vec!["ndots:5".into()],
    }
}

fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let words = words.take_while(|word| !word.starts_with(['#', ';']));
        let words = words.map(str::to_owned);
        match key {
            "nameserver" => dns.servers.extend(words.take(1)),
            // The last line wins.
            "search" | "domain" => dns.searches = words.collect(),
            "options" => dns.options = words.collect(),
            _ => {}
        }
    }
    dns.searches.retain(|search| search != ".");
    dns
}

/// The hosts file a pod gets.
pub(crate) fn hosts_file(pod: &Pod, config: &Config, ips: &[IpAddr]) -> String {
    let mut text = match pod.host_network() {
        true => {
            let node = fs::read_to_string("/etc/hosts").unwrap_or_default();
            format!("# Kubernetes-managed hosts file (host network).\n{node}")
        }
        false => own_hosts(pod, config, ips),
    };
    let aliases: Vec<_> = pod.spec().host_aliases.iter().flatten().collect();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.clone().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

fn own_hosts(pod: &Pod, config: &Config, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let (name, domain) = hostname(pod, config);
    for ip in ips {
        match domain.as_str() {
            "" => text.push_str(&format!("{ip}\t{name}\n")),
            domain => text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(resolv_conf: &std::path::Path) -> Config {
        let mut config = Config::new("n1", [10, 0, 0, 1].into(), "/r".into(), "/l".into());
        config.cluster_dns = vec![[10, 96, 0, 10].into()];
        config.resolv_conf = resolv_conf.to_owned();
        config
    }

    fn pod(spec: serde_json::Value) -> Pod {
        let metadata = json!({"name": "web", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn policies_choose_servers_and_searches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(
            &path,
            "nameserver 9.9.9.9 # quad\nsearch corp .\noptions timeout:1\n",
        )
        .unwrap();
        let config = config(&path);
        let check =
            |spec: serde_json::Value, servers: &[&str], searches: &[&str], options: &[&str]| {
                let mut spec = spec;
                spec["containers"] = json!([]);
                let got = dns(&pod(spec.clone()), &config).unwrap();
                assert_eq!(got.servers, servers, "{spec}");
                assert_eq!(got.searches, searches, "{spec}");
                assert_eq!(got.options, options, "{spec}");
            };
        let cluster = [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
            "corp",
        ];
        check(json!({}), &["10.96.0.10"], &cluster, &["ndots:5"]);
        check(
            json!({"dnsPolicy": "Default"}),
            &["9.9.9.9"],
            &["corp"],
            &["timeout:1"],
        );
        check(
            json!({"hostNetwork": true}),
            &["9.9.9.9"],
            &["corp"],
            &["timeout:1"],
        );
        let both = json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        check(both, &["10.96.0.10"], &cluster, &["ndots:5"]);
        let none = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        check(none, &["1.1.1.1"], &["x"], &["ndots:2", "edns0"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod() {
        let config = config(std::path::Path::new("/none"));
        let pod = pod(json!({"containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts_file(&pod, &config, &["10.0.0.9".parse().unwrap()]);
        assert!(
            text.contains("10.0.0.9\th.s.shop.svc.cluster.local\th\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"),
            "{text}"
        );
    }
}
