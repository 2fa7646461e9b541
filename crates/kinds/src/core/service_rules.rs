//! Faults in services.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::{Value, json};

use super::endpoints::{validate_ip, validate_protocol};
use crate::metadata::{IMMUTABLE, validate_labels};
use crate::spot::{
    Spot, maybe_named, maybe_one_of, named, one_of, present_named, rules, same, unsupported,
};
use crate::tree::Tree;
use crate::warnings::{cidr, each, ip};

/// How long a client may stick to one pod: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

/// Whether anybody outside may reach the service of this specification.
pub(super) fn is_external(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => spec.count("externalIPs") > 0,
        _ => false,
    }
}

fn is_headless(service: &Value) -> bool {
    let list = service.list("spec.clusterIPs");
    list.len() == 1 && list[0] == "None"
}

/// Takes away what made sense for the old type only, when the user left it as it was.
pub(super) fn drop_for_type(service: &mut Value, old: &Value) {
    let before = old.at("spec");
    let Some(spec) = service.at_mut("spec") else {
        return;
    };
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    if balanced(before) && !balanced(spec) {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(spec.at(field), before.at(field)) {
                spec.drop_field(field);
            }
        }
    }
    let policy = "externalTrafficPolicy";
    if is_external(before) && !is_external(spec) && spec.at(policy) == before.at(policy) {
        spec.drop_field(policy);
    }
    if !balanced(spec) && service.has("status.loadBalancer") {
        service.set("status.loadBalancer", json!({}));
    }
}

/// Faults of any service, new or changed.
pub(super) fn validate(service: &Value, faults: &mut Faults) {
    let spec = Spot::new(service, "spec");
    let kind = spec.text("type");
    validate_annotations(service, faults);
    if spec.count("ports") == 0 && !is_headless(service) && kind != "ExternalName" {
        faults.required(spec.path("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(service) => {
            let rule = format!("may not be set to 'None' for {kind} services");
            faults.invalid("spec.clusterIPs[0]", "None", rule);
        }
        "ExternalName" => validate_external_name(&spec, faults),
        _ => {}
    }
    validate_ports(&spec, faults);
    let selector = spec.child("selector");
    validate_labels(selector.value, &selector.path, faults);
    validate_affinity(&spec, faults);
    if kind != "ExternalName" {
        validate_addresses(&spec, faults);
    }
    for ip in spec.items("externalIPs") {
        validate_ip(ip.as_str().unwrap_or(""), &ip.path, faults);
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(&spec, "type", &kinds, faults);
    validate_unique_ports(&spec, faults);
    validate_balancer(&spec, faults);
    validate_policies(&spec, faults);
}

/// Annotations that say what fields say today.
fn validate_annotations(service: &Value, faults: &mut Faults) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let annotations = Spot::new(service, "metadata.annotations");
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (text(MODE), text(HINTS))
        && mode != hints
    {
        let rule = format!("must match annotations[{HINTS}] when both are specified");
        faults.invalid(annotations.entry_path(MODE), mode, rule);
    }
    let Some(ranges) = text(RANGES).filter(|_| service.count("spec.loadBalancerSourceRanges") == 0)
    else {
        return;
    };
    let path = annotations.entry_path(RANGES);
    if service.text("spec.type") != "LoadBalancer" {
        faults.forbidden(
            path.clone(),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
    let ranges = ranges.trim();
    for range in ranges.split(',').filter(|_| !ranges.is_empty()) {
        rules(
            faults,
            path.clone(),
            range.trim(),
            naming::cidr(range.trim()),
        );
    }
}

/// Faults in what a load balancer says of itself; where it says nothing new, it may stay.
pub(super) fn validate_status(service: &Value, old: &Value, faults: &mut Faults) {
    let status = Spot::new(service, "status.loadBalancer");
    let before = old.at("status.loadBalancer");
    if service.text("spec.type") != "LoadBalancer" && status.count("ingress") > 0 {
        let rule = "may only be used when `spec.type` is 'LoadBalancer'";
        return faults.forbidden(status.path("ingress"), rule);
    }
    let known: BTreeSet<_> = before
        .list("ingress")
        .iter()
        .map(|one| one.text("ip"))
        .collect();
    for one in status.items("ingress") {
        let (ip, mode) = (one.text("ip"), one.at("ipMode"));
        if !ip.is_empty() && !known.contains(ip) {
            rules(faults, one.path("ip"), ip, naming::ip(ip));
        }
        if !ip.is_empty() && mode.is_null() {
            faults.required(one.path("ipMode"), "must be specified when `ip` is set");
        } else if ip.is_empty() && !mode.is_null() {
            faults.forbidden(
                one.path("ipMode"),
                "may not be specified when `ip` is not set",
            );
        } else {
            maybe_one_of(&one, "ipMode", &["Proxy", "VIP"], faults);
        }
        let host = one.text("hostname");
        if host.is_empty() {
            continue;
        }
        rules(
            faults,
            one.path("hostname"),
            host,
            naming::dns1123_subdomain(host),
        );
        if !naming::ip(host).is_empty() {
            continue;
        }
        let rule = "must be a DNS name, not an IP address";
        faults.invalid(one.path("hostname"), host, rule);
    }
}

fn validate_external_name(spec: &Spot<'_>, faults: &mut Faults) {
    for field in ["clusterIPs", "ipFamilies"] {
        if spec.count(field) > 0 {
            faults.forbidden(spec.path(field), "may not be set for ExternalName services");
        }
    }
    if spec.has("ipFamilyPolicy") {
        let rule = "may not be set for ExternalName services";
        faults.forbidden(spec.path("ipFamilyPolicy"), rule);
    }
    let name = spec.text("externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    match name {
        "" => faults.required(spec.path("externalName"), ""),
        name => {
            let broken = naming::dns1123_subdomain(name);
            rules(faults, spec.path("externalName"), name, broken);
        }
    }
}

fn validate_ports(spec: &Spot<'_>, faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for port in spec.items("ports") {
        let name = port.text("name").to_owned();
        match spec.count("ports") {
            1 => maybe_named(&port, "name", naming::dns1123_label, faults),
            _ => named(&port, "name", naming::dns1123_label, faults),
        }
        if !name.is_empty() && !names.insert(name.clone()) {
            faults.duplicate(port.path("name"), name);
        }
        let number = port.int("port");
        rules(
            faults,
            port.path("port"),
            number,
            naming::port_number(number),
        );
        one_of(&port, "protocol", &["SCTP", "TCP", "UDP"], faults);
        match port.at("targetPort") {
            Value::String(name) => {
                let broken = naming::port_name(name);
                rules(faults, port.path("targetPort"), name.as_str(), broken);
            }
            target => {
                let target = target.as_i64().unwrap_or(0);
                rules(
                    faults,
                    port.path("targetPort"),
                    target,
                    naming::port_number(target),
                );
            }
        }
        validate_protocol(&port, faults);
    }
}

fn validate_affinity(spec: &Spot<'_>, faults: &mut Faults) {
    one_of(spec, "sessionAffinity", &["ClientIP", "None"], faults);
    let config = spec.child("sessionAffinityConfig");
    match spec.text("sessionAffinity") {
        "None" if !config.is_null() => {
            faults.forbidden(config.path, "must not be set when session affinity is None");
        }
        "ClientIP" => match config.maybe_int("clientIP.timeoutSeconds") {
            None => {
                let path = config.path("clientIP.timeoutSeconds");
                faults.required(path, "when session affinity type is ClientIP");
            }
            Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                let rule = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                faults.invalid(config.path("clientIP.timeoutSeconds"), seconds, rule);
            }
            Some(_) => {}
        },
        _ => {}
    }
}

/// Faults in a service's addresses and their families, which are looked at before any is given.
pub fn validate_service_addresses(service: &Value, faults: &mut Faults) {
    let spec = Spot::new(service, "spec");
    if spec.text("type") != "ExternalName" {
        validate_addresses(&spec, faults);
    }
}

fn validate_addresses(spec: &Spot<'_>, faults: &mut Faults) {
    let path = spec.path("clusterIPs");
    let (all, first) = (spec.at("clusterIPs"), spec.text("clusterIP"));
    let listed = spec.texts("clusterIPs").next();
    match (first, listed) {
        ("", Some(_)) => {
            let rule = "must be empty when `clusterIP` is not specified";
            faults.invalid(path.clone(), all.clone(), rule);
        }
        ("", None) => {}
        (_, None) => faults.required(path.clone(), ""),
        (first, Some(listed)) if first != listed => {
            faults.invalid(
                path.clone(),
                all.clone(),
                "first value must match `clusterIP`",
            );
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in spec.items("ipFamilies") {
        let word = family.as_str().unwrap_or("");
        if !matches!(word, "IPv4" | "IPv6") {
            unsupported(faults, family.path.clone(), word, &["IPv4", "IPv6"]);
        }
        if !seen.insert(word.to_owned()) {
            faults.duplicate(family.path.clone(), word);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    maybe_one_of(spec, "ipFamilyPolicy", &policies, faults);
    let mut sound = true;
    for (index, ip) in spec.items("clusterIPs").enumerate() {
        let text = ip.as_str().unwrap_or("");
        if index == 0 && text == "None" {
            if spec.count("clusterIPs") > 1 {
                sound = false;
                let rule = "'None' must be the first and only value";
                faults.invalid(path.clone(), all.clone(), rule);
            }
            continue;
        }
        let broken = naming::ip(text);
        sound = sound && broken.is_empty();
        rules(faults, ip.path.clone(), text, broken);
    }
    if spec.count("clusterIPs") > 2 {
        faults.invalid(path.clone(), all.clone(), "may only hold up to 2 values");
    }
    if !sound {
        return;
    }
    let sixes = spec
        .texts("clusterIPs")
        .filter(|ip| ip.contains(':'))
        .count();
    match spec.count("clusterIPs") {
        0 | 1 => {}
        count if (1..count).contains(&sixes) => {}
        _ => {
            let rule = "may specify no more than one IP for each IP family";
            faults.invalid(path, all.clone(), rule);
        }
    }
    let headless = listed == Some("None");
    let pairs = spec.items("clusterIPs").zip(spec.texts("ipFamilies"));
    for (index, (ip, family)) in pairs.enumerate().filter(|_| !headless) {
        let text = ip.as_str().unwrap_or("");
        let sound = naming::ip(text).is_empty();
        let is_six = text.contains(':');
        if sound && matches!((family, is_six), ("IPv4", true) | ("IPv6", false)) {
            let rule = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            faults.invalid(ip.path.clone(), text, rule);
        }
    }
}

fn validate_unique_ports(spec: &Spot<'_>, faults: &mut Faults) {
    let (mut node_ports, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for port in spec.items("ports") {
        let protocol = port.text("protocol").to_owned();
        let node_port = port.int("nodePort");
        if node_port != 0 && spec.text("type") == "ClusterIP" {
            let rule = "may not be used when `type` is 'ClusterIP'";
            faults.forbidden(port.path("nodePort"), rule);
        }
        if node_port != 0 && !node_ports.insert((protocol.clone(), node_port)) {
            faults.duplicate(port.path("nodePort"), node_port);
        }
        let number = port.int("port");
        if !ports.insert((protocol.clone(), number)) {
            let key = json!({"protocol": protocol, "port": number});
            let shown = crate::go::shown(&key, &crate::go::SERVICE_PORT);
            faults.add_shown(port.path.clone(), meta::FaultKind::Duplicate, shown, "");
        }
    }
}

fn validate_balancer(spec: &Spot<'_>, faults: &mut Faults) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = spec.text("type") == "LoadBalancer";
    if spec.count("loadBalancerSourceRanges") > 0 {
        let path = spec.path("LoadBalancerSourceRanges");
        if !balanced {
            faults.forbidden(path.clone(), ONLY);
        }
        for (index, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
            let range = range.trim();
            rules(
                faults,
                format!("{path}[{index}]"),
                range,
                naming::cidr(range),
            );
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec.has(field) && !balanced {
            faults.forbidden(spec.path(field), ONLY);
        }
    }
    if balanced && !spec.has("allocateLoadBalancerNodePorts") {
        faults.required("allocateLoadBalancerNodePorts", "");
    }
    if balanced {
        present_named(spec, "loadBalancerClass", naming::qualified_name, faults);
    }
}

fn validate_policies(spec: &Spot<'_>, faults: &mut Faults) {
    let policy = spec.text("externalTrafficPolicy");
    let path = spec.path("externalTrafficPolicy");
    match (is_external(spec), policy) {
        (false, "") => {}
        (false, policy) => {
            let rule = "may only be set for externally-accessible services";
            faults.invalid(path, policy, rule);
        }
        (true, _) => one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], faults),
    }
    let checked = spec.text("type") == "LoadBalancer" && policy == "Local";
    let port = spec.int("healthCheckNodePort");
    let path = spec.path("healthCheckNodePort");
    match (checked, port) {
        (false, 0) => {}
        (false, port) => {
            let rule = "may only be set when `type` is 'LoadBalancer' and \
                        `externalTrafficPolicy` is 'Local'";
            faults.invalid(path, port, rule);
        }
        (true, 0) => faults.required(path, ""),
        (true, port) => rules(faults, path, port, naming::port_number(port)),
    }
    match spec.text("type") {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {
            if !spec.has("internalTrafficPolicy") {
                faults.required(spec.path("internalTrafficPolicy"), "");
            }
            maybe_one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], faults);
        }
        _ => maybe_one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], faults),
    }
    let words = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    maybe_one_of(spec, "trafficDistribution", &words, faults);
}

/// Faults of a change: addresses stay what they are.
pub(super) fn validate_change(service: &Value, old: &Value, faults: &mut Faults) {
    let (spec, before) = (Spot::new(service, "spec"), old.at("spec"));
    let named = |spec: &Value| spec.text("type") == "ExternalName";
    let both_headless = is_headless(service) && is_headless(old);
    if !named(&spec) && !named(before) && !both_headless {
        validate_kept_addresses(&spec, before, faults);
    }
    if !named(&spec) && !named(before) && !is_headless(service) && !is_headless(old) {
        validate_kept_families(&spec, before, faults);
    }
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    if balanced(&spec) && balanced(before) {
        if !same(spec.at("loadBalancerClass"), before.at("loadBalancerClass")) {
            let class = spec.at("loadBalancerClass").clone();
            faults.invalid(
                spec.path("loadBalancerClass"),
                class,
                "may not change once set",
            );
        }
        // Upstream looks at it as what changed, and again as a part of the whole.
        present_named(&spec, "loadBalancerClass", naming::qualified_name, faults);
        let checked = |spec: &Value| spec.text("externalTrafficPolicy") == "Local";
        let port = "healthCheckNodePort";
        if checked(&spec) && checked(before) && spec.int(port) != before.int(port) {
            faults.forbidden(spec.path(port), IMMUTABLE);
        }
    }
}

fn validate_kept_families(spec: &Spot<'_>, before: &Value, faults: &mut Faults) {
    const ONCE: &str = "may not change once set";
    let (now, then) = (spec.list("ipFamilies"), before.list("ipFamilies"));
    let path = || "spec.ipFamilies[0]";
    if now.len() == then.len() {
        for _ in now.iter().zip(then).filter(|(new, old)| new != old) {
            faults.invalid(path(), spec.at("ipFamilies").clone(), ONCE);
        }
        return;
    }
    if now.len() < then.len() && spec.count("clusterIPs") == 0 {
        let rule = "primary ipFamily can not be unset";
        faults.invalid(path(), spec.at("ipFamilies").clone(), rule);
    }
    if let (Some(new), Some(old)) = (now.first(), then.first())
        && new != old
    {
        faults.invalid(path(), spec.at("clusterIPs").clone(), ONCE);
    }
    let single = spec.text("ipFamilyPolicy") == "SingleStack";
    if now.len() == 1 && then.len() > 1 && !single {
        let rule = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        let policy = spec.at("ipFamilyPolicy").clone();
        faults.invalid(spec.path("ipFamilyPolicy"), policy, rule);
    }
}

fn validate_kept_addresses(spec: &Spot<'_>, before: &Value, faults: &mut Faults) {
    let (now, then) = (spec.list("clusterIPs"), before.list("clusterIPs"));
    let all = spec.at("clusterIPs").clone();
    let path = |index: usize| format!("spec.clusterIPs[{index}]");
    if now.is_empty() && !then.is_empty() {
        faults.invalid(path(0), all, "primary clusterIP can not be unset");
        return;
    }
    for (index, (new, old)) in now.iter().zip(then).enumerate() {
        if new != old && (index == 0 || now.len() == then.len()) {
            faults.invalid(path(index), all.clone(), "may not change once set");
        }
    }
    if now.len() < then.len() && spec.text("ipFamilyPolicy") != "SingleStack" {
        let rule = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        let policy = spec.at("ipFamilyPolicy").clone();
        faults.invalid(spec.path("ipFamilyPolicy"), policy, rule);
    }
}

/// Fields that mean nothing in a service of this type.
pub(super) fn warnings(service: &Value) -> Vec<String> {
    let spec = Spot::new(service, "spec");
    let mut warnings = Vec::new();
    let hints = "service.kubernetes.io/topology-aware-hints";
    if service.at("metadata.annotations").get(hints).is_some() {
        warnings.push(format!(
            "annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode \
             instead"
        ));
    }
    let headless = is_headless(service);
    if spec.text("type") != "ExternalName" && !headless {
        warnings.extend(each(spec.items("clusterIPs"), ip));
    }
    if headless {
        if !spec.text("loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".into());
        }
        if spec.count("externalIPs") > 0 {
            warnings.push("spec.externalIPs is ignored for headless services".into());
        }
        if spec.text("sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".into());
        }
    }
    let named = spec.text("type") == "ExternalName";
    warnings.extend(each(spec.items("externalIPs"), ip));
    if spec.count("externalIPs") > 0 && !headless && !named {
        let warning =
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
        warnings.push(warning.into());
    }
    let balancer = spec.child("loadBalancerIP");
    warnings.extend(ip(&balancer.path, balancer.as_str().unwrap_or("")));
    warnings.extend(each(spec.items("loadBalancerSourceRanges"), cidr));
    if named && spec.count("externalIPs") > 0 {
        let warning = "spec.externalIPs is ignored when spec.type is \"ExternalName\"";
        warnings.push(warning.into());
    }
    if !named && !spec.text("externalName").is_empty() {
        let warning = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
        warnings.push(warning.into());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        let warning =
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(warning.into());
    }
    warnings
}
