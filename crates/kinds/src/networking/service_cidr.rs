//! ServiceCIDR: a range from which services get their addresses.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::metadata::IMMUTABLE;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, rules};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, CIDRs, Age";

pub(crate) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        let path = spec.path("cidrs");
        match spec.count("cidrs") {
            0 => return faults.required(path, "at least one CIDR required"),
            1 | 2 => {}
            _ => {
                let rule = "may only hold up to 2 values";
                return faults.invalid(path, spec.at("cidrs").clone(), rule);
            }
        }
        for range in spec.items("cidrs") {
            let text = range.as_str().unwrap_or("");
            rules(faults, range.path.clone(), text, naming::cidr(text));
        }
        let ranges: Vec<&str> = spec.texts("cidrs").collect();
        if let [one, other] = ranges.as_slice()
            && family(one).is_some()
            && family(one) == family(other)
        {
            let rule = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 \
                        and 2001:db8::/64";
            faults.invalid(path, spec.at("cidrs").clone(), rule);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let (now, then) = (object.list("spec.cidrs"), old.list("spec.cidrs"));
        let grows = then.len() == 1 && now.len() == 2;
        if now.len() != then.len() && !grows {
            let shown = object.at("spec.cidrs").clone();
            return faults.invalid("spec.cidrs", shown, IMMUTABLE);
        }
        for (index, (new, _)) in now
            .iter()
            .zip(then)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            faults.invalid(format!("spec.cidrs[{index}]"), new.clone(), IMMUTABLE);
        }
        if grows {
            self.validate_create(object, faults);
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let ranges: Vec<_> = object.texts("spec.cidrs").collect();
        cells![name(object), ranges.join(","), age(object, now)]
    }
}

/// Whether a range is of version 6; nothing where it is none.
fn family(range: &str) -> Option<bool> {
    let (address, _) = range.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    Some(address.is_ipv6())
}
