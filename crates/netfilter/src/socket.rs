//! The way to the kernel.

use std::io;

use netlink_sys::{SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::batch::{
    Batch, CHAIN_HOOK, FAMILY_IPV4, Family, RULE_USER_DATA, SUBSYSTEM, comment_bytes,
};
use crate::message::{
    FULL_HEADER, HEADER, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Writer, attribute,
    attributes, messages,
};
use crate::set::{Element, Value};

/// A transaction must fit the send buffer as a whole.
const SEND_BUFFER: usize = 128 << 20;
const RECEIVE_BUFFER: usize = 4 << 20;
/// The kernel answers at once; this only guards against waiting for ever.
const ANSWER_SECONDS: i64 = 30;

/// What can go wrong between here and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
    #[error("kernel refused to {step} (message {index} of {count}): {source}{detail}")]
    Refused {
        /// What the message was to do.
        step: String,
        index: usize,
        count: usize,
        source: io::Error,
        /// The kernel's own words, when it has any.
        detail: String,
    },
    #[error("netlink: malformed answer")]
    Malformed,
}

impl Error {
    /// The error number, when the kernel gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io(error) | Error::Refused { source: error, .. } => error.raw_os_error(),
            Error::Malformed => None,
        }
    }
}

/// A netfilter socket. Calls block, for milliseconds at most.
pub struct Socket {
    socket: netlink_sys::Socket,
    pub(crate) sequence: u32,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("netfilter::Socket")
    }
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Socket, Error> {
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        // Without the capability the ordinary limit must do; large batches then fail with ENOBUFS.
        setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).ok();
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        let patience = TimeVal::new(ANSWER_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).map_err(io::Error::from)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Socket {
            socket,
            sequence: 0,
        })
    }

    /// Commits a transaction. On error nothing of it has happened.
    pub fn apply(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let finished = batch.finish();
        self.send(&finished.bytes)?;
        let last = finished.steps.len() as u32;
        let mut fault = None;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let answer = Answer::of(message.payload)?;
                if let Some(source) = answer.error {
                    let index = message.sequence as usize;
                    let step = finished.steps.get(index.wrapping_sub(1));
                    let (verb, name) = step.map_or(("commit", ""), |(v, n)| (*v, n));
                    fault.get_or_insert(Error::Refused {
                        step: format!("{verb} {name}"),
                        index,
                        count: finished.steps.len(),
                        source,
                        detail: answer.detail,
                    });
                }
                // The answer to the last message comes last; sequence 0 is the batch itself.
                if message.sequence == last || message.sequence == 0 {
                    return fault.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Puts `content` in place of whatever the table holds. `frame` adds the
    /// table's sets and base chains; those that are there already stay, and of
    /// the sets only those named in `sets` are emptied. The base chains stay
    /// because the kernel replaces the rules of one chain at one stroke, but
    /// between an old and a new chain a packet could slip through unchanged,
    /// and its connection would remain so.
    pub fn put_table(
        &mut self,
        table: &str,
        sets: &[&str],
        frame: impl Fn(&mut Batch),
        content: impl Fn(&mut Batch),
    ) -> Result<(), Error> {
        self.put_table_of(Family::Ipv4, table, sets, frame, content)
    }

    /// The same for a table of a family.
    pub fn put_table_of(
        &mut self,
        family: Family,
        table: &str,
        sets: &[&str],
        frame: impl Fn(&mut Batch),
        content: impl Fn(&mut Batch),
    ) -> Result<(), Error> {
        let mut batch = Batch::of(family, table);
        batch.add_table();
        frame(&mut batch);
        batch.delete_all_rules();
        for set in sets {
            batch.delete_all_elements(set);
        }
        for chain in self.plain_chains(family, table)? {
            batch.delete_chain(&chain);
        }
        content(&mut batch);
        match self.apply(batch) {
            Err(Error::Refused { .. }) => {
                // A table of the same name, but of another make.
                let mut batch = Batch::of(family, table);
                batch.replace_table();
                frame(&mut batch);
                content(&mut batch);
                self.apply(batch)
            }
            result => result,
        }
    }

    /// The chains of a table other than its base chains; none without the table.
    fn plain_chains(&mut self, family: Family, table: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        self.chains(family, table, |name, body| {
            if attribute(body, CHAIN_HOOK).is_none() {
                found.push(name.to_owned());
            }
        })?;
        Ok(found)
    }

    /// Whether packets that reach the end of a base chain are dropped; not
    /// without such a chain.
    pub fn drops_by_default(&mut self, table: &str, chain: &str) -> Result<bool, Error> {
        const POLICY: u16 = 5;
        const DROP: [u8; 4] = [0; 4];
        let mut drops = false;
        self.chains(Family::Ipv4, table, |name, body| {
            drops |= name == chain && attribute(body, POLICY) == Some(&DROP[..]);
        })?;
        Ok(drops)
    }

    fn chains(
        &mut self,
        family: Family,
        table: &str,
        mut each: impl FnMut(&str, &[u8]),
    ) -> Result<(), Error> {
        const GET_CHAIN: u16 = 4;
        let kind = (SUBSYSTEM << 8) | GET_CHAIN;
        let own = |body: &[u8]| {
            let ours = attribute(body, 1).map(text)? == table;
            ours.then(|| attribute(body, 3).map(text)).flatten()
        };
        let each = |body: &[u8]| {
            if let Some(name) = own(body) {
                each(&name, body);
            }
        };
        self.dump(kind, family.code(), |_| {}, each)
    }

    /// Whether a chain has a rule with this comment.
    pub fn has_rule(&mut self, table: &str, chain: &str, comment: &str) -> Result<bool, Error> {
        const GET_RULE: u16 = 7;
        let kind = (SUBSYSTEM << 8) | GET_RULE;
        let wanted = comment_bytes(comment);
        let mut found = false;
        let each = |body: &[u8]| {
            let here = attribute(body, 1).map(text).as_deref() == Some(table)
                && attribute(body, 2).map(text).as_deref() == Some(chain);
            found |= here && attribute(body, RULE_USER_DATA) == Some(&wanted[..]);
        };
        self.dump(kind, FAMILY_IPV4, |_| {}, each)?;
        Ok(found)
    }

    /// What is in a map of data; a table or map that is absent is empty.
    pub fn map_elements(&mut self, table: &str, map: &str) -> Result<Vec<(Value, Value)>, Error> {
        const GET_ELEMENT: u16 = 13;
        let kind = (SUBSYSTEM << 8) | GET_ELEMENT;
        let mut found = Vec::new();
        let result = self.dump(
            kind,
            FAMILY_IPV4,
            |writer| {
                writer.text(1, table);
                writer.text(2, map);
            },
            |body| {
                let elements = attribute(body, 3).unwrap_or(&[]);
                found.extend(attributes(elements).filter_map(|(_, element)| {
                    let part = |kind| Value::from_bytes(attribute(attribute(element, kind)?, 1)?);
                    Some((part(1)?, part(2)?))
                }));
            },
        );
        match result {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(Vec::new()),
            result => result.map(|()| found),
        }
    }

    /// Deletes elements that may be gone already, one transaction each.
    pub fn forget_elements(
        &mut self,
        table: &str,
        set: &str,
        keys: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        for key in keys {
            let mut batch = Batch::new(table);
            batch.delete_elements(set, [&Element::Key(key)]);
            match self.apply(batch) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Asks for all objects of a kind; `each` sees the attributes of every answer.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut writer = Writer::default();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let open = writer.begin(kind, flags, self.sequence, family, 0);
        fill(&mut writer);
        writer.end(open);
        self.send(&writer.0)?;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Answer::of(message.payload)?.into_result("list"),
                    _ => each(message.payload.get(FULL_HEADER - HEADER..).unwrap_or(&[])),
                }
            }
        }
    }

    /// Sends one message and waits for its answer.
    pub(crate) fn call(&mut self, message: &[u8], verb: &'static str) -> Result<(), Error> {
        self.send(message)?;
        loop {
            let datagram = self.receive()?;
            for answer in messages(&datagram) {
                if answer.sequence == self.sequence && answer.kind == NLMSG_ERROR {
                    return Answer::of(answer.payload)?.into_result(verb);
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.socket.send(bytes, 0)?;
        (sent == bytes.len()).then_some(()).ok_or(Error::Malformed)
    }

    fn receive(&self) -> Result<Vec<u8>, Error> {
        Ok(self.socket.recv_from_full()?.0)
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\0').to_owned()
}

/// The content of an `NLMSG_ERROR`, which also carries success.
struct Answer {
    error: Option<io::Error>,
    detail: String,
}

impl Answer {
    fn of(payload: &[u8]) -> Result<Answer, Error> {
        const MESSAGE: u16 = 1;
        let code = payload.get(..4).and_then(|code| code.try_into().ok());
        let code = i32::from_ne_bytes(code.ok_or(Error::Malformed)?);
        // With capped answers only the header of our message comes back before the attributes.
        let extra = payload.get(4 + HEADER..).unwrap_or(&[]);
        let words = attribute(extra, MESSAGE).map(|text| {
            let text = String::from_utf8_lossy(text);
            format!(" ({})", text.trim_end_matches('\0'))
        });
        Ok(Answer {
            error: (code != 0).then(|| io::Error::from_raw_os_error(-code)),
            detail: words.unwrap_or_default(),
        })
    }

    fn into_result(self, step: &str) -> Result<(), Error> {
        let Some(source) = self.error else {
            return Ok(());
        };
        Err(Error::Refused {
            step: step.to_owned(),
            index: 1,
            count: 1,
            source,
            detail: self.detail,
        })
    }
}
