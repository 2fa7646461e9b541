//! What evaluation may cost at most, from the sizes that schemas allow.

use std::sync::Arc;

use crate::ast::{Access, Call, Expr, Fold, Kind, Literal, operator};
use crate::check::Checked;
use crate::cost::{
    CHECK, CallCost, FORMAT_REGEX, LIST_CREATE, MAP_CREATE, REGEX_FACTOR, STRING_FACTOR,
    STRUCT_CREATE, selector,
};
use crate::env::Env;
use crate::types::{Decl, Type, UNBOUNDED};

/// The least and the most of something; the most may be without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

const UNKNOWN: Range = Range {
    min: 0,
    max: UNBOUNDED,
};
const ZERO: Range = Range::of(0);
const ONE: Range = Range::of(1);
/// An address has 4 or 16 bytes.
const ADDRESS: Range = Range { min: 4, max: 16 };
/// What a named format's expression is taken to be at most.
const MAX_FORMAT_REGEX: u64 = 2 * FORMAT_REGEX;

impl Range {
    const fn of(number: u64) -> Range {
        Range {
            min: number,
            max: number,
        }
    }
    fn add(self, other: Range) -> Range {
        Range {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }
    fn times(self, other: Range) -> Range {
        Range {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }
    fn union(self, other: Range) -> Range {
        Range {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
    fn scaled(self, factor: f64) -> Range {
        // A conversion from a float that is too big gives the biggest number.
        let scale = |number: u64| (number as f64 * factor).ceil() as u64;
        Range {
            min: scale(self.min),
            max: if self.max == UNBOUNDED {
                UNBOUNDED
            } else {
                scale(self.max)
            },
        }
    }
}

/// What is known of one node.
#[derive(Clone)]
struct Known {
    cost: Range,
    /// The size that follows from the expression itself.
    size: Option<Range>,
    /// What the schema says, if the node is a part of a declared variable.
    decl: Option<Decl>,
    ty: Type,
}

impl Known {
    fn size(&self) -> Range {
        if let Some(size) = self.size {
            return size;
        }
        match (&self.decl, &self.ty) {
            (Some(decl), Type::Bool | Type::Int | Type::Double | Type::Object(_))
                if decl.max == UNBOUNDED =>
            {
                ZERO
            }
            (Some(decl), _) => Range {
                min: 0,
                max: decl.max,
            },
            (
                None,
                Type::Bool
                | Type::Int
                | Type::Uint
                | Type::Double
                | Type::Null
                | Type::Duration
                | Type::Timestamp,
            ) => ONE,
            _ => UNKNOWN,
        }
    }
}

/// The range of what evaluating an expression may cost.
pub(crate) fn estimate(env: &Env, expr: &Expr, checked: &Checked) -> Range {
    Estimator {
        env,
        checked,
        locals: Vec::new(),
    }
    .node(expr)
    .cost
}

struct Estimator<'e> {
    env: &'e Env,
    checked: &'e Checked,
    locals: Vec<(Arc<str>, Option<Range>, Option<Decl>)>,
}

impl Estimator<'_> {
    fn node(&mut self, expr: &Expr) -> Known {
        let ty = self.checked.types[expr.id].clone();
        if let Some(name) = self.checked.names.get(&expr.id) {
            return Known {
                cost: ONE,
                size: None,
                decl: self.env.declared(name).cloned(),
                ty,
            };
        }
        let known = |cost, size| Known {
            cost,
            size,
            decl: None,
            ty: ty.clone(),
        };
        match &expr.kind {
            Kind::Literal(literal) => known(ZERO, literal_size(literal)),
            Kind::Ident(name) => match self.locals.iter().rev().find(|(local, ..)| local == name) {
                Some((_, size, decl)) => Known {
                    cost: ONE,
                    size: *size,
                    decl: decl.clone(),
                    ty,
                },
                None => Known {
                    cost: ONE,
                    size: None,
                    decl: self.env.declared(name).cloned(),
                    ty,
                },
            },
            Kind::Select(select) => {
                let operand = self.node(&select.operand);
                let counts = matches!(
                    operand.ty,
                    Type::Map(_) | Type::Object(_) | Type::Optional(_)
                );
                let own = if counts && select.access != Access::Test {
                    ONE
                } else {
                    ZERO
                };
                let decl = operand
                    .decl
                    .as_ref()
                    .and_then(|decl| part(decl, &select.field));
                Known {
                    cost: operand.cost.add(own),
                    size: None,
                    decl,
                    ty,
                }
            }
            Kind::Call(call) => self.call(expr, call, ty),
            Kind::List(elements) => {
                let sum = elements
                    .iter()
                    .fold(ZERO, |sum, element| sum.add(self.node(&element.value).cost));
                known(
                    sum.add(Range::of(LIST_CREATE)),
                    Some(Range::of(elements.len() as u64)),
                )
            }
            Kind::Map(entries) => {
                let mut sum = Range::of(MAP_CREATE);
                for entry in entries {
                    sum = sum
                        .add(self.node(&entry.key).cost)
                        .add(self.node(&entry.value).cost);
                }
                known(sum, Some(Range::of(entries.len() as u64)))
            }
            Kind::Struct(made) => {
                let sum = made
                    .fields
                    .iter()
                    .fold(ZERO, |sum, field| sum.add(self.node(&field.value).cost));
                known(sum.add(Range::of(STRUCT_CREATE)), None)
            }
            Kind::Fold(fold) => self.fold(fold, ty),
        }
    }

    fn fold(&mut self, fold: &Fold, ty: Type) -> Known {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let scope = self.locals.len();
        self.locals
            .push((fold.accu.clone(), init.size, init.decl.clone()));
        if &*fold.accu != operator::RESULT {
            // A bound name: nothing is looped over.
            let result = self.node(&fold.result);
            self.locals.truncate(scope);
            return Known {
                cost: range.cost.add(init.cost).add(result.cost),
                ..result
            };
        }
        let (keys, values) = range.decl.as_ref().map_or((None, None), elements);
        let text_keys = keys.clone();
        let single = if matches!(range.ty, Type::Map(_)) {
            text_keys
        } else {
            values.clone()
        };
        self.locals.push((
            fold.var.clone(),
            None,
            if fold.var2.is_some() { keys } else { single },
        ));
        if let Some(var2) = &fold.var2 {
            self.locals.push((var2.clone(), None, values.clone()));
        }
        let turn = self
            .node(&fold.condition)
            .cost
            .add(self.node(&fold.step).cost);
        self.locals.truncate(scope + 1);
        let result = self.node(&fold.result);
        self.locals.truncate(scope);
        let count = range.size();
        let size = match &fold.init.kind {
            Kind::List(_) | Kind::Map(_) => Some(count),
            _ => None,
        };
        let cost = range
            .cost
            .add(init.cost)
            .add(result.cost)
            .add(count.times(turn));
        // What is filtered is still a part of the variable.
        let kept =
            matches!(&fold.step.kind, Kind::Call(call) if &*call.function == operator::CONDITIONAL);
        let decl = range
            .decl
            .filter(|_| kept && size.is_some() && ty == range.ty);
        Known {
            cost,
            size,
            decl,
            ty,
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call, ty: Type) -> Known {
        let namespaced = self.checked.namespaced.get(&expr.id);
        let name: &str = namespaced.unwrap_or(&call.function);
        let target = call.target.iter().filter(|_| namespaced.is_none());
        let args: Vec<Known> = target.chain(&call.args).map(|arg| self.node(arg)).collect();
        let sum = args.iter().fold(ZERO, |sum, arg| sum.add(arg.cost));
        let mut known = Known {
            cost: sum,
            size: None,
            decl: None,
            ty,
        };
        match (name, &args[..]) {
            (operator::AND | operator::OR, [first, ..]) => known.cost.min = first.cost.min,
            (operator::CONDITIONAL, [condition, yes, no]) => {
                known.cost = condition.cost.add(yes.cost.union(no.cost));
                known.size = Some(yes.size().union(no.size()));
            }
            (operator::INDEX | operator::OPT_INDEX, [operand, _]) => {
                known.cost = sum.add(ONE);
                known.decl = operand.decl.as_ref().and_then(|decl| elements(decl).1);
            }
            _ => {
                known.cost = sum.add(own_cost(name, &args));
                known.size = result_size(name, &args);
            }
        }
        known
    }
}

/// The declaration of a field, or of a map's values.
fn part(decl: &Decl, field: &str) -> Option<Decl> {
    match &decl.ty {
        Type::Object(object) => object.fields.get(field).map(|field| field.decl.clone()),
        Type::Map(map) => Some(map.value.clone()),
        Type::Optional(inner) => part(&Decl::from((**inner).clone()), field),
        _ => None,
    }
}

/// The declarations of a container's keys and values.
fn elements(decl: &Decl) -> (Option<Decl>, Option<Decl>) {
    match &decl.ty {
        Type::List(list) => (None, Some(list.elem.clone())),
        // A key may be as long as nothing says.
        Type::Map(map) => (
            Some(Decl {
                ty: map.key.clone(),
                max: 0,
                min_bytes: 2,
            }),
            Some(map.value.clone()),
        ),
        _ => (None, None),
    }
}

fn literal_size(literal: &Literal) -> Option<Range> {
    match literal {
        Literal::String(text) => Some(Range::of(text.chars().count() as u64)),
        Literal::Bytes(bytes) => Some(Range::of(bytes.len() as u64)),
        _ => None,
    }
}

fn own_cost(name: &str, args: &[Known]) -> Range {
    let size = |index: usize| args.get(index).map_or(UNKNOWN, Known::size);
    let one_more = |size: Range| size.add(ONE).scaled(STRING_FACTOR);
    let is_text = |index: usize| {
        matches!(
            args.get(index).map(|arg| &arg.ty),
            Some(Type::String | Type::Bytes)
        )
    };
    match CallCost::of(name) {
        CallCost::One => ONE,
        CallCost::Check => Range::of(CHECK),
        CallCost::Selector => Range {
            min: selector(size(1).min),
            max: selector(size(1).max.min(1 << 40)),
        },
        CallCost::ListTraversal if is_text(0) => size(0).scaled(STRING_FACTOR),
        CallCost::ListTraversal => {
            let elem = args
                .first()
                .and_then(|list| list.decl.as_ref())
                .and_then(|decl| elements(decl).1);
            let text = args.first().is_some_and(|list| matches!(&list.ty, Type::List(list) if matches!(list.elem.ty, Type::String | Type::Bytes)));
            let read = match (text, elem) {
                (false, _) => ZERO,
                (true, Some(elem)) => Range {
                    min: 0,
                    max: elem.max,
                }
                .scaled(STRING_FACTOR),
                (true, None) => UNKNOWN,
            };
            size(0).times(ONE.add(read))
        }
        CallCost::Traversal(_) if matches!(name, "startsWith" | "endsWith") => {
            size(1).scaled(STRING_FACTOR)
        }
        CallCost::Traversal(_) if matches!(name, "string" | "bytes" | "ip") && !is_text(0) => ONE,
        CallCost::Traversal(times) => size(0).scaled(STRING_FACTOR * times as f64),
        CallCost::ResultTraversal => result_size(name, args)
            .unwrap_or(UNKNOWN)
            .scaled(STRING_FACTOR),
        CallCost::Regex => one_more(size(0)).times(size(1).scaled(REGEX_FACTOR)),
        CallCost::Product if is_text(0) => size(0)
            .scaled(STRING_FACTOR)
            .times(size(1).scaled(STRING_FACTOR)),
        CallCost::Product => size(0).times(size(1)),
        CallCost::Smaller => match args.first().map(|arg| &arg.ty) {
            Some(Type::Opaque(_)) => ONE,
            // Only text and what may be anything is compared piece by piece.
            Some(ty) if name != "_==_" && name != "_!=_" && !is_text(0) && !ty.is_dyn() => ONE,
            _ => {
                let max = size(0).max.min(size(1).max);
                Range {
                    min: max.min(1),
                    max,
                }
                .scaled(STRING_FACTOR)
            }
        },
        CallCost::Sum if is_text(0) => size(0).add(size(1)).scaled(STRING_FACTOR),
        CallCost::Sum => ONE,
        CallCost::Membership => match args.get(1).map(|arg| &arg.ty) {
            Some(Type::Map(_)) => ONE,
            _ => size(1),
        },
        CallCost::ContainsIp | CallCost::ContainsCidr => {
            let compared = ADDRESS.add(ADDRESS).scaled(STRING_FACTOR);
            let masked = match name {
                "containsCIDR" => ADDRESS.scaled(STRING_FACTOR).add(ONE),
                _ => ZERO,
            };
            compared.add(masked).add(if is_text(1) {
                size(1).scaled(STRING_FACTOR)
            } else {
                ZERO
            })
        }
        CallCost::Format => size(1)
            .scaled(STRING_FACTOR)
            .scaled(MAX_FORMAT_REGEX as f64 * REGEX_FACTOR),
    }
}

/// How big the result of a function is, where that follows from its arguments.
fn result_size(name: &str, args: &[Known]) -> Option<Range> {
    let size = |index: usize| args.get(index).map_or(UNKNOWN, Known::size);
    Some(match name {
        operator::ADD if matches!(args.first()?.ty, Type::String | Type::Bytes | Type::List(_)) => {
            size(0).add(size(1))
        }
        "url"
        | "jsonpatch.escapeKey"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "dyn"
        | "sort"
        | "reverse"
        | "@sortByAssociatedKeys" => size(0),
        "find" | "findAll" | "split" | "distinct" | "slice" => Range {
            min: 0,
            max: size(0).max,
        },
        "string" | "bytes" if matches!(args.first()?.ty, Type::String | Type::Bytes) => Range {
            min: size(0).min / 4,
            max: size(0).max.saturating_mul(4),
        },
        "strings.quote" => Range {
            min: size(0).min,
            max: size(0).max.saturating_mul(2).saturating_add(2),
        },
        "replace" => {
            let (text, old, new) = (size(0), size(1), size(2));
            let max = match old.min {
                0 => text
                    .max
                    .saturating_add(1)
                    .saturating_mul(new.max)
                    .saturating_add(text.max),
                _ if new.max <= old.min => text.max,
                least => text.max.div_ceil(least).saturating_mul(new.max),
            };
            Range { min: 0, max }
        }
        "join" => {
            let list = args.first()?;
            let item = list.decl.as_ref().and_then(|decl| elements(decl).1);
            let item = item.map_or(UNKNOWN, |item| Range {
                min: 0,
                max: item.max,
            });
            let gaps = Range {
                min: list.size().min.saturating_sub(1),
                max: list.size().max.saturating_sub(1),
            };
            let separators = if args.len() > 1 {
                size(1).times(gaps)
            } else {
                ZERO
            };
            list.size().times(item).add(separators)
        }
        _ => return None,
    })
}
