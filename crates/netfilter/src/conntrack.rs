//! Connections the kernel remembers, and making it forget some.

use std::net::Ipv4Addr;

use crate::batch::FAMILY_IPV4;
use crate::message::{NLM_F_ACK, NLM_F_REQUEST, Writer, attribute};
use crate::socket::{Error, Socket};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;

/// One remembered connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    /// Whom the client thinks it talks to.
    pub destination: Ipv4Addr,
    pub destination_port: u16,
    /// Who really answers.
    pub endpoint: Ipv4Addr,
    pub endpoint_port: u16,
}

/// Makes the kernel forget the IPv4 connections `unwanted` picks; returns how many.
/// The next packet of such a connection is translated afresh.
pub fn forget(
    socket: &mut Socket,
    mut unwanted: impl FnMut(&Flow) -> bool,
) -> Result<usize, Error> {
    let mut tuples = Vec::new();
    let kind = (SUBSYSTEM << 8) | GET;
    let each = |body: &[u8]| {
        if let (Some(flow), Some(original)) = (flow(body), attribute(body, TUPLE_ORIGINAL))
            && unwanted(&flow)
        {
            tuples.push(original.to_vec());
        }
    };
    socket.dump(kind, FAMILY_IPV4, |_| {}, each)?;
    let found = tuples.len();
    for tuple in tuples {
        match delete(socket, &tuple) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            result => result?,
        }
    }
    Ok(found)
}

fn delete(socket: &mut Socket, original: &[u8]) -> Result<(), Error> {
    socket.sequence = socket.sequence.wrapping_add(1);
    let mut writer = Writer::default();
    let kind = (SUBSYSTEM << 8) | DELETE;
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let open = writer.begin(kind, flags, socket.sequence, FAMILY_IPV4, 0);
    let nest = writer.nest(TUPLE_ORIGINAL);
    writer.raw(original);
    writer.end_nest(nest);
    writer.end(open);
    socket.call(&writer.0, "forget a connection")
}

fn flow(body: &[u8]) -> Option<Flow> {
    let original = tuple(attribute(body, TUPLE_ORIGINAL)?)?;
    let reply = tuple(attribute(body, TUPLE_REPLY)?)?;
    Some(Flow {
        protocol: original.protocol,
        destination: original.destination,
        destination_port: original.destination_port,
        endpoint: reply.source,
        endpoint_port: reply.source_port,
    })
}

struct Tuple {
    protocol: u8,
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (addresses, ports) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
    let address = |kind| {
        let octets: [u8; 4] = attribute(addresses, kind)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |kind| {
        let bytes: [u8; 2] = attribute(ports, kind)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    Some(Tuple {
        protocol: *attribute(ports, 1)?.first()?,
        source: address(1)?,
        source_port: port(2)?,
        destination: address(2)?,
        destination_port: port(3)?,
    })
}
