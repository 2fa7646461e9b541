//! Which type fits where, and what unknown types turn out to be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::{ListType, MapType, Type};

/// What is known of the types that are still to be found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Substitutions {
    known: HashMap<usize, Type>,
    next: usize,
}

impl Substitutions {
    /// A type to be found.
    pub(crate) fn fresh(&mut self) -> Type {
        self.next += 1;
        Type::Param(self.next - 1)
    }

    /// Gives the parameters of a function's signature names of their own.
    pub(crate) fn instantiate(&mut self, types: &[&Type]) -> Vec<Type> {
        let mut fresh = HashMap::new();
        types.iter().map(|ty| self.rename(ty, &mut fresh)).collect()
    }

    fn rename(&mut self, ty: &Type, fresh: &mut HashMap<usize, Type>) -> Type {
        map_params(ty, &mut |number| {
            fresh.entry(number).or_insert_with(|| self.fresh()).clone()
        })
    }

    /// Whether each type can stand where the other is expected; keeps what was learnt only if all can.
    pub(crate) fn fits_all(&mut self, given: &[Type], expected: &[Type]) -> bool {
        if given.len() != expected.len() {
            return false;
        }
        let mut attempt = self.clone();
        let fits = given
            .iter()
            .zip(expected)
            .all(|(given, expected)| attempt.assign(given, expected));
        if fits {
            *self = attempt;
        }
        fits
    }

    pub(crate) fn fits(&mut self, given: &Type, expected: &Type) -> bool {
        self.fits_all(std::slice::from_ref(given), std::slice::from_ref(expected))
    }

    /// The type with all that is known put in; what stays unknown becomes dyn if `settle`.
    pub(crate) fn resolve(&self, ty: &Type, settle: bool) -> Type {
        map_params(ty, &mut |number| match self.known.get(&number) {
            Some(known) => self.resolve(known, settle),
            None if settle => Type::Dyn,
            None => Type::Param(number),
        })
    }

    fn assign(&mut self, one: &Type, two: &Type) -> bool {
        if let Type::Param(number) = two {
            let (valid, known) = self.substitute(one, *number);
            if valid || known {
                return valid;
            }
        }
        if let Type::Param(number) = one {
            return self.substitute(two, *number).0;
        }
        if one.is_dyn() || two.is_dyn() {
            return true;
        }
        match (one, two) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null
                    | Type::Opaque(_)
                    | Type::Optional(_)
                    | Type::Object(_)
                    | Type::Duration
                    | Type::Timestamp
            ),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(one), Type::List(two)) => self.assign(&one.elem.ty, &two.elem.ty),
            (Type::Map(one), Type::Map(two)) => {
                self.assign(&one.key, &two.key) && self.assign(&one.value.ty, &two.value.ty)
            }
            (Type::Optional(one), Type::Optional(two)) => self.assign(one, two),
            _ => one == two,
        }
    }

    /// Takes `ty` for the parameter: whether it may, and whether something was known before.
    fn substitute(&mut self, ty: &Type, number: usize) -> (bool, bool) {
        if *ty == Type::Param(number) {
            return (true, true);
        }
        if let Some(known) = self.known.get(&number).cloned() {
            if *ty == known {
                return (true, true);
            }
            if !self.assign(ty, &known) {
                return (false, true);
            }
            let general = most_general(ty, &known);
            if !self.occurs(number, &general) {
                self.known.insert(number, general);
            }
            return (true, true);
        }
        if self.occurs(number, ty) {
            return (false, false);
        }
        self.known.insert(number, ty.clone());
        (true, false)
    }

    fn occurs(&self, number: usize, within: &Type) -> bool {
        match within {
            Type::Param(other) => {
                *other == number
                    || self
                        .known
                        .get(other)
                        .is_some_and(|known| self.occurs(number, known))
            }
            Type::List(list) => self.occurs(number, &list.elem.ty),
            Type::Map(map) => self.occurs(number, &map.key) || self.occurs(number, &map.value.ty),
            Type::Optional(inner) | Type::Type(inner) => self.occurs(number, inner),
            _ => false,
        }
    }
}

/// The less specific of two types that fit each other.
pub(crate) fn most_general(one: &Type, two: &Type) -> Type {
    if less_specific(one, two) {
        one.clone()
    } else {
        two.clone()
    }
}

fn less_specific(one: &Type, two: &Type) -> bool {
    match (one, two) {
        (one, _) if one.is_dyn() => true,
        (Type::Param(_), _) => true,
        (_, two) if two.is_dyn() || matches!(two, Type::Param(_)) => false,
        // Null gives way to what may be null.
        (Type::Null, two) => *two == Type::Null,
        (_, Type::Null) => true,
        (Type::List(one), Type::List(two)) => less_specific(&one.elem.ty, &two.elem.ty),
        (Type::Map(one), Type::Map(two)) => {
            less_specific(&one.key, &two.key) && less_specific(&one.value.ty, &two.value.ty)
        }
        (Type::Optional(one), Type::Optional(two)) => less_specific(one, two),
        (Type::Type(_), Type::Type(_)) => true,
        _ => one == two,
    }
}

fn has_params(ty: &Type) -> bool {
    match ty {
        Type::Param(_) => true,
        Type::List(list) => has_params(&list.elem.ty),
        Type::Map(map) => has_params(&map.key) || has_params(&map.value.ty),
        Type::Optional(inner) | Type::Type(inner) => has_params(inner),
        _ => false,
    }
}

fn map_params(ty: &Type, replace: &mut dyn FnMut(usize) -> Type) -> Type {
    if !has_params(ty) {
        return ty.clone();
    }
    match ty {
        Type::Param(number) => replace(*number),
        Type::List(list) => {
            let mut elem = list.elem.clone();
            elem.ty = map_params(&elem.ty, replace);
            Type::List(Arc::new(ListType {
                elem,
                kind: list.kind,
                keys: list.keys.clone(),
            }))
        }
        Type::Map(map) => {
            let mut value = map.value.clone();
            let key = map_params(&map.key, replace);
            value.ty = map_params(&value.ty, replace);
            Type::Map(Arc::new(MapType { key, value }))
        }
        Type::Optional(inner) => Type::optional(map_params(inner, replace)),
        Type::Type(inner) => Type::Type(Arc::new(map_params(inner, replace))),
        other => other.clone(),
    }
}
