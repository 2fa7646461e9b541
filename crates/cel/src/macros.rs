//! Macros: calls that are rewritten while parsing, as they bind variables or look at the tree.

use std::sync::Arc;

use crate::ast::{Access, Element, Expr, Fold, Kind, Literal, Select, operator};
use crate::lex::Fault;
use crate::parse::Parser;

/// What became of a member call.
pub(crate) enum Outcome {
    /// It was a macro.
    Expanded(Expr),
    /// It is an ordinary call: target and arguments come back.
    Call(Option<Expr>, Vec<Expr>),
}

/// `has(a.b)`
pub(crate) fn has(parser: &mut Parser<'_>, at: usize, args: Vec<Expr>) -> Result<Expr, Fault> {
    let [arg] = <[Expr; 1]>::try_from(args)
        .map_err(|_| (at, "invalid argument to has() macro".to_owned()))?;
    match arg.kind {
        Kind::Select(select) if select.access == Access::Plain => {
            let select = Select {
                access: Access::Test,
                ..*select
            };
            Ok(parser.node(at, Kind::Select(Box::new(select))))
        }
        _ => Err((arg.at, "invalid argument to has() macro".to_owned())),
    }
}

/// Macros called on a target, and `cel.bind`.
pub(crate) fn member(
    parser: &mut Parser<'_>,
    at: usize,
    target: Expr,
    function: &str,
    args: Vec<Expr>,
) -> Result<Outcome, Fault> {
    let two = match (function, args.len()) {
        ("bind", 3) if matches!(&target.kind, Kind::Ident(name) if &**name == "cel") => {
            return bind(parser, at, args).map(Outcome::Expanded);
        }
        ("sortBy", 2) => return sort_by(parser, at, target, args).map(Outcome::Expanded),
        ("optMap" | "optFlatMap", 2) => {
            return optional(parser, at, target, function == "optMap", args).map(Outcome::Expanded);
        }
        ("all" | "exists" | "exists_one" | "existsOne" | "filter", 2) | ("map", 2 | 3) => false,
        ("all" | "exists" | "exists_one" | "existsOne", 3)
        | ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => true,
        _ => return Ok(Outcome::Call(Some(target), args)),
    };
    let mut rest = args.into_iter();
    let mut make = Make { parser, at };
    let var = make.variable(rest.next())?;
    let var2 = if two {
        Some(make.variable(rest.next())?)
    } else {
        None
    };
    if var2.as_ref() == Some(&var) {
        return Err((at, format!("duplicate variable name: {var}")));
    }
    let rest: Vec<Expr> = rest.collect();
    make.loops(target, function, var, var2, rest)
        .map(Outcome::Expanded)
}

struct Make<'p, 's> {
    parser: &'p mut Parser<'s>,
    at: usize,
}

impl Make<'_, '_> {
    fn variable(&mut self, expr: Option<Expr>) -> Result<Arc<str>, Fault> {
        match expr {
            Some(Expr {
                kind: Kind::Ident(name),
                at,
                ..
            }) if &*name == operator::RESULT => Err((
                at,
                format!("iteration variable overwrites accumulator variable: {name}"),
            )),
            Some(Expr {
                kind: Kind::Ident(name),
                ..
            }) => Ok(name),
            other => Err((
                other.map_or(self.at, |other| other.at),
                "argument must be a simple name".to_owned(),
            )),
        }
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.parser.node(self.at, Kind::Literal(literal))
    }

    fn accu(&mut self) -> Expr {
        self.parser
            .node(self.at, Kind::Ident(operator::RESULT.into()))
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.parser.call(self.at, function, args)
    }

    fn list(&mut self, items: Vec<Expr>) -> Expr {
        let elements = items
            .into_iter()
            .map(|value| Element {
                value,
                optional: false,
            })
            .collect();
        self.parser.node(self.at, Kind::List(elements))
    }

    fn loops(
        mut self,
        range: Expr,
        function: &str,
        var: Arc<str>,
        var2: Option<Arc<str>>,
        args: Vec<Expr>,
    ) -> Result<Expr, Fault> {
        let mut args = args.into_iter();
        let broken = (self.at, "wrong number of arguments".to_owned());
        let first = args.next().ok_or(broken)?;
        let second = args.next();
        let accu = self.accu();
        let (init, condition, step, result) = match function {
            "all" => {
                let again = self.accu();
                let condition = self.call(operator::NOT_STRICTLY_FALSE, vec![again]);
                let step = self.call(operator::AND, vec![accu, first]);
                (
                    self.literal(Literal::Bool(true)),
                    condition,
                    step,
                    self.accu(),
                )
            }
            "exists" => {
                let again = self.accu();
                let not = self.call(operator::NOT, vec![again]);
                let condition = self.call(operator::NOT_STRICTLY_FALSE, vec![not]);
                let step = self.call(operator::OR, vec![accu, first]);
                (
                    self.literal(Literal::Bool(false)),
                    condition,
                    step,
                    self.accu(),
                )
            }
            "exists_one" | "existsOne" => {
                let one = self.literal(Literal::Int(1));
                let more = self.call(operator::ADD, vec![accu, one]);
                let same = self.accu();
                let step = self.call(operator::CONDITIONAL, vec![first, more, same]);
                let (found, one) = (self.accu(), self.literal(Literal::Int(1)));
                let result = self.call(operator::EQUALS, vec![found, one]);
                (
                    self.literal(Literal::Int(0)),
                    self.literal(Literal::Bool(true)),
                    step,
                    result,
                )
            }
            _ => {
                let (condition, value) = match second {
                    Some(value) => (Some(first), value),
                    None if function == "filter" => (
                        Some(first),
                        self.parser.node(self.at, Kind::Ident(var.clone())),
                    ),
                    None => (None, first),
                };
                let (init, add) = self.collect(function, &var, accu, value);
                let step = match condition {
                    Some(condition) => {
                        let same = self.accu();
                        self.call(operator::CONDITIONAL, vec![condition, add, same])
                    }
                    None => add,
                };
                (init, self.literal(Literal::Bool(true)), step, self.accu())
            }
        };
        let fold = Fold {
            range,
            var,
            var2,
            accu: operator::RESULT.into(),
            init,
            condition,
            step,
            result,
        };
        Ok(self.parser.node(self.at, Kind::Fold(Box::new(fold))))
    }

    /// The first accumulator and the step of the macros that build a list or a map.
    fn collect(&mut self, function: &str, var: &Arc<str>, accu: Expr, value: Expr) -> (Expr, Expr) {
        match function {
            "transformMap" => {
                let key = self.parser.node(self.at, Kind::Ident(var.clone()));
                let add = self.call(operator::MAP_INSERT, vec![accu, key, value]);
                (self.parser.node(self.at, Kind::Map(Vec::new())), add)
            }
            "transformMapEntry" => {
                let add = self.call(operator::MAP_INSERT, vec![accu, value]);
                (self.parser.node(self.at, Kind::Map(Vec::new())), add)
            }
            _ => {
                let item = self.list(vec![value]);
                let add = self.call(operator::ADD, vec![accu, item]);
                (self.list(Vec::new()), add)
            }
        }
    }
}

/// `cel.bind(name, value, expression)`: a loop over nothing whose accumulator is the variable.
fn bind(parser: &mut Parser<'_>, at: usize, args: Vec<Expr>) -> Result<Expr, Fault> {
    let mut args = args.into_iter();
    let mut make = Make { parser, at };
    let name = match args.next() {
        Some(Expr {
            kind: Kind::Ident(name),
            ..
        }) => name,
        other => {
            let message = "cel.bind() variable names must be simple identifiers".to_owned();
            return Err((other.map_or(at, |other| other.at), message));
        }
    };
    let (Some(init), Some(result)) = (args.next(), args.next()) else {
        return Err((at, "wrong number of arguments".to_owned()));
    };
    Ok(make.let_in(name, init, result))
}

impl Make<'_, '_> {
    fn let_in(&mut self, name: Arc<str>, init: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let step = self.parser.node(self.at, Kind::Ident(name.clone()));
        let fold = Fold {
            range,
            var: "#unused".into(),
            var2: None,
            accu: name,
            init,
            condition,
            step,
            result,
        };
        self.parser.node(self.at, Kind::Fold(Box::new(fold)))
    }
}

/// `list.sortBy(name, key)`: the list, evaluated once, is sorted by a list of keys.
fn sort_by(
    parser: &mut Parser<'_>,
    at: usize,
    target: Expr,
    args: Vec<Expr>,
) -> Result<Expr, Fault> {
    if matches!(
        target.kind,
        Kind::Literal(_) | Kind::Map(_) | Kind::Struct(_)
    ) {
        let message = "sortBy can only be applied to a list, identifier, comprehension, call or \
                       select expression";
        return Err((target.at, message.to_owned()));
    }
    // A name that no expression can spell.
    let hidden: Arc<str> = "@__sortBy_input__".into();
    let ident = |parser: &mut Parser<'_>| parser.node(at, Kind::Ident(hidden.clone()));
    let (sorted, mapped) = (ident(parser), ident(parser));
    let mut args = args.into_iter();
    let name = Make { parser, at }.variable(args.next())?;
    let keys = Make { parser, at }.loops(mapped, "map", name, None, args.collect())?;
    let call = crate::ast::Call {
        target: Some(sorted),
        function: "@sortByAssociatedKeys".into(),
        args: vec![keys],
    };
    let call = parser.node(at, Kind::Call(Box::new(call)));
    Ok(Make { parser, at }.let_in(hidden, target, call))
}

/// `optional.optMap(name, expression)` and `optFlatMap`.
fn optional(
    parser: &mut Parser<'_>,
    at: usize,
    target: Expr,
    wrap: bool,
    args: Vec<Expr>,
) -> Result<Expr, Fault> {
    let mut args = args.into_iter();
    let mut make = Make { parser, at };
    let name = match args.next() {
        Some(Expr {
            kind: Kind::Ident(name),
            ..
        }) => name,
        other => {
            let function = if wrap { "optMap" } else { "optFlatMap" };
            let message = format!("{function}() variable name must be a simple identifier");
            return Err((other.map_or(at, |other| other.at), message));
        }
    };
    let Some(body) = args.next() else {
        return Err((at, "wrong number of arguments".to_owned()));
    };
    // The target is evaluated once, under a name that no expression can spell.
    let hidden: Arc<str> = "@target".into();
    let ident = |make: &mut Make<'_, '_>| make.parser.node(at, Kind::Ident(hidden.clone()));
    let (asked, taken) = (ident(&mut make), ident(&mut make));
    let has = make.method(asked, "hasValue");
    let value = make.method(taken, "value");
    let bound = make.let_in(name, value, body);
    let some = if wrap {
        make.call("optional.of", vec![bound])
    } else {
        bound
    };
    let none = make.call("optional.none", Vec::new());
    let choice = make.call(operator::CONDITIONAL, vec![has, some, none]);
    Ok(make.let_in(hidden, target, choice))
}

impl Make<'_, '_> {
    fn method(&mut self, target: Expr, function: &str) -> Expr {
        let call = crate::ast::Call {
            target: Some(target),
            function: function.into(),
            args: Vec::new(),
        };
        self.parser.node(self.at, Kind::Call(Box::new(call)))
    }
}
