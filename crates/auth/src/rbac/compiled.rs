//! Rules in a form that decides without wandering through memory.
//!
//! A role is one cache line: masks which most questions fail at once, and the place of the words
//! of its rules, in one piece, for those that do not.

use super::rule::{Rule, url_covers};
use super::words::{ALL, UNKNOWN, Words};
use crate::identity::Attributes;

/// Rules whose masks are in the role itself. Where there are more, the last of these stands for
/// all that follow.
const NEAR: usize = 3;
/// Lists of a rule.
const LISTS: usize = 5;
/// Words in which a mask is kept beside the others of its role.
const MASK: usize = 4;

/// What a rule may allow, by one bit per word, some bits shared: no bit in common means no.
#[derive(Clone, Copy, Default)]
struct Mask {
    verbs: u32,
    groups: u32,
    resources: u64,
}

impl Mask {
    /// Set in rules with `*`, and in all questions.
    const ANY: u32 = 1 << 31;
    const ANY_RESOURCE: u64 = 1 << 63;
    /// Set in rules and questions about paths.
    const PATH: u32 = 1 << 30;
    const PATH_RESOURCE: u64 = 1 << 62;

    fn verb(word: u32) -> u32 {
        match word {
            ALL => Mask::ANY,
            UNKNOWN => 0,
            word => 1 << (word % 31),
        }
    }

    fn group(word: u32) -> u32 {
        match word {
            ALL => Mask::ANY,
            UNKNOWN => 0,
            word => 1 << (word % 30),
        }
    }

    fn resource(word: u32) -> u64 {
        match word {
            ALL => Mask::ANY_RESOURCE,
            UNKNOWN => 0,
            word => 1 << (word % 62),
        }
    }

    fn meets(self, other: Mask) -> bool {
        self.verbs & other.verbs != 0
            && self.groups & other.groups != 0
            && self.resources & other.resources != 0
    }

    fn with(self, other: Mask) -> Mask {
        Mask {
            verbs: self.verbs | other.verbs,
            groups: self.groups | other.groups,
            resources: self.resources | other.resources,
        }
    }

    fn packed(self) -> [u32; MASK] {
        let resources = self.resources;
        [
            self.verbs,
            self.groups,
            resources as u32,
            (resources >> 32) as u32,
        ]
    }

    fn unpacked(packed: &[u32]) -> Mask {
        Mask {
            verbs: packed[0],
            groups: packed[1],
            resources: u64::from(packed[2]) | u64::from(packed[3]) << 32,
        }
    }
}

/// A question in the numbers of its words.
pub(super) struct Question<'q> {
    asked: &'q Attributes,
    verb: u32,
    group: u32,
    /// Such as `pods` or `pods/log`.
    resource: u32,
    /// Such as `*/log`.
    subresource: u32,
    mask: Mask,
}

impl<'q> Question<'q> {
    pub(super) fn of(asked: &'q Attributes, words: &Words) -> Question<'q> {
        let verb = words.number(&asked.verb);
        let mut question = Question {
            asked,
            verb,
            group: UNKNOWN,
            resource: UNKNOWN,
            subresource: UNKNOWN,
            mask: Mask {
                verbs: Mask::verb(verb) | Mask::ANY,
                groups: Mask::PATH,
                resources: Mask::PATH_RESOURCE,
            },
        };
        if !asked.is_resource() {
            return question;
        }
        question.group = words.number(&asked.group);
        if asked.subresource.is_empty() {
            question.resource = words.number(&asked.resource);
        } else {
            let of = |resource: &str| words.number(&[resource, "/", &asked.subresource].concat());
            (question.resource, question.subresource) = (of(&asked.resource), of("*"));
        }
        let resources = Mask::resource(question.resource) | Mask::resource(question.subresource);
        question.mask.groups = Mask::group(question.group) | Mask::ANY;
        question.mask.resources = resources | Mask::ANY_RESOURCE;
        question
    }
}

/// The words of one rule.
struct Lists<'r>([&'r [u32]; LISTS]);

impl Lists<'_> {
    /// What [`Rule::allows`] says.
    fn allow(&self, question: &Question<'_>, words: &Words) -> bool {
        let Lists([verbs, groups, resources, names, urls]) = self;
        let has = |list: &[u32], wanted: u32| list.iter().any(|own| *own == ALL || *own == wanted);
        let asked = question.asked;
        if !has(verbs, question.verb) {
            return false;
        }
        if !asked.is_resource() {
            let covers = |url: &u32| url_covers(words.text(*url), &asked.path);
            return urls.iter().any(covers);
        }
        has(groups, question.group)
            && (has(resources, question.resource) || resources.contains(&question.subresource))
            && (names.is_empty() || names.contains(&words.number(&asked.name)))
    }

    fn rule(&self, words: &Words) -> Rule {
        let texts = |list: &[u32]| list.iter().map(|word| words.text(*word).into()).collect();
        let Lists([verbs, groups, resources, names, urls]) = self;
        Rule {
            verbs: texts(verbs),
            api_groups: texts(groups),
            resources: texts(resources),
            resource_names: texts(names),
            non_resource_urls: texts(urls),
        }
    }

    fn mask(&self) -> Mask {
        let Lists([verbs, groups, resources, _, urls]) = self;
        let mut mask = Mask::default();
        for verb in *verbs {
            mask.verbs |= Mask::verb(*verb);
        }
        for group in *groups {
            mask.groups |= Mask::group(*group);
        }
        for resource in *resources {
            mask.resources |= Mask::resource(*resource);
        }
        if !urls.is_empty() {
            mask.groups |= Mask::PATH;
            mask.resources |= Mask::PATH_RESOURCE;
        }
        mask
    }
}

/// The rules of a role; or that there is no such role, although a binding names it.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Compiled {
    near: [Mask; NEAR],
    /// How many rules; where the lists of each begin; the mask of each; then of each the lengths
    /// of its lists and these lists.
    rules: Option<Box<[u32]>>,
}

impl Compiled {
    pub(super) fn new(rules: &[Rule], words: &mut Words) -> Compiled {
        let mut data = vec![0; 1 + rules.len() * (1 + MASK)];
        data[0] = rules.len() as u32;
        for (at, rule) in rules.iter().enumerate() {
            data[1 + at] = data.len() as u32;
            let lists: [&[String]; LISTS] = [
                &rule.verbs,
                &rule.api_groups,
                &rule.resources,
                &rule.resource_names,
                &rule.non_resource_urls,
            ];
            data.extend(lists.map(|list| list.len() as u32));
            for text in lists.into_iter().flatten() {
                data.push(words.take(text));
            }
        }
        let mut compiled = Compiled::default();
        for at in 0..rules.len() {
            let mask = lists(&data, at).mask();
            let place = mask_place(&data, at);
            data[place..place + MASK].copy_from_slice(&mask.packed());
            let near = &mut compiled.near[at.min(NEAR - 1)];
            *near = near.with(mask);
        }
        compiled.rules = Some(data.into());
        compiled
    }

    /// Gives back the words.
    pub(super) fn release(self, words: &mut Words) {
        let data = self.rules.unwrap_or_default();
        for at in 0..count(&data) {
            for word in lists(&data, at).0.into_iter().flatten() {
                words.release(*word);
            }
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.rules.is_some()
    }

    /// Whether any rule allows what is asked.
    pub(super) fn allows(&self, question: &Question<'_>, words: &Words) -> bool {
        let [one, two, rest] = self.near.map(|mask| mask.meets(question.mask));
        if !(one || two || rest) {
            return false;
        }
        let data = self.rules.as_deref().unwrap_or_default();
        let allows = |at: usize| lists(data, at).allow(question, words);
        one && allows(0)
            || two && allows(1)
            || rest && {
                let meets = |at: &usize| {
                    let place = mask_place(data, *at);
                    Mask::unpacked(&data[place..place + MASK]).meets(question.mask)
                };
                (NEAR - 1..count(data)).filter(meets).any(allows)
            }
    }

    /// The rules as they were written; `None` when there is no such role.
    pub(super) fn rules(&self, words: &Words) -> Option<Vec<Rule>> {
        let data = self.rules.as_deref()?;
        let rule = |at| lists(data, at).rule(words);
        Some((0..count(data)).map(rule).collect())
    }
}

fn count(data: &[u32]) -> usize {
    data.first().copied().unwrap_or(0) as usize
}

fn mask_place(data: &[u32], at: usize) -> usize {
    1 + count(data) + at * MASK
}

fn lists(data: &[u32], at: usize) -> Lists<'_> {
    let start = data[1 + at] as usize;
    let (lengths, mut rest) = data[start..].split_at(LISTS);
    let mut out = [&[][..]; LISTS];
    for (list, length) in out.iter_mut().zip(lengths) {
        (*list, rest) = rest.split_at(*length as usize);
    }
    Lists(out)
}
