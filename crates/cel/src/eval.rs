//! The evaluator: walks the prepared tree and counts what that costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::Access;
use crate::cost::{Budget, CallCost, LIST_CREATE, MAP_CREATE, STRUCT_CREATE};
use crate::error::EvalError;
use crate::functions::{Function, Outcome, equal};
use crate::plan::{Loop, Node};
use crate::program::{Program, Resolver};
use crate::value::{Key, Made, Value};

/// One evaluation.
pub(crate) struct Frame<'f, 'a> {
    variables: &'f dyn Resolver<'a>,
    budget: &'f mut Budget,
    slots: Vec<Outcome<'a>>,
    cost: u64,
    limit: u64,
}

impl<'f, 'a> Frame<'f, 'a> {
    pub(crate) fn new(
        program: &Program,
        variables: &'f dyn Resolver<'a>,
        budget: &'f mut Budget,
        limit: u64,
    ) -> Frame<'f, 'a> {
        Frame {
            variables,
            budget,
            slots: vec![Ok(Value::Null); program.slots],
            cost: 0,
            limit,
        }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit {
            Err(EvalError::CallLimit)
        } else {
            Ok(())
        }
    }

    pub(crate) fn eval(&mut self, node: &Node) -> Outcome<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Local(slot) => {
                self.charge(1)?;
                self.slots[*slot].clone()
            }
            Node::Variable(name) => {
                self.charge(1)?;
                let missing = || EvalError::fault(format!("no such attribute(s): {name}"));
                self.variables
                    .resolve(name, self.budget)
                    .unwrap_or_else(|| Err(missing()))
            }
            Node::Select(operand, field, access) => self.select(operand, field, *access),
            Node::Index(operand, index, access) => self.index(operand, index, *access),
            Node::Call(function, args) => self.call(function, args),
            Node::Matches(operand, regex, length) => match self.eval(operand)? {
                value @ Value::String(_) => {
                    let result = Value::Bool(regex.is_match(value.as_str().unwrap_or_default()));
                    let size = value.size().unwrap_or(0) as u64;
                    let cost = crate::cost::scaled(size + 1, crate::cost::STRING_FACTOR)
                        * crate::cost::scaled(*length as u64, crate::cost::REGEX_FACTOR);
                    self.charge(cost)?;
                    Ok(result)
                }
                _ => Err(EvalError::no_such_overload()),
            },
            Node::And(terms) => self.logic(terms, false),
            Node::Or(terms) => self.logic(terms, true),
            Node::If(parts) => match self.eval(&parts[0])? {
                Value::Bool(true) => self.eval(&parts[1]),
                Value::Bool(false) => self.eval(&parts[2]),
                _ => Err(EvalError::no_such_overload()),
            },
            Node::NotStrictlyFalse(term) => self.not_strictly_false(term),
            Node::OptionalOr(target, other, unwrap) => match self.eval(target)? {
                Value::Optional(Some(value)) if *unwrap => Ok(Value::clone(&value)),
                present @ Value::Optional(Some(_)) => Ok(present),
                Value::Optional(None) => self.eval(other),
                _ => Err(EvalError::no_such_overload()),
            },
            Node::Append(slot, item) => self.append(*slot, item),
            Node::Insert(slot, key, value) => self.insert(*slot, key.as_deref(), value),
            Node::InConst(item, list) => {
                let item = self.eval(item)?;
                let size = list.size().unwrap_or(0);
                Ok(Value::Bool((0..size).any(|index| {
                    list.item(index).is_some_and(|other| equal(&item, &other))
                })))
            }
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.structure(name, fields),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn select(&mut self, operand: &Node, field: &str, access: Access) -> Outcome<'a> {
        let operand = self.eval(operand)?;
        if access != Access::Test {
            self.charge(1)?;
        }
        let (target, was_optional) = match &operand {
            Value::Optional(Some(value)) => (&**value, true),
            Value::Optional(None) if access == Access::Test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(operand),
            other => (other, false),
        };
        if !matches!(target, Value::JsonMap(_) | Value::Map(_) | Value::Object(_)) {
            let message = match target {
                Value::Null | Value::List(_) | Value::JsonList(_) => "no such key: ",
                _ => return Err(EvalError::no_such_overload()),
            };
            return Err(EvalError::fault(format!("{message}{field}")));
        }
        let found = target.field(field);
        match (access, found) {
            (Access::Test, found) => Ok(Value::Bool(found.is_some())),
            (Access::Plain, Some(value)) if !was_optional => Ok(value),
            (Access::Plain, None) if !was_optional => Err(EvalError::no_such_key(field)),
            (_, found) => Ok(Value::Optional(found.map(Arc::new))),
        }
    }

    fn index(&mut self, operand: &Node, index: &Node, access: Access) -> Outcome<'a> {
        let operand = self.eval(operand)?;
        let index = self.eval(index)?;
        self.charge(1)?;
        let (target, optional) = match &operand {
            Value::Optional(Some(value)) => (&**value, true),
            Value::Optional(None) => return Ok(operand),
            other => (other, access == Access::Optional),
        };
        let found = match (target, &index) {
            (Value::List(_) | Value::JsonList(_), index) => {
                let number = match index {
                    Value::Int(number) => Some(i128::from(*number)),
                    Value::Uint(number) => Some(i128::from(*number)),
                    Value::Double(number) if number.fract() == 0.0 => Some(*number as i128),
                    _ => None,
                };
                let Some(number) = number else {
                    return Err(EvalError::fault(format!(
                        "unsupported index type '{}' in list",
                        index.type_name()
                    )));
                };
                let found = usize::try_from(number)
                    .ok()
                    .and_then(|number| target.item(number));
                found.ok_or_else(|| EvalError::fault(format!("index out of bounds: {number}")))
            }
            (Value::Map(_) | Value::JsonMap(_), index) => {
                let shown = || match crate::functions::text_of(index) {
                    Some(text) => EvalError::no_such_key(&text),
                    None => EvalError::no_such_overload(),
                };
                crate::functions::lookup(target, index).ok_or_else(shown)
            }
            (Value::Object(_), Value::String(name)) => target
                .field(name)
                .ok_or_else(|| EvalError::no_such_key(name)),
            _ => Err(EvalError::no_such_overload()),
        };
        if optional {
            return Ok(Value::Optional(found.ok().map(Arc::new)));
        }
        found
    }

    fn call(&mut self, function: &Function, args: &[Node]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        // What would be dear to compute is paid for first.
        let early = matches!(
            function.cost,
            CallCost::Regex | CallCost::Product | CallCost::Check
        );
        if early {
            self.charge(function.cost.charge(&values, &Value::Null))?;
        }
        let result = (function.call)(&values)?;
        if !early {
            self.charge(function.cost.charge(&values, &result))?;
        }
        Ok(result)
    }

    /// `&&` and `||`: a term that decides absorbs the errors of others.
    fn logic(&mut self, terms: &[Node], decides: bool) -> Outcome<'a> {
        let mut error = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = error.or(Some(EvalError::no_such_overload())),
                Err(limit) if limit.is_limit() => return Err(limit),
                Err(fault) => error = error.or(Some(fault)),
            }
        }
        error.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn not_strictly_false(&mut self, term: &Node) -> Outcome<'a> {
        let result = self.eval(term);
        self.charge(1)?;
        match result {
            Ok(Value::Bool(value)) => Ok(Value::Bool(value)),
            Err(limit) if limit.is_limit() => Err(limit),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn append(&mut self, slot: usize, item: &Node) -> Outcome<'a> {
        let item = self.eval(item)?;
        // Reading the accumulator, making a list of one, adding the two.
        self.charge(1 + LIST_CREATE + 1)?;
        let accu = std::mem::replace(&mut self.slots[slot], Ok(Value::Null))?;
        match accu {
            Value::List(mut items) => {
                Arc::make_mut(&mut items).push(item);
                Ok(Value::List(items))
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn insert(&mut self, slot: usize, key: Option<&Node>, value: &Node) -> Outcome<'a> {
        let key = key.map(|key| self.eval(key)).transpose()?;
        let value = self.eval(value)?;
        self.charge(2)?;
        let accu = std::mem::replace(&mut self.slots[slot], Ok(Value::Null))?;
        let Value::Map(mut map) = accu else {
            return Err(EvalError::no_such_overload());
        };
        let added = match key {
            Some(key) => vec![(key, value)],
            None => value.entries().ok_or_else(EvalError::no_such_overload)?,
        };
        let entries = Arc::make_mut(&mut map);
        for (key, value) in added {
            let text = crate::functions::text_of(&key).unwrap_or_default();
            let key = Key::of(&key).ok_or_else(|| EvalError::fault("unsupported key type"))?;
            if entries.insert(key, value).is_some() {
                return Err(EvalError::fault(format!(
                    "insert failed: key {text} already exists"
                )));
            }
        }
        Ok(Value::Map(map))
    }

    fn list(&mut self, items: &[(Node, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.eval(item)?, optional) {
                (value, false) => values.push(value),
                (Value::Optional(value), true) => {
                    values.extend(value.map(|value| Value::clone(&value)))
                }
                (other, true) => return Err(not_optional(&other)),
            }
        }
        self.charge(LIST_CREATE)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &[(Node, Node, bool)]) -> Outcome<'a> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => Value::clone(&value),
                (Value::Optional(None), true) => continue,
                (other, true) => return Err(not_optional(&other)),
            };
            let text = crate::functions::text_of(&key).unwrap_or_default();
            let unsupported =
                || EvalError::fault(format!("unsupported key type: {}", key.type_name()));
            let key = Key::of(&key).ok_or_else(unsupported)?;
            if map.insert(key, value).is_some() {
                return Err(EvalError::fault(format!(
                    "Failed with repeated key: {text}"
                )));
            }
        }
        self.charge(MAP_CREATE)?;
        Ok(Value::Map(Arc::new(map)))
    }

    fn structure(&mut self, name: &Arc<str>, fields: &[(String, Node, bool)]) -> Outcome<'a> {
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            match (self.eval(value)?, optional) {
                (value, false) => made.insert(field.clone(), value),
                (Value::Optional(Some(value)), true) => {
                    made.insert(field.clone(), Value::clone(&value))
                }
                (Value::Optional(None), true) => continue,
                (other, true) => return Err(not_optional(&other)),
            };
        }
        self.charge(STRUCT_CREATE)?;
        Ok(Value::Object(Arc::new(Made {
            name: name.clone(),
            fields: made,
        })))
    }

    fn fold(&mut self, fold: &Loop) -> Outcome<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        if let Err(error) = &init {
            // A bound name that fails fails only where it is used.
            if error.is_limit() {
                return init;
            }
        }
        self.slots[fold.accu] = init;
        match &range {
            Value::List(_) | Value::JsonList(_) => {
                for index in 0..range.size().unwrap_or(0) {
                    let item = range.item(index).unwrap_or(Value::Null);
                    let position = Value::Int(index as i64);
                    let more = match fold.var2 {
                        Some(_) => self.turn(fold, position, item)?,
                        None => self.turn(fold, item, Value::Null)?,
                    };
                    if !more {
                        break;
                    }
                }
            }
            _ => {
                let entries = range.entries().ok_or_else(EvalError::no_such_overload)?;
                for (key, value) in entries {
                    if !self.turn(fold, key, value)? {
                        break;
                    }
                }
            }
        }
        self.eval(&fold.result)
    }

    /// One turn of a loop; answers whether there may be another.
    fn turn(&mut self, fold: &Loop, var: Value<'a>, var2: Value<'a>) -> Result<bool, EvalError> {
        self.slots[fold.var] = Ok(var);
        if let Some(slot) = fold.var2 {
            self.slots[slot] = Ok(var2);
        }
        match self.eval(&fold.condition)? {
            Value::Bool(true) => {}
            _ => return Ok(false),
        }
        let step = self.eval(&fold.step);
        let (failed, limit) = match &step {
            Ok(_) => (false, false),
            Err(error) => (true, error.is_limit()),
        };
        self.slots[fold.accu] = step;
        // Only loops that may recover from an error go on after one.
        if limit || failed && matches!(fold.condition, Node::Const(_)) {
            return Ok(false);
        }
        Ok(true)
    }
}

fn not_optional(value: &Value<'_>) -> EvalError {
    EvalError::fault(format!(
        "cannot initialize optional entry from non-optional value of type {}",
        value.type_name()
    ))
}
