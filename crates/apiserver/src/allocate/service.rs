//! What a Service needs by its type, and the faults of what it asks for.

use std::net::IpAddr;

use meta::{Faults, Names, Status};
use serde_json::{Map, Value, json};

use super::{Allocations, Charge, Taken};

/// Ports of this part of the range are for those who choose theirs themselves.
const STATIC_PORTS_MAX: u16 = 128;

/// The ClusterIPs a Service has.
pub(crate) fn addresses(service: &Value) -> Vec<IpAddr> {
    let list = service
        .pointer("/spec/clusterIPs")
        .and_then(Value::as_array);
    let many = list.into_iter().flatten().filter_map(Value::as_str);
    let one = service.pointer("/spec/clusterIP").and_then(Value::as_str);
    let mut found: Vec<IpAddr> = many
        .chain(one)
        .filter_map(|text| text.parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The node ports a Service has, each with its protocol.
pub(crate) fn node_ports(service: &Value) -> Vec<(u16, String)> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let mut found: Vec<(u16, String)> = ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let number = port.get("nodePort").and_then(Value::as_u64)?;
            let number = u16::try_from(number).ok().filter(|number| *number > 0)?;
            Some((number, protocol(port)))
        })
        .collect();
    found.extend(health_port(service).map(|port| (port, "TCP".into())));
    found
}

fn health_port(service: &Value) -> Option<u16> {
    let port = service
        .pointer("/spec/healthCheckNodePort")
        .and_then(Value::as_u64)?;
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn protocol(port: &Value) -> String {
    let own = port.get("protocol").and_then(Value::as_str);
    own.unwrap_or("TCP").to_owned()
}

/// Fills in addresses and ports; `old` is the Service as it was.
pub(crate) fn allocate(
    allocations: &Allocations,
    key: &str,
    service: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Charge, Status> {
    let name = key.split_once('/').map_or(key, |(_, name)| name).to_owned();
    let mut faults = Faults::new();
    let mut taken = allocations.taken.lock();
    let mut charge = Charge {
        taken: None,
        addresses: Vec::new(),
        ports: Vec::new(),
    };
    link_addresses(service, old);
    kinds::validate_service_addresses(service, &mut faults);
    let names = Names::namespaced("", "v1", "Service", "services");
    if !faults.is_empty() {
        return Err(Status::invalid(&names, &name, &faults));
    }
    families(service, old, &mut faults);
    if !address(allocations, &taken, service, old, &mut charge, &mut faults) {
        let why = "range is full";
        return Err(Status::internal(format!(
            "failed to allocate a serviceIP for Service {name:?}: {why}"
        )));
    }
    ports(allocations, &taken, service, old, &mut charge, &mut faults);
    if !faults.is_empty() {
        return Err(Status::invalid(&names, &name, &faults));
    }
    if dry_run {
        return Ok(Charge::nothing());
    }
    let (addresses, ports) = (charge.addresses.iter(), charge.ports.iter());
    addresses.for_each(|own| taken.addresses.reserve(*own));
    ports.for_each(|own| taken.ports.reserve(own.clone()));
    drop(taken);
    if !charge.addresses.is_empty() || !charge.ports.is_empty() {
        charge.taken = Some(allocations.taken.clone());
    }
    Ok(charge)
}

fn spec(service: &mut Value) -> &mut Map<String, Value> {
    meta::object::map_at(service, "spec")
}

fn text<'a>(service: &'a Value, field: &str) -> &'a str {
    let value = service.get("spec").and_then(|spec| spec.get(field));
    value.and_then(Value::as_str).unwrap_or("")
}

fn kind_of(service: &Value) -> &str {
    match text(service, "type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

/// The address of old clients and the list of newer ones say the same, as far as what was meant
/// can be told: when only one of them changed, it counts.
fn link_addresses(service: &mut Value, old: Option<&Value>) {
    if kind_of(service) == "ExternalName" {
        return;
    }
    let list = |service: &Value| service.pointer("/spec/clusterIPs").cloned();
    let is_empty = |list: &Option<Value>| {
        let items = list.as_ref().and_then(Value::as_array);
        items.is_none_or(Vec::is_empty)
    };
    let own = text(service, "clusterIP").to_owned();
    let old = old.filter(|old| kind_of(old) != "ExternalName");
    let Some(old) = old else {
        if !own.is_empty() && is_empty(&list(service)) {
            spec(service).insert("clusterIPs".into(), json!([own]));
        }
        return;
    };
    let before = text(old, "clusterIP");
    let (mut now, then) = (list(service), list(old));
    if is_empty(&now) && own == before {
        now = then.clone();
    }
    if own != before && now == then {
        now = (!own.is_empty()).then(|| json!([own]));
    }
    let spec = spec(service);
    // What is left out stays as it was.
    if own.is_empty() {
        spec.insert("clusterIP".into(), before.into());
    }
    match if is_empty(&now) { then } else { now } {
        Some(list) => drop(spec.insert("clusterIPs".into(), list)),
        None => drop(spec.remove("clusterIPs")),
    }
}

/// IPv4 is the only family that the cluster has.
fn families(service: &mut Value, old: Option<&Value>, faults: &mut Faults) {
    if kind_of(service) == "ExternalName" {
        let was_ours = old.is_some_and(|old| kind_of(old) != "ExternalName");
        if was_ours || old.is_none() {
            let spec = spec(service);
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
        }
        return;
    }
    // Who lists endpoints of their own may list those of any family.
    let selects = service.pointer("/spec/selector").and_then(Value::as_object);
    let headless = text(service, "clusterIP") == "None";
    let is_free = headless && selects.is_none_or(Map::is_empty);
    let before = old.map_or("", |old| text(old, "ipFamilyPolicy"));
    let spec = spec(service);
    if !spec.get("ipFamilyPolicy").is_some_and(Value::is_string) {
        let policy = match before {
            "" if is_free => "RequireDualStack",
            "" => "SingleStack",
            policy => policy,
        };
        spec.insert("ipFamilyPolicy".into(), policy.into());
    }
    let policy = spec.get("ipFamilyPolicy").and_then(Value::as_str);
    let is_dual = policy.is_some_and(|policy| policy != "SingleStack");
    let asked = spec.get("ipFamilies").and_then(Value::as_array).cloned();
    let asked = asked.unwrap_or_default();
    let others = asked.iter().enumerate();
    for (at, family) in others.filter(|(_, family)| !is_free && *family != "IPv4") {
        let rule = "not configured on this cluster";
        faults.invalid(format!("spec.ipFamilies[{at}]"), family.clone(), rule);
    }
    if policy == Some("RequireDualStack") && !is_free {
        let rule = "this cluster is not configured for dual-stack services";
        faults.invalid("spec.ipFamilyPolicy", "RequireDualStack", rule);
    }
    let families = match asked.first() {
        Some(first) if is_free && is_dual && asked.len() == 1 && first == "IPv6" => {
            json!(["IPv6", "IPv4"])
        }
        first if is_free && is_dual && first.is_none_or(|_| asked.len() == 1) => {
            json!(["IPv4", "IPv6"])
        }
        None => json!(["IPv4"]),
        Some(_) => return,
    };
    spec.insert("ipFamilies".into(), families);
}

/// `false`: there is no free address left.
fn address(
    allocations: &Allocations,
    taken: &Taken,
    service: &mut Value,
    old: Option<&Value>,
    charge: &mut Charge,
    faults: &mut Faults,
) -> bool {
    if kind_of(service) == "ExternalName" {
        return true;
    }
    let before = old
        .filter(|old| kind_of(old) != "ExternalName")
        .map(|old| text(old, "clusterIP"));
    let listed = service
        .pointer("/spec/clusterIPs/0")
        .and_then(Value::as_str);
    let listed = listed.unwrap_or("").to_owned();
    let mut asked = text(service, "clusterIP").to_owned();
    if asked.is_empty() {
        // A list alone is enough, and an update may leave both out.
        asked = match before {
            Some(before) if listed.is_empty() || old.is_some() => before.to_owned(),
            _ => listed.clone(),
        };
    }
    if !listed.is_empty() && listed != asked && before.is_none() {
        let rule = "first value must match `clusterIP`";
        faults.invalid("spec.clusterIPs", json!([listed]), rule);
        return true;
    }
    if before.is_some_and(|before| !before.is_empty() && before != asked) {
        let rule = "may not change once set";
        faults.invalid("spec.clusterIPs[0]", json!([asked]), rule);
        return true;
    }
    let chosen = match asked.as_str() {
        "None" => "None".to_owned(),
        "" => {
            let free = taken.ranges.pick(&allocations.range, |one| taken.has(one));
            let Some(address) = free else {
                return false;
            };
            charge.addresses.push(address);
            address.to_string()
        }
        given if before == Some(given) => given.to_owned(),
        given => match check_given(allocations, taken, given) {
            Ok(address) => {
                charge.addresses.push(address);
                given.to_owned()
            }
            Err(rule) => {
                faults.invalid("spec.clusterIPs", json!([given]), rule);
                return true;
            }
        },
    };
    let spec = spec(service);
    spec.insert("clusterIPs".into(), json!([chosen]));
    spec.insert("clusterIP".into(), chosen.into());
    true
}

fn check_given(allocations: &Allocations, taken: &Taken, given: &str) -> Result<IpAddr, String> {
    let failed = |why: String| format!("failed to allocate IP {given}: {why}");
    let address: IpAddr = given
        .parse()
        .map_err(|_| "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned())?;
    if !taken.ranges.contain(&allocations.range, address) {
        let why = "the provided network does not match the current range";
        return Err(failed(why.into()));
    }
    match taken.has(&address) {
        true => Err(failed("provided IP is already allocated".into())),
        false => Ok(address),
    }
}

fn needs_node_ports(service: &Value) -> bool {
    match kind_of(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            let asked = service.pointer("/spec/allocateLoadBalancerNodePorts");
            asked.and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

fn ports(
    allocations: &Allocations,
    taken: &Taken,
    service: &mut Value,
    old: Option<&Value>,
    charge: &mut Charge,
    faults: &mut Faults,
) {
    let before = old.map(node_ports).unwrap_or_default();
    let (needed, kind) = (needs_node_ports(service), kind_of(service).to_owned());
    let health = kind == "LoadBalancer" && text(service, "externalTrafficPolicy") == "Local";
    let was_open =
        old.is_some_and(|old| kind_of(old) == "NodePort" || kind_of(old) == "LoadBalancer");
    let closes = was_open && matches!(kind.as_str(), "ClusterIP" | "ExternalName");
    let mut names: Vec<(u16, String)> = Vec::new();
    let list = service
        .pointer_mut("/spec/ports")
        .and_then(Value::as_array_mut);
    for (at, port) in list.into_iter().flatten().enumerate() {
        let own = protocol(port);
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        let asked = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        let Ok(asked) = u16::try_from(asked) else {
            faults.invalid(
                format!("spec.ports[{at}].nodePort"),
                asked,
                out_of_range(allocations),
            );
            continue;
        };
        if asked != 0 && closes && before.contains(&(asked, own.clone())) {
            port.remove("nodePort");
            continue;
        }
        if asked != 0 {
            let claim = (asked, own);
            if let Err(rule) = check_port(allocations, taken, &before, &names, &claim) {
                faults.invalid(format!("spec.ports[{at}].nodePort"), asked, rule);
                continue;
            }
            hold(&mut names, charge, &before, claim);
        } else if needed {
            let same = old.and_then(|old| previous(old, port));
            let free = |number: &u16| {
                let claim = (*number, own.clone());
                !taken.ports.is_taken(&claim) && !names.contains(&claim)
            };
            let Some(number) = same.or_else(|| pick(allocations, free)) else {
                let rule = "failed to allocate a nodePort: range is full";
                let field = format!("spec.ports[{at}].nodePort");
                faults.add(field, meta::FaultKind::Internal, Value::Null, rule);
                continue;
            };
            port.insert("nodePort".into(), number.into());
            hold(&mut names, charge, &before, (number, own));
        }
    }
    let asked = service.pointer("/spec/healthCheckNodePort");
    let unasked = asked.and_then(Value::as_i64).unwrap_or(0) == 0;
    if health && unasked {
        let kept = old.and_then(health_port);
        let free = |number: &u16| {
            let claim = (*number, "TCP".to_owned());
            !taken.ports.is_taken(&claim) && !names.contains(&claim)
        };
        if let Some(number) = kept.or_else(|| pick(allocations, free)) {
            spec(service).insert("healthCheckNodePort".into(), number.into());
            hold(&mut names, charge, &before, (number, "TCP".into()));
        }
    } else if !health {
        spec(service).remove("healthCheckNodePort");
    }
}

fn hold(
    names: &mut Vec<(u16, String)>,
    charge: &mut Charge,
    before: &[(u16, String)],
    claim: (u16, String),
) {
    if !before.contains(&claim) {
        charge.ports.push(claim.clone());
    }
    names.push(claim);
}

/// The node port that the same port had before.
fn previous(old: &Value, port: &Map<String, Value>) -> Option<u16> {
    let ports = old.pointer("/spec/ports").and_then(Value::as_array)?;
    let same = ports.iter().find(|before| {
        before.get("port") == port.get("port") && before.get("protocol") == port.get("protocol")
    })?;
    let number = same.get("nodePort").and_then(Value::as_u64)?;
    u16::try_from(number).ok().filter(|number| *number > 0)
}

fn check_port(
    allocations: &Allocations,
    taken: &Taken,
    before: &[(u16, String)],
    names: &[(u16, String)],
    claim: &(u16, String),
) -> Result<(), String> {
    if !allocations.ports.contains(&claim.0) {
        return Err(out_of_range(allocations));
    }
    let foreign = taken.ports.is_taken(claim) && !before.contains(claim);
    match foreign || names.contains(claim) {
        true => Err("provided port is already allocated".into()),
        false => Ok(()),
    }
}

fn out_of_range(allocations: &Allocations) -> String {
    let range = &allocations.ports;
    format!(
        "provided port is not in the valid range. The range of valid ports is {}-{}",
        range.start(),
        range.end()
    )
}

fn pick(allocations: &Allocations, free: impl Fn(&u16) -> bool) -> Option<u16> {
    let (first, last) = (*allocations.ports.start(), *allocations.ports.end());
    let reserved = ((last - first) / 32)
        .clamp(16, STATIC_PORTS_MAX)
        .min(last - first);
    let upper = first + reserved;
    let start = rand::random_range(upper..=last);
    let above = (start..=last).chain(upper..start);
    above.chain(first..upper).find(|number| free(number))
}
