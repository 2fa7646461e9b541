//! Transactions of nf_tables.

use crate::message::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, Open, Writer};
use crate::rule::Rule;
use crate::set::{Element, SetSpec};

pub(crate) const SUBSYSTEM: u16 = 10;
pub(crate) const FAMILY_IPV4: u8 = 2;
pub(crate) const FAMILY_IPV6: u8 = 10;
pub(crate) const CHAIN_HOOK: u16 = 4;
pub(crate) const RULE_USER_DATA: u16 = 7;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

/// Elements in one message: its nest is limited to 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Usual priorities of base chains.
pub mod priority {
    pub const RAW: i32 = -300;
    pub const DNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SNAT: i32 = 100;
}

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) fn code(self) -> u8 {
        match self {
            Family::Ipv4 => FAMILY_IPV4,
            Family::Ipv6 => FAMILY_IPV6,
        }
    }
}

/// Where in a packet's way a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    pub kind: HookKind,
    pub priority: i32,
    /// Sees the first packet of each connection only, and may translate addresses.
    pub nat: bool,
}

/// A transaction under construction, for one table.
#[derive(Clone, Debug)]
pub struct Batch {
    writer: Writer,
    table: String,
    family: Family,
    /// Where the last message starts, so that it can ask for an answer.
    last: usize,
    /// What each message does, for error messages.
    steps: Vec<(&'static str, String)>,
    sets: u32,
}

impl Batch {
    /// An empty transaction on the IPv4 table `table`.
    pub fn new(table: &str) -> Batch {
        Batch::of(Family::Ipv4, table)
    }

    /// An empty transaction on `table` of a family.
    pub fn of(family: Family, table: &str) -> Batch {
        let mut writer = Writer::default();
        let open = writer.begin(BATCH_BEGIN, NLM_F_REQUEST, 0, 0, SUBSYSTEM);
        writer.end(open);
        Batch {
            writer,
            table: table.to_owned(),
            family,
            last: 0,
            steps: Vec::new(),
            sets: 0,
        }
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Creates the table unless it is there.
    pub fn add_table(&mut self) {
        let open = self.begin(NEW_TABLE, NLM_F_CREATE, "add table", "");
        self.writer.number(2, 0);
        self.writer.end(open);
    }

    /// Deletes the table with all it has. It must exist: see [`Batch::replace_table`].
    pub fn delete_table(&mut self) {
        let open = self.begin(DELETE_TABLE, 0, "delete table", "");
        self.writer.end(open);
    }

    /// Starts from an empty table, whether or not one is there.
    pub fn replace_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    /// Creates a chain; with a hook, a base chain with policy accept.
    pub fn add_chain(&mut self, chain: &str, hook: Option<Hook>) {
        let open = self.begin(NEW_CHAIN, NLM_F_CREATE, "add chain", chain);
        self.writer.text(3, chain);
        if let Some(hook) = hook {
            self.writer.text(7, if hook.nat { "nat" } else { "filter" });
            let nest = self.writer.nest(CHAIN_HOOK);
            self.writer.number(1, hook.kind as u32);
            self.writer.number(2, hook.priority as u32);
            self.writer.end_nest(nest);
        }
        self.writer.end(open);
    }

    /// Deletes a chain and its rules. Nothing may lead to it any more.
    pub fn delete_chain(&mut self, chain: &str) {
        let open = self.begin(DELETE_CHAIN, 0, "delete chain", chain);
        self.writer.text(3, chain);
        self.writer.end(open);
    }

    /// Appends a rule to a chain.
    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        self.add_rule_with_comment(chain, rule, None);
    }

    /// Appends a rule that can be told from others by its comment.
    pub fn add_commented_rule(&mut self, chain: &str, rule: &Rule, comment: &str) {
        self.add_rule_with_comment(chain, rule, Some(comment));
    }

    fn add_rule_with_comment(&mut self, chain: &str, rule: &Rule, comment: Option<&str>) {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        let open = self.begin(NEW_RULE, flags, "add rule to", chain);
        self.writer.text(2, chain);
        let nest = self.writer.nest(4);
        self.writer.raw(rule.bytes());
        self.writer.end_nest(nest);
        if let Some(comment) = comment {
            self.writer.bytes(RULE_USER_DATA, &comment_bytes(comment));
        }
        self.writer.end(open);
    }

    /// Deletes the rules of all chains of the table.
    pub fn delete_all_rules(&mut self) {
        let open = self.begin(DELETE_RULE, 0, "delete rules", "");
        self.writer.end(open);
    }

    /// Creates a set or map, unless there is one just like it.
    pub fn add_set(&mut self, spec: &SetSpec<'_>) {
        self.sets += 1;
        let open = self.begin(NEW_SET, NLM_F_CREATE, "add set", spec.name);
        spec.write(&mut self.writer, self.sets);
        self.writer.end(open);
    }

    /// Adds elements to a set or map.
    pub fn add_elements<'a>(&mut self, set: &str, elements: impl IntoIterator<Item = &'a Element>) {
        self.elements(NEW_ELEMENT, NLM_F_CREATE, "add elements to", set, elements);
    }

    /// Deletes elements of a set or map; each must be there.
    pub fn delete_elements<'a>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        self.elements(DELETE_ELEMENT, 0, "delete elements of", set, elements);
    }

    /// Empties a set or map.
    pub fn delete_all_elements(&mut self, set: &str) {
        let open = self.begin(DELETE_ELEMENT, 0, "empty", set);
        self.writer.text(2, set);
        self.writer.end(open);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        verb: &'static str,
        set: &str,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let open = self.begin(kind, flags, verb, set);
            self.writer.text(2, set);
            let nest = self.writer.nest(3);
            for element in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                element.write(&mut self.writer, kind == NEW_ELEMENT);
            }
            self.writer.end_nest(nest);
            self.writer.end(open);
        }
    }

    /// Sequence numbers count messages from 1.
    fn begin(&mut self, kind: u16, flags: u16, verb: &'static str, name: &str) -> Open {
        self.steps.push((verb, name.to_owned()));
        self.last = self.writer.0.len();
        let kind = (SUBSYSTEM << 8) | kind;
        let sequence = self.steps.len() as u32;
        let open = self
            .writer
            .begin(kind, NLM_F_REQUEST | flags, sequence, self.family.code(), 0);
        self.writer.text(1, &self.table);
        open
    }

    /// The whole transaction; its last message asks for an answer.
    pub(crate) fn finish(mut self) -> Finished {
        let flags = self.last + 6..self.last + 8;
        if let Some(bytes) = self.writer.0.get_mut(flags) {
            let flags = u16::from_ne_bytes([bytes[0], bytes[1]]) | NLM_F_ACK;
            bytes.copy_from_slice(&flags.to_ne_bytes());
        }
        let open = self.writer.begin(BATCH_END, NLM_F_REQUEST, 0, 0, SUBSYSTEM);
        self.writer.end(open);
        Finished {
            bytes: self.writer.0,
            steps: self.steps,
        }
    }
}

/// A comment as `nft` writes it: kind 0, length, text with NUL; 127 bytes at most.
pub(crate) fn comment_bytes(comment: &str) -> Vec<u8> {
    let text = comment.as_bytes();
    let text = &text[..text.len().min(126)];
    let mut bytes = vec![0, text.len() as u8 + 1];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

/// A transaction ready to go.
pub(crate) struct Finished {
    pub(crate) bytes: Vec<u8>,
    pub(crate) steps: Vec<(&'static str, String)>,
}
