//! Values of the libraries.

use std::cmp::Ordering;
use std::net::IpAddr;

use meta::Quantity;

use crate::authorizer::{Decision, GroupCheck, PathCheck, ResourceCheck, UserAuthorizer};
use crate::functions::NamedFormat;
use crate::semver::Version;
use crate::url::Url;

/// A value whose inside only its library knows.
#[derive(Debug, Clone)]
pub enum Opaque {
    /// `authorizer`
    Authorizer(UserAuthorizer),
    /// `authorizer.path(...)`
    PathCheck(PathCheck),
    /// `authorizer.group(...)`
    GroupCheck(GroupCheck),
    /// `authorizer.group(...).resource(...)`
    ResourceCheck(Box<ResourceCheck>),
    /// What a check answered.
    Decision(Decision),
    /// `quantity(...)`
    Quantity(Quantity),
    /// `semver(...)`
    Semver(Version),
    /// `url(...)`
    Url(Box<Url>),
    /// `ip(...)`
    Ip(IpAddr),
    /// `cidr(...)`
    Cidr(IpAddr, u8),
    /// `format.dns1123Label()` and others
    Format(&'static NamedFormat),
}

impl Opaque {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(..) => "net.CIDR",
            Opaque::Format(_) => "kubernetes.NamedFormat",
        }
    }

    /// The order of amounts and of versions; others have none.
    pub(crate) fn compare(&self, other: &Opaque) -> Option<Ordering> {
        match (self, other) {
            (Opaque::Quantity(one), Opaque::Quantity(two)) => Some(one.cmp(two)),
            (Opaque::Semver(one), Opaque::Semver(two)) => Some(one.cmp(two)),
            _ => None,
        }
    }

    pub(crate) fn equals(&self, other: &Opaque) -> bool {
        match (self, other) {
            (Opaque::Url(one), Opaque::Url(two)) => one == two,
            (Opaque::Ip(one), Opaque::Ip(two)) => one == two,
            (Opaque::Cidr(one, length), Opaque::Cidr(two, other)) => one == two && length == other,
            (Opaque::Format(one), Opaque::Format(two)) => one.shown == two.shown,
            (Opaque::Decision(one), Opaque::Decision(two)) => one == two,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// How big it counts for costs: an address by its bytes, all else once.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Opaque::Ip(own) | Opaque::Cidr(own, _) => {
                if own.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            _ => 1,
        }
    }

    /// As `string()` shows it, where that is possible.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Opaque::Ip(own) => Some(own.to_string()),
            Opaque::Cidr(own, length) => Some(format!("{own}/{length}")),
            Opaque::Quantity(own) => Some(own.to_string()),
            _ => None,
        }
    }
}
