//! Tokens to a tree, by recursive descent. Macros are expanded on the way.

use std::sync::Arc;

use crate::ast::{
    Access, Call, Element, Entry, Expr, Field, Kind, Literal, Select, Struct, operator,
};
use crate::lex::{Fault, Placed, Token, lex};
use crate::macros;
use crate::source::{CompileError, CompileErrors};

/// How deep an expression may nest.
pub(crate) const MAX_DEPTH: usize = 100;
/// How long an expression may be, in bytes.
const MAX_LENGTH: usize = 100_000;

const EXPECTED: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Parses an expression; answers its tree and how many nodes it has.
pub(crate) fn parse(source: &str) -> Result<(Expr, usize), CompileErrors> {
    let fail = |(at, message): Fault| CompileErrors(vec![CompileError::new(source, at, message)]);
    if source.len() > MAX_LENGTH {
        let message = format!(
            "expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}",
            source.len()
        );
        return Err(fail((0, message)));
    }
    let tokens = lex(source).map_err(fail)?;
    let mut parser = Parser {
        source,
        tokens,
        next: 0,
        ids: 0,
        depth: 0,
        faults: Vec::new(),
    };
    let outcome = parser.whole();
    let mut faults = parser.faults;
    match outcome {
        Ok(expr) if faults.is_empty() => return Ok((expr, parser.ids)),
        Ok(_) => {}
        Err(last) => faults.push(last),
    }
    let faults = faults.into_iter();
    Err(CompileErrors(
        faults
            .map(|(at, message)| CompileError::new(source, at, message))
            .collect(),
    ))
}

pub(crate) struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Placed>,
    next: usize,
    ids: usize,
    depth: usize,
    /// What was wrong where it was still clear how to go on.
    faults: Vec<Fault>,
}

type Parsed<T = Expr> = Result<T, Fault>;

impl Parser<'_> {
    fn whole(&mut self) -> Parsed {
        let expr = self.expr()?;
        match self.peek() {
            Token::End => Ok(expr),
            _ => Err(self.unexpected("<EOF>")),
        }
    }

    pub(crate) fn node(&mut self, at: usize, kind: Kind) -> Expr {
        self.ids += 1;
        Expr {
            id: self.ids - 1,
            at,
            kind,
        }
    }

    pub(crate) fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.node(
            at,
            Kind::Call(Box::new(Call {
                target: None,
                function: function.into(),
                args,
            })),
        )
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next].token
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    /// Passes a symbol and answers where it was, or does nothing.
    fn take(&mut self, symbol: &str) -> Option<usize> {
        let at = self.at();
        self.is(symbol).then(|| {
            self.next += 1;
            at
        })
    }

    fn expect(&mut self, symbol: &str) -> Parsed<usize> {
        self.take(symbol)
            .ok_or_else(|| self.unexpected(&format!("'{symbol}'")))
    }

    fn unexpected(&self, expecting: &str) -> Fault {
        let placed = &self.tokens[self.next];
        let text = match placed.token {
            Token::End => "<EOF>",
            _ => &self.source[placed.at..placed.end],
        };
        // One token too many, or nothing that fits.
        let last = self.tokens.get(self.next + 1);
        let last = last.is_some_and(|placed| matches!(placed.token, Token::End));
        let what = match expecting == "<EOF>" && last {
            true => "extraneous",
            false => "mismatched",
        };
        (
            placed.at,
            format!("Syntax error: {what} input '{text}' expecting {expecting}"),
        )
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((
                self.at(),
                format!("expression recursion limit exceeded: {MAX_DEPTH}"),
            ));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    pub(crate) fn expr(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.binary(0)?;
            let Some(at) = parser.take("?") else {
                return Ok(condition);
            };
            let yes = parser.binary(0)?;
            parser.expect(":")?;
            let no = parser.expr()?;
            Ok(parser.call(at, operator::CONDITIONAL, vec![condition, yes, no]))
        })
    }

    /// Binary operators from `level` up, by precedence climbing.
    fn binary(&mut self, level: usize) -> Parsed {
        let mut left = self.unary()?;
        let mut chain = 0;
        while let Some((function, precedence)) = self.binary_operator() {
            if precedence < level {
                break;
            }
            let at = self.at();
            self.next += 1;
            let right = self.deeper(|parser| parser.binary(precedence + 1))?;
            // Chains of the two logical operators lie flat: they may be long.
            left = match left.kind {
                Kind::Call(mut call)
                    if precedence < 2
                        && chain > 0
                        && *call.function == *function
                        && call.target.is_none() =>
                {
                    call.args.push(right);
                    Expr {
                        kind: Kind::Call(call),
                        ..left
                    }
                }
                kind => self.call(at, function, vec![Expr { kind, ..left }, right]),
            };
            chain += 1;
            if precedence >= 2 && chain > MAX_DEPTH {
                return Err((
                    at,
                    format!("expression recursion limit exceeded: {MAX_DEPTH}"),
                ));
            }
        }
        Ok(left)
    }

    fn binary_operator(&self) -> Option<(&'static str, usize)> {
        Some(match self.peek() {
            Token::Symbol("||") => (operator::OR, 0),
            Token::Symbol("&&") => (operator::AND, 1),
            Token::Symbol("==") => (operator::EQUALS, 2),
            Token::Symbol("!=") => ("_!=_", 2),
            Token::Symbol("<") => ("_<_", 2),
            Token::Symbol("<=") => ("_<=_", 2),
            Token::Symbol(">") => ("_>_", 2),
            Token::Symbol(">=") => (operator::GREATER_EQUALS, 2),
            Token::Ident(name) if &**name == "in" => (operator::IN, 2),
            Token::Symbol("+") => (operator::ADD, 3),
            Token::Symbol("-") => ("_-_", 3),
            Token::Symbol("*") => ("_*_", 4),
            Token::Symbol("/") => ("_/_", 4),
            Token::Symbol("%") => ("_%_", 4),
            _ => return None,
        })
    }

    fn unary(&mut self) -> Parsed {
        for (symbol, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            let Some(at) = self.take(symbol) else {
                continue;
            };
            let mut count = 1;
            while self.take(symbol).is_some() {
                count += 1;
            }
            // A minus before a number belongs to it: the smallest integer cannot be written otherwise.
            if symbol == "-" && count == 1 {
                if let Token::Int(number) = *self.peek() {
                    self.next += 1;
                    let Some(number) = 0i64.checked_sub_unsigned(number) else {
                        return Err((at, "invalid int literal".to_owned()));
                    };
                    let literal = self.node(at, Kind::Literal(Literal::Int(number)));
                    return self.member(literal);
                }
                if let Token::Double(number) = *self.peek() {
                    self.next += 1;
                    let literal = self.node(at, Kind::Literal(Literal::Double(-number)));
                    return self.member(literal);
                }
            }
            let primary = self.primary()?;
            let operand = self.member(primary)?;
            return Ok(if count % 2 == 1 {
                self.call(at, function, vec![operand])
            } else {
                operand
            });
        }
        let primary = self.primary()?;
        self.member(primary)
    }

    /// Selections, calls and indices after `operand`.
    fn member(&mut self, mut operand: Expr) -> Parsed {
        for _ in 0..MAX_DEPTH {
            if let Some(at) = self.take(".") {
                let optional = self.take("?").is_some();
                let field = self.identifier(true)?;
                operand = if !optional && self.is("(") {
                    let open = self.expect("(")?;
                    let args = self.list(")", Parser::expr)?;
                    self.member_call(open, operand, field, args)?
                } else {
                    let access = if optional {
                        Access::Optional
                    } else {
                        Access::Plain
                    };
                    self.node(
                        at,
                        Kind::Select(Box::new(Select {
                            operand,
                            field,
                            access,
                        })),
                    )
                };
            } else if let Some(at) = self.take("[") {
                let function = if self.take("?").is_some() {
                    operator::OPT_INDEX
                } else {
                    operator::INDEX
                };
                let index = self.expr()?;
                self.expect("]")?;
                operand = self.call(at, function, vec![operand, index]);
            } else if self.is("{") && operand.qualified_name().is_some() {
                operand = self.structure(&operand)?;
            } else {
                return Ok(operand);
            }
        }
        Err((
            self.at(),
            format!("expression recursion limit exceeded: {MAX_DEPTH}"),
        ))
    }

    fn member_call(
        &mut self,
        open: usize,
        target: Expr,
        function: Arc<str>,
        args: Vec<Expr>,
    ) -> Parsed {
        match macros::member(self, open, target, &function, args)? {
            macros::Outcome::Expanded(expr) => Ok(expr),
            macros::Outcome::Call(target, args) => Ok(self.node(
                open,
                Kind::Call(Box::new(Call {
                    target,
                    function,
                    args,
                })),
            )),
        }
    }

    fn structure(&mut self, name: &Expr) -> Parsed {
        let name = name.qualified_name().unwrap_or_default();
        let at = self.expect("{")?;
        let fields = self.list("}", |parser| {
            let optional = parser.take("?").is_some();
            let name = parser.identifier(true)?;
            let at = parser.expect(":")?;
            Ok(Field {
                at,
                name,
                value: parser.expr()?,
                optional,
            })
        })?;
        Ok(self.node(at, Kind::Struct(Box::new(Struct { name, fields }))))
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        if self.take("(").is_some() {
            let expr = self.expr()?;
            self.expect(")")?;
            return Ok(expr);
        }
        if self.take("[").is_some() {
            let elements = self.list("]", |parser| {
                let optional = parser.take("?").is_some();
                Ok(Element {
                    value: parser.expr()?,
                    optional,
                })
            })?;
            return Ok(self.node(at, Kind::List(elements)));
        }
        if self.take("{").is_some() {
            let entries = self.list("}", |parser| {
                let optional = parser.take("?").is_some();
                let key = parser.expr()?;
                parser.expect(":")?;
                Ok(Entry {
                    key,
                    value: parser.expr()?,
                    optional,
                })
            })?;
            return Ok(self.node(at, Kind::Map(entries)));
        }
        if self.is(".") || matches!(self.peek(), Token::Ident(_)) {
            return self.named();
        }
        let literal = match self.peek().clone() {
            Token::Int(number) => Literal::Int(
                i64::try_from(number).map_err(|_| (at, "invalid int literal".to_owned()))?,
            ),
            Token::Uint(number) => Literal::Uint(number),
            Token::Double(number) => Literal::Double(number),
            Token::String(text) => Literal::String(text),
            Token::Bytes(bytes) => Literal::Bytes(bytes),
            // An operator that lacks its left side; it has its right side looked at, too.
            _ if self.binary_operator().is_some() => {
                let fault = self.unexpected(EXPECTED);
                self.faults.push(fault);
                return Ok(self.node(at, Kind::Literal(Literal::Null)));
            }
            _ => return Err(self.unexpected(EXPECTED)),
        };
        self.next += 1;
        Ok(self.node(at, Kind::Literal(literal)))
    }

    /// An identifier, a word that is a literal, or a call of a function.
    fn named(&mut self) -> Parsed {
        let at = self.at();
        let rooted = self.take(".").is_some();
        let word = match self.peek() {
            Token::Ident(word) => word.clone(),
            _ => return Err(self.unexpected("IDENTIFIER")),
        };
        let literal = match &*word {
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            "null" => Some(Literal::Null),
            _ => None,
        };
        if let Some(literal) = literal.filter(|_| !rooted) {
            self.next += 1;
            return Ok(self.node(at, Kind::Literal(literal)));
        }
        let name = self.identifier(false)?;
        let Some(open) = self.take("(") else {
            return Ok(self.node(at, Kind::Ident(name)));
        };
        let args = self.list(")", Parser::expr)?;
        if &*name == "has" {
            return macros::has(self, open, args);
        }
        Ok(self.call(open, &name, args))
    }

    fn identifier(&mut self, field: bool) -> Parsed<Arc<str>> {
        let Token::Ident(name) = self.peek().clone() else {
            return Err(self.unexpected("IDENTIFIER"));
        };
        if &*name == "in" || matches!(&*name, "true" | "false" | "null") {
            return Err(self.unexpected("IDENTIFIER"));
        }
        if !field && crate::words::RESERVED.contains(&&*name) {
            return Err((self.at(), format!("reserved identifier: {name}")));
        }
        self.next += 1;
        Ok(name)
    }

    /// Items between commas up to `close`; a comma may follow the last one.
    fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.is(close) {
            items.push(item(self)?);
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect(close)?;
        Ok(items)
    }
}
