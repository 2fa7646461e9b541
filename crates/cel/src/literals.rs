//! Literals that can never be right are refused when the expression is compiled.

use crate::ast::{Call, Expr, Kind, Literal};
use crate::functions::regexp;
use crate::source::{CompileError, CompileErrors};

/// Seconds of the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Checks regular expressions, durations and timestamps that are written out.
pub(crate) fn check(source: &str, expr: &Expr) -> Result<(), CompileErrors> {
    let mut errors = Vec::new();
    walk(expr, &mut |call| {
        let Some((arg, function)) = wrong(call) else {
            return;
        };
        errors.push(CompileError::new(
            source,
            arg.at,
            format!("invalid {function} argument"),
        ));
    });
    if errors.is_empty() {
        Ok(())
    } else {
        Err(CompileErrors(errors))
    }
}

/// The argument that cannot be right, and the function it is given to.
fn wrong(call: &Call) -> Option<(&Expr, &str)> {
    let arg = call.args.last()?;
    let text = match &arg.kind {
        Kind::Literal(Literal::String(text)) => text,
        Kind::Literal(Literal::Int(second)) if &*call.function == "timestamp" => {
            return (!SECONDS.contains(second)).then_some((arg, "timestamp"));
        }
        _ => return None,
    };
    let right = match &*call.function {
        "matches" => regexp::compile(text).is_ok(),
        "duration" if call.target.is_none() => crate::time::parse_duration(text).is_some(),
        "timestamp" if call.target.is_none() => crate::time::parse_timestamp(text).is_some(),
        _ => true,
    };
    (!right).then_some((arg, &*call.function))
}

fn walk(expr: &Expr, visit: &mut dyn FnMut(&Call)) {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select(select) => walk(&select.operand, visit),
        Kind::Call(call) => {
            visit(call);
            call.target
                .iter()
                .chain(&call.args)
                .for_each(|arg| walk(arg, visit));
        }
        Kind::List(elements) => elements
            .iter()
            .for_each(|element| walk(&element.value, visit)),
        Kind::Map(entries) => entries.iter().for_each(|entry| {
            walk(&entry.key, visit);
            walk(&entry.value, visit);
        }),
        Kind::Struct(made) => made
            .fields
            .iter()
            .for_each(|field| walk(&field.value, visit)),
        Kind::Fold(fold) => {
            for part in [
                &fold.range,
                &fold.init,
                &fold.condition,
                &fold.step,
                &fold.result,
            ] {
                walk(part, visit);
            }
        }
    }
}
