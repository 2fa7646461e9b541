//! The type checker: finds the type of each node, resolves dotted names, and reports what cannot be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Access, Call, Expr, Fold, Kind, Literal, Select, Struct, operator};
use crate::env::Env;
use crate::functions;
use crate::source::{CompileError, CompileErrors};
use crate::types::Type;
use crate::unify::{Substitutions, most_general};

/// What the checker found out.
pub(crate) struct Checked {
    /// The type of each node, by its id.
    pub(crate) types: Vec<Type>,
    /// Nodes that are names of variables (or types), though they look like selections.
    pub(crate) names: HashMap<usize, Arc<str>>,
    /// Calls whose target is part of the function's name.
    pub(crate) namespaced: HashMap<usize, Arc<str>>,
}

pub(crate) fn check(
    env: &Env,
    source: &str,
    expr: &Expr,
    nodes: usize,
) -> Result<Checked, CompileErrors> {
    let mut checker = Checker {
        env,
        source,
        errors: Vec::new(),
        scopes: Vec::new(),
        known: Substitutions::default(),
        out: Checked {
            types: vec![Type::Error; nodes],
            names: HashMap::new(),
            namespaced: HashMap::new(),
        },
    };
    checker.expr(expr);
    if !checker.errors.is_empty() {
        checker
            .errors
            .sort_by_key(|error| (error.line, error.column));
        return Err(CompileErrors(checker.errors));
    }
    let known = checker.known;
    for ty in &mut checker.out.types {
        *ty = known.resolve(ty, true);
    }
    Ok(checker.out)
}

struct Checker<'e> {
    env: &'e Env,
    source: &'e str,
    errors: Vec<CompileError>,
    scopes: Vec<(Arc<str>, Type)>,
    known: Substitutions,
    out: Checked,
}

impl Checker<'_> {
    fn report(&mut self, at: usize, message: String) {
        self.errors
            .push(CompileError::new(self.source, at, message));
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.report(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        );
        Type::Error
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) {
        let (expected, found) = (
            self.known.resolve(expected, false),
            self.known.resolve(found, false),
        );
        self.report(
            at,
            format!("expected type '{expected}' but found '{found}'"),
        );
    }

    fn ty(&self, expr: &Expr) -> Type {
        self.out.types[expr.id].clone()
    }

    fn expr(&mut self, expr: &Expr) -> Type {
        let ty = match &expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => match self.lookup(name) {
                Some(ty) => ty,
                None => self.undeclared(expr.at, name),
            },
            Kind::Select(select) => self.select(expr, select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let mut elem = None;
                for element in elements {
                    let found = self.item(&element.value, element.optional);
                    elem = Some(self.join(element.value.at, elem, found));
                }
                Type::list(elem.unwrap_or_else(|| self.known.fresh()))
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                for entry in entries {
                    let found = self.expr(&entry.key);
                    key = Some(self.join(entry.key.at, key, found));
                    let found = self.item(&entry.value, entry.optional);
                    value = Some(self.join(entry.value.at, value, found));
                }
                let key = key.unwrap_or_else(|| self.known.fresh());
                Type::map(key, value.unwrap_or_else(|| self.known.fresh()))
            }
            Kind::Struct(made) => self.structure(expr, made),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.out.types[expr.id] = ty.clone();
        ty
    }

    /// A variable in scope, a declared one, or the name of a type.
    fn lookup(&self, name: &str) -> Option<Type> {
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(known, _)| **known == *name) {
            return Some(ty.clone());
        }
        self.env
            .variable(name)
            .map(|decl| decl.ty.clone())
            .or_else(|| self.env.type_named(name))
    }

    fn select(&mut self, expr: &Expr, select: &Select) -> Type {
        if let Some(name) = select
            .operand
            .qualified_name()
            .filter(|_| select.access != Access::Optional)
        {
            let full = format!("{name}.{}", select.field);
            let root = full.split('.').next().unwrap_or_default();
            let shadowed = self.scopes.iter().any(|(known, _)| **known == *root);
            if let Some(ty) = self.lookup(&full).filter(|_| !shadowed) {
                self.out.names.insert(expr.id, full.into());
                return if select.access == Access::Test {
                    Type::Bool
                } else {
                    ty
                };
            }
        }
        let operand = self.expr(&select.operand);
        let ty = self.field(
            expr,
            &operand,
            &select.field,
            select.access == Access::Optional,
        );
        if select.access == Access::Test {
            Type::Bool
        } else {
            self.known.resolve(&ty, false)
        }
    }

    fn field(&mut self, expr: &Expr, operand: &Type, field: &str, optional: bool) -> Type {
        let operand = self.known.resolve(operand, false);
        let (target, was_optional) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            _ => (operand.clone(), false),
        };
        let result = match &target {
            Type::Map(map) => map.value.ty.clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => field.decl.ty.clone(),
                None => {
                    self.report(expr.at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.known.fits(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn() {
                    self.report(
                        expr.at,
                        format!("type '{other}' does not support field selection"),
                    );
                }
                Type::Dyn
            }
        };
        if optional || was_optional {
            Type::optional(result)
        } else {
            result
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Type {
        for arg in &call.args {
            match &arg.kind {
                // What is formatted need not be of one type.
                Kind::List(elements) if &*call.function == "format" => {
                    for element in elements {
                        self.item(&element.value, element.optional);
                    }
                    self.out.types[arg.id] = Type::list(Type::Dyn);
                }
                _ => drop(self.expr(arg)),
            }
        }
        let Some(target) = &call.target else {
            return match functions::find(&call.function) {
                Some(function) => self.overload(expr, function, None, &call.args),
                None => self.undeclared(expr.at, &call.function),
            };
        };
        if let Some(prefix) = target.qualified_name() {
            let full = format!("{prefix}.{}", call.function);
            if let Some(function) = functions::find(&full) {
                self.out.namespaced.insert(expr.id, full.into());
                return self.overload(expr, function, None, &call.args);
            }
        }
        self.expr(target);
        match functions::find(&call.function) {
            Some(function) => self.overload(expr, function, Some(target), &call.args),
            None => self.undeclared(expr.at, &call.function),
        }
    }

    fn overload(
        &mut self,
        expr: &Expr,
        function: &functions::Function,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Type {
        if matches!(function.name, operator::AND | operator::OR) {
            return self.logic(args);
        }
        let given: Vec<Type> = target
            .into_iter()
            .chain(args)
            .map(|arg| self.ty(arg))
            .collect();
        let mut result: Option<Type> = None;
        for overload in &function.overloads {
            if overload.member != target.is_some() || overload.args.len() != given.len() {
                continue;
            }
            let signature: Vec<&Type> = overload.args.iter().chain([&overload.result]).collect();
            let mut fresh = self.known.instantiate(&signature);
            let declared = fresh.pop().unwrap_or(Type::Error);
            if !self.known.fits_all(&given, &fresh) {
                continue;
            }
            let declared = self.known.resolve(&declared, false);
            result = Some(match result {
                None => declared,
                Some(before) if before.is_dyn() || before == declared => before,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let shown: Vec<String> = given
                .iter()
                .map(|ty| self.known.resolve(ty, true).to_string())
                .collect();
            let signature = match (target, shown.split_first()) {
                (Some(_), Some((first, rest))) => format!("{first}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let message = format!(
                "found no matching overload for '{}' applied to '{signature}'",
                function.name
            );
            self.report(expr.at, message);
            Type::Error
        })
    }

    fn logic(&mut self, args: &[Expr]) -> Type {
        let mut result = Type::Bool;
        for arg in args {
            let ty = self.ty(arg);
            if !self.known.fits(&ty, &Type::Bool) {
                self.mismatch(arg.at, &Type::Bool, &ty);
                result = Type::Error;
            }
        }
        result
    }

    /// An element of a literal; an optional one is unwrapped.
    fn item(&mut self, expr: &Expr, optional: bool) -> Type {
        let ty = self.expr(expr);
        if !optional {
            return ty;
        }
        match self.known.resolve(&ty, false) {
            Type::Optional(inner) => (*inner).clone(),
            ty => {
                if !ty.is_dyn() {
                    self.mismatch(expr.at, &Type::optional(ty.clone()), &ty);
                }
                ty
            }
        }
    }

    /// The common type of a literal's elements, which must be one.
    fn join(&mut self, at: usize, before: Option<Type>, found: Type) -> Type {
        let Some(before) = before else { return found };
        if self.known.fits(&before, &found) {
            return most_general(&before, &found);
        }
        self.mismatch(at, &before, &found);
        Type::Error
    }

    fn structure(&mut self, expr: &Expr, made: &Struct) -> Type {
        let ty = self.env.type_named(&made.name);
        let fields = match &ty {
            Some(Type::Type(inner)) => match &**inner {
                Type::Object(object) => Some(object.clone()),
                other => {
                    let message = format!("'{}' is not a message type", other.name());
                    self.report(expr.at, message);
                    None
                }
            },
            _ => {
                self.undeclared(expr.at, &made.name);
                None
            }
        };
        for field in &made.fields {
            let found = self.item(&field.value, field.optional);
            let Some(object) = &fields else { continue };
            match object
                .fields
                .get(&*field.name)
                .map(|field| field.decl.ty.clone())
            {
                None if self.env.is_open(&made.name) => {}
                None => self.report(field.at, format!("undefined field '{}'", field.name)),
                Some(expected) if !self.known.fits(&expected, &found) => {
                    let found = self.known.resolve(&found, false);
                    let message = format!(
                        "expected type of field '{}' is '{expected}' but provided type is '{found}'",
                        field.name
                    );
                    self.report(field.at, message);
                }
                Some(_) => {}
            }
        }
        fields.map_or(Type::Error, Type::Object)
    }

    fn fold(&mut self, fold: &Fold) -> Type {
        let range = self.expr(&fold.range);
        let init = self.expr(&fold.init);
        let range = self.known.resolve(&range, false);
        let scope = self.scopes.len();
        self.scopes.push((fold.accu.clone(), init.clone()));
        let (first, second) = match &range {
            Type::List(list) if fold.var2.is_some() => (Type::Int, list.elem.ty.clone()),
            Type::List(list) => (list.elem.ty.clone(), Type::Error),
            Type::Map(map) => (map.key.clone(), map.value.ty.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.known.fits(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.at, message);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((fold.var.clone(), first));
        if let Some(var2) = &fold.var2 {
            self.scopes.push((var2.clone(), second));
        }
        let condition = self.expr(&fold.condition);
        self.require(&fold.condition, &Type::Bool, &condition);
        let step = self.expr(&fold.step);
        self.require(&fold.step, &init, &step);
        self.scopes.truncate(scope + 1);
        let result = self.expr(&fold.result);
        self.scopes.truncate(scope);
        self.known.resolve(&result, false)
    }

    fn require(&mut self, expr: &Expr, expected: &Type, found: &Type) {
        if !self.known.fits(expected, found) {
            self.mismatch(expr.at, expected, found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
