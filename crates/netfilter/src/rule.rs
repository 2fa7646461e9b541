//! Rules: a list of small steps over registers.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::message::Writer;

/// One of sixteen 32-bit registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    fn code(self) -> u32 {
        // NFT_REG32_00; lower numbers are the four 128-bit registers.
        8 + u32::from(self.0)
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(crate) fn write(&self, writer: &mut Writer) {
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3i32, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        let nest = writer.nest(2);
        writer.number(1, code as u32);
        if let Some(chain) = chain {
            writer.text(2, chain);
        }
        writer.end_nest(nest);
    }
}

/// What can be put into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    SourceAddress,
    DestinationAddress,
    /// Four registers, as the next.
    SourceAddress6,
    DestinationAddress6,
    DestinationPort,
    Protocol,
    IcmpType,
    Mark,
    /// What is known of the packet's connection, as one bit.
    ConnectionState,
    /// Bits on the connection itself.
    ConnectionStatus,
    InputInterface,
    OutputInterface,
    /// The kind of address (local, broadcast, …) the routing table sees.
    SourceAddressType,
    DestinationAddressType,
    /// A random number from `offset` up to `offset + modulus - 1`.
    Random {
        modulus: u32,
        offset: u32,
    },
}

/// `RTN_LOCAL`: an address of this machine.
const ADDRESS_TYPE_LOCAL: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const META_MARK: u32 = 3;
/// Bits of [`Load::ConnectionState`]: packets of a connection that is there, or that has to do with one.
const ESTABLISHED_OR_RELATED: u32 = 1 << 1 | 1 << 2;
/// `IPS_DST_NAT`: a rule has given it another destination.
const HAS_OTHER_DESTINATION: u32 = 1 << 5;
/// Longest interface name, with NUL.
const INTERFACE_NAME: usize = 16;

/// A rule under construction. Steps run in order; a comparison that does not
/// hold ends the rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    writer: Writer,
}

impl Rule {
    /// A rule without steps.
    pub fn new() -> Rule {
        Rule::default()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.writer.0
    }

    /// Puts something into a register.
    pub fn load(self, what: Load, to: Register) -> Rule {
        let payload = |rule: Rule, base: u32, offset: u32, length: u32| {
            rule.step("payload", |w| {
                w.number(1, to.code());
                w.number(2, base);
                w.number(3, offset);
                w.number(4, length);
            })
        };
        let meta = |rule: Rule, key: u32| {
            rule.step("meta", |w| {
                w.number(1, to.code());
                w.number(2, key);
            })
        };
        let fib = |rule: Rule, flags: u32| {
            rule.step("fib", |w| {
                w.number(1, to.code());
                w.number(2, 3);
                w.number(3, flags);
            })
        };
        let connection = |rule: Rule, key: u32| {
            rule.step("ct", |w| {
                w.number(1, to.code());
                w.number(2, key);
            })
        };
        match what {
            Load::ConnectionState => connection(self, 0),
            Load::ConnectionStatus => connection(self, 2),
            Load::SourceAddress => payload(self, NETWORK_HEADER, 12, 4),
            Load::DestinationAddress => payload(self, NETWORK_HEADER, 16, 4),
            Load::SourceAddress6 => payload(self, NETWORK_HEADER, 8, 16),
            Load::DestinationAddress6 => payload(self, NETWORK_HEADER, 24, 16),
            Load::DestinationPort => payload(self, TRANSPORT_HEADER, 2, 2),
            Load::IcmpType => payload(self, TRANSPORT_HEADER, 0, 1),
            Load::Protocol => meta(self, 16),
            Load::Mark => meta(self, META_MARK),
            Load::InputInterface => meta(self, 6),
            Load::OutputInterface => meta(self, 7),
            Load::SourceAddressType => fib(self, 1),
            Load::DestinationAddressType => fib(self, 2),
            Load::Random { modulus, offset } => self.step("numgen", |w| {
                w.number(1, to.code());
                w.number(2, modulus);
                w.number(3, 1);
                w.number(4, offset);
            }),
        }
    }

    /// Loads several things into neighbouring registers, the key of a lookup.
    pub fn load_key(self, parts: &[Load], first: Register) -> Rule {
        parts.iter().zip(first.0..).fold(self, |rule, (part, at)| {
            // A port fills half a register; the kernel zeroes the rest.
            rule.load(*part, Register(at))
        })
    }

    /// Goes on only if the register holds these bytes (or, negated, others).
    pub fn compare(self, register: Register, equal: bool, bytes: &[u8]) -> Rule {
        self.step("cmp", |w| {
            w.number(1, register.code());
            w.number(2, u32::from(!equal));
            data(w, 3, bytes);
        })
    }

    /// `register = (register & mask) ^ flip`.
    pub fn bits(self, register: Register, mask: [u8; 4], flip: [u8; 4]) -> Rule {
        self.masked(register, &mask, &flip)
    }

    fn masked(self, register: Register, mask: &[u8], flip: &[u8]) -> Rule {
        self.step("bitwise", |w| {
            w.number(1, register.code());
            w.number(2, register.code());
            w.number(3, mask.len() as u32);
            data(w, 4, mask);
            data(w, 5, flip);
        })
    }

    /// [`Rule::address`] for IPv6; `what` is one of its addresses.
    pub fn address6(self, what: Load, within: bool, network: (Ipv6Addr, u8)) -> Rule {
        let scratch = Register(0);
        let (address, prefix) = network;
        let mask = match prefix {
            0 => return if within { self } else { self.never() },
            prefix => u128::MAX << (128 - u32::from(prefix.min(128))),
        };
        let rule = self.load(what, scratch);
        let rule = match prefix {
            128.. => rule,
            _ => rule.masked(scratch, &mask.to_be_bytes(), &[0; 16]),
        };
        let network = (address.to_bits() & mask).to_be_bytes();
        rule.compare(scratch, within, &network)
    }

    /// Goes on only if the source (or destination) lies in a network (or outside of it).
    pub fn address(self, what: Load, within: bool, network: (Ipv4Addr, u8)) -> Rule {
        let scratch = Register(0);
        let (address, prefix) = network;
        let mask = match prefix {
            0 => return if within { self } else { self.never() },
            prefix => u32::MAX << (32 - u32::from(prefix.min(32))),
        };
        let rule = self.load(what, scratch);
        let rule = match prefix {
            32.. => rule,
            _ => rule.bits(scratch, mask.to_be_bytes(), [0; 4]),
        };
        let network = (address.to_bits() & mask).to_be_bytes();
        rule.compare(scratch, within, &network)
    }

    /// Goes on only if the packet came in (or goes out) by this interface.
    pub fn interface(self, what: Load, name: &str) -> Rule {
        let mut bytes = [0; INTERFACE_NAME];
        let length = name.len().min(INTERFACE_NAME - 1);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.load(what, Register(0))
            .compare(Register(0), true, &bytes)
    }

    /// Goes on only if the destination belongs to this machine.
    pub fn to_this_machine(self) -> Rule {
        self.load(Load::DestinationAddressType, Register(0))
            .compare(Register(0), true, &ADDRESS_TYPE_LOCAL.to_ne_bytes())
    }

    /// Goes on only if the source belongs to this machine.
    pub fn from_this_machine(self) -> Rule {
        self.load(Load::SourceAddressType, Register(0)).compare(
            Register(0),
            true,
            &ADDRESS_TYPE_LOCAL.to_ne_bytes(),
        )
    }

    /// Goes on only if the bit of the packet's mark is set.
    pub fn has_mark(self, bit: u32) -> Rule {
        self.load(Load::Mark, Register(0))
            .bits(Register(0), bit.to_ne_bytes(), [0; 4])
            .compare(Register(0), true, &bit.to_ne_bytes())
    }

    /// Goes on only for packets that belong to a connection which was let through, or answer to it.
    pub fn belongs_to_connection(self) -> Rule {
        self.any_bit(Load::ConnectionState, ESTABLISHED_OR_RELATED)
    }

    /// Goes on only if a rule has sent the connection elsewhere than its client meant.
    pub fn is_redirected(self) -> Rule {
        self.any_bit(Load::ConnectionStatus, HAS_OTHER_DESTINATION)
    }

    fn any_bit(self, what: Load, bits: u32) -> Rule {
        self.load(what, Register(0))
            .bits(Register(0), bits.to_ne_bytes(), [0; 4])
            .compare(Register(0), false, &[0; 4])
    }

    /// Goes on only for packets of this protocol.
    pub fn protocol(self, number: u8) -> Rule {
        self.load(Load::Protocol, Register(0))
            .compare(Register(0), true, &[number])
    }

    /// Sets a bit of the packet's mark.
    pub fn set_mark(self, bit: u32) -> Rule {
        self.write_mark(!bit, bit)
    }

    /// Clears a bit of the packet's mark.
    pub fn clear_mark(self, bit: u32) -> Rule {
        self.write_mark(!bit, 0)
    }

    /// Goes on only if the set has the key that starts in `key`.
    pub fn is_in(self, set: &str, key: Register) -> Rule {
        self.step("lookup", |w| {
            w.text(1, set);
            w.number(2, key.code());
        })
    }

    /// Does what the verdict map says of the key; goes on when it says nothing.
    pub fn verdict_of(self, map: &str, key: Register) -> Rule {
        self.step("lookup", |w| {
            w.text(1, map);
            w.number(2, key.code());
            w.number(3, 0);
        })
    }

    /// Loads what the map says of the key; goes on only when it says something.
    pub fn value_of(self, map: &str, key: Register, to: Register) -> Rule {
        self.step("lookup", |w| {
            w.text(1, map);
            w.number(2, key.code());
            w.number(3, to.code());
        })
    }

    /// Puts a constant into a register.
    pub fn constant(self, bytes: &[u8], to: Register) -> Rule {
        self.step("immediate", |w| {
            w.number(1, to.code());
            data(w, 2, bytes);
        })
    }

    /// Adds the key to a dynamic set, where it stays for `time`; a key that is
    /// there stays longer.
    pub fn remember(self, set: &str, key: Register, time: Duration) -> Rule {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.step("dynset", |w| {
            w.text(1, set);
            w.number(3, 1);
            w.number(4, key.code());
            w.bytes(6, &milliseconds.to_be_bytes());
        })
    }

    /// Sends the connection to the address and port in these registers.
    pub fn dnat(self, address: Register, port: Register) -> Rule {
        self.dnat_of(crate::Family::Ipv4, address, port)
    }

    /// The same for a family's addresses.
    pub fn dnat_of(self, family: crate::Family, address: Register, port: Register) -> Rule {
        self.step("nat", |w| {
            w.number(1, 1);
            w.number(2, u32::from(family.code()));
            w.number(3, address.code());
            w.number(5, port.code());
        })
    }

    /// Gives the connection the address of the interface it leaves by.
    pub fn masquerade(self) -> Rule {
        const FULLY_RANDOM: u32 = 0x10;
        self.step("masq", |w| w.number(1, FULLY_RANDOM))
    }

    /// Answers "port unreachable". The kernel limits how often it does so.
    pub fn reject(self) -> Rule {
        self.step("reject", |w| {
            w.number(1, 0);
            w.bytes(2, &[3]);
        })
    }

    /// Resets a TCP connection; goes on if it is none.
    pub fn reset(self) -> Rule {
        const TCP: u8 = 6;
        self.protocol(TCP).step("reject", |w| w.number(1, 1))
    }

    /// Decides.
    pub fn verdict(self, verdict: Verdict) -> Rule {
        self.step("immediate", |w| {
            w.number(1, 0);
            let nest = w.nest(2);
            verdict.write(w);
            w.end_nest(nest);
        })
    }

    fn never(self) -> Rule {
        self.load(Load::Protocol, Register(0))
            .compare(Register(0), true, &[255])
    }

    fn write_mark(self, mask: u32, flip: u32) -> Rule {
        self.load(Load::Mark, Register(0))
            .bits(Register(0), mask.to_ne_bytes(), flip.to_ne_bytes())
            .step("meta", |w| {
                w.number(2, META_MARK);
                w.number(3, Register(0).code());
            })
    }

    fn step(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Rule {
        let writer = &mut self.writer;
        let element = writer.nest(1);
        writer.text(1, name);
        let data = writer.nest(2);
        fill(writer);
        writer.end_nest(data);
        writer.end_nest(element);
        self
    }
}

fn data(writer: &mut Writer, kind: u16, bytes: &[u8]) {
    let nest = writer.nest(kind);
    writer.bytes(1, bytes);
    writer.end_nest(nest);
}
