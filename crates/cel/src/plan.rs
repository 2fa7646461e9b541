//! A checked tree, prepared for evaluation: names resolved, functions found, constants computed.

use std::sync::Arc;

use regex::Regex;

use crate::ast::{Access, Call, Expr, Fold, Kind, Literal, operator};
use crate::check::Checked;
use crate::functions::{self, Function};
use crate::types::Type;
use crate::value::{Text, Value};

#[derive(Debug)]
pub(crate) enum Node {
    Const(Value<'static>),
    /// A variable of a loop.
    Local(usize),
    /// A declared variable.
    Variable(Arc<str>),
    Select(Box<Node>, Arc<str>, Access),
    Index(Box<Node>, Box<Node>, Access),
    Call(&'static Function, Vec<Node>),
    /// `matches` with a constant expression, compiled.
    Matches(Box<Node>, Regex, usize),
    And(Vec<Node>),
    Or(Vec<Node>),
    If(Box<[Node; 3]>),
    NotStrictlyFalse(Box<Node>),
    OptionalOr(Box<Node>, Box<Node>, bool),
    /// `slot + [item]`, done in place.
    Append(usize, Box<Node>),
    /// `cel.@mapInsert(slot, key, value)`, done in place; without a key the value is a map.
    Insert(usize, Option<Box<Node>>, Box<Node>),
    /// Whether a value is in a constant list.
    InConst(Box<Node>, Value<'static>),
    List(Vec<(Node, bool)>),
    Map(Vec<(Node, Node, bool)>),
    Struct(Arc<str>, Vec<(String, Node, bool)>),
    Fold(Box<Loop>),
}

#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) range: Node,
    pub(crate) accu: usize,
    pub(crate) var: usize,
    pub(crate) var2: Option<usize>,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Answers the prepared tree, how many loop variables it needs, and the names of declared variables it uses.
pub(crate) fn plan(expr: &Expr, checked: &Checked) -> (Node, usize, Vec<Arc<str>>) {
    let mut planner = Planner {
        checked,
        scopes: Vec::new(),
        slots: 0,
        names: Vec::new(),
    };
    let root = planner.node(expr);
    (root, planner.slots, planner.names)
}

struct Planner<'c> {
    checked: &'c Checked,
    scopes: Vec<Arc<str>>,
    slots: usize,
    names: Vec<Arc<str>>,
}

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn node(&mut self, expr: &Expr) -> Node {
        if let Some(name) = self.checked.names.get(&expr.id) {
            return match &expr.kind {
                Kind::Select(select) if select.access == Access::Test => {
                    Node::Const(Value::Bool(true))
                }
                _ => self.name(expr, name),
            };
        }
        match &expr.kind {
            Kind::Literal(literal) => Node::Const(constant(literal)),
            Kind::Ident(name) => self.name(expr, name),
            Kind::Select(select) => Node::Select(
                self.boxed(&select.operand),
                select.field.clone(),
                select.access,
            ),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let items: Vec<_> = elements
                    .iter()
                    .map(|element| (self.node(&element.value), element.optional))
                    .collect();
                fold_list(items)
            }
            Kind::Map(entries) => Node::Map(
                entries
                    .iter()
                    .map(|entry| {
                        (
                            self.node(&entry.key),
                            self.node(&entry.value),
                            entry.optional,
                        )
                    })
                    .collect(),
            ),
            Kind::Struct(made) => {
                let fields = made.fields.iter().map(|field| {
                    (
                        crate::escape::unescape(&field.name),
                        self.node(&field.value),
                        field.optional,
                    )
                });
                Node::Struct(made.name.as_str().into(), fields.collect())
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn name(&mut self, expr: &Expr, name: &Arc<str>) -> Node {
        if let Some(slot) = self.slot(name) {
            return Node::Local(slot);
        }
        // A type's name is a constant, unless a variable has it.
        let names_type =
            matches!(&self.checked.types[expr.id], Type::Type(ty) if ty.name() == &**name);
        if names_type {
            return Node::Const(Value::Type(name.clone()));
        }
        if !self.names.contains(name) {
            self.names.push(name.clone());
        }
        Node::Variable(name.clone())
    }

    fn slot(&self, name: &str) -> Option<usize> {
        self.scopes.iter().rposition(|known| **known == *name)
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Node {
        let namespaced = self.checked.namespaced.get(&expr.id);
        let name = namespaced.unwrap_or(&call.function);
        if let Some(node) = self.special(name, call) {
            return node;
        }
        let target = call.target.iter().filter(|_| namespaced.is_none());
        let mut args: Vec<Node> = target.chain(&call.args).map(|arg| self.node(arg)).collect();
        if let ("matches", [_, Node::Const(Value::String(pattern))]) = (&**name, &args[..])
            && let Ok(regex) = functions::regexp::compile(pattern)
        {
            let length = pattern.chars().count();
            return Node::Matches(Box::new(args.swap_remove(0)), regex, length);
        }
        if let (operator::IN, [_, Node::Const(list @ Value::List(_))]) = (&**name, &args[..]) {
            let list = list.clone();
            return Node::InConst(Box::new(args.swap_remove(0)), list);
        }
        match functions::find(name) {
            Some(function) => Node::Call(function, args),
            // The checker has refused it.
            None => Node::Const(Value::Null),
        }
    }

    /// Functions that do not simply evaluate all their arguments.
    fn special(&mut self, name: &str, call: &Call) -> Option<Node> {
        Some(match (name, &call.args[..]) {
            (operator::AND, args) => Node::And(args.iter().map(|arg| self.node(arg)).collect()),
            (operator::OR, args) => Node::Or(args.iter().map(|arg| self.node(arg)).collect()),
            (operator::CONDITIONAL, [condition, yes, no]) => Node::If(Box::new([
                self.node(condition),
                self.node(yes),
                self.node(no),
            ])),
            (operator::NOT_STRICTLY_FALSE, [arg]) => Node::NotStrictlyFalse(self.boxed(arg)),
            (operator::INDEX, [operand, index]) => {
                Node::Index(self.boxed(operand), self.boxed(index), Access::Plain)
            }
            (operator::OPT_INDEX, [operand, index]) => {
                Node::Index(self.boxed(operand), self.boxed(index), Access::Optional)
            }
            ("or" | "orValue", [other]) => {
                let target = call.target.as_ref()?;
                Node::OptionalOr(self.boxed(target), self.boxed(other), name == "orValue")
            }
            (
                operator::ADD,
                [
                    Expr {
                        kind: Kind::Ident(accu),
                        ..
                    },
                    Expr {
                        kind: Kind::List(items),
                        ..
                    },
                ],
            ) if &**accu == operator::RESULT && items.len() == 1 => {
                Node::Append(self.slot(accu)?, self.boxed(&items[0].value))
            }
            (
                operator::MAP_INSERT,
                [
                    Expr {
                        kind: Kind::Ident(accu),
                        ..
                    },
                    rest @ ..,
                ],
            ) => {
                let slot = self.slot(accu)?;
                match rest {
                    [key, value] => Node::Insert(slot, Some(self.boxed(key)), self.boxed(value)),
                    [value] => Node::Insert(slot, None, self.boxed(value)),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    fn push(&mut self, name: &Arc<str>) -> usize {
        self.scopes.push(name.clone());
        self.slots = self.slots.max(self.scopes.len());
        self.scopes.len() - 1
    }

    fn fold(&mut self, fold: &Fold) -> Node {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let before = self.scopes.len();
        let accu = self.push(&fold.accu);
        let var = self.push(&fold.var);
        let var2 = fold.var2.as_ref().map(|var2| self.push(var2));
        let condition = self.node(&fold.condition);
        let step = self.node(&fold.step);
        self.scopes.truncate(before + 1);
        let result = self.node(&fold.result);
        self.scopes.truncate(before);
        Node::Fold(Box::new(Loop {
            range,
            accu,
            var,
            var2,
            init,
            condition,
            step,
            result,
        }))
    }
}

/// A list of constants is one itself.
fn fold_list(items: Vec<(Node, bool)>) -> Node {
    let value = |(node, optional): &(Node, bool)| match node {
        Node::Const(value) if !optional => Some(value.clone()),
        _ => None,
    };
    match items.iter().map(value).collect::<Option<Vec<_>>>() {
        Some(values) => Node::Const(Value::list(values)),
        None => Node::List(items),
    }
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}
