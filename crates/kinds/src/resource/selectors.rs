//! Expressions that select devices, as dynamic resource allocation compiles them.

use std::sync::LazyLock;

use cel::{Decl, Env, Type};
use meta::Faults;

use crate::spot::Spot;
use crate::tree::Tree;

const EXPRESSION_BYTES_MAX: usize = 10 << 10;
/// What one expression may cost at worst.
const COST_MAX: u64 = 1_000_000;
/// Lengths of what expressions may speak of.
const DRIVER_MAX: u64 = 63;
const VALUE_MAX: u64 = 64;
/// Attributes and capacities of a device.
const ENTRIES_MAX: u64 = 32;

/// `device`, with attributes and capacities by their domains and names.
static ENV: LazyLock<Env> = LazyLock::new(|| {
    let nested = |value: Decl| {
        let inner = limited(Type::map(Type::String, value), ENTRIES_MAX);
        limited(Type::map(Type::String, inner), ENTRIES_MAX)
    };
    let fields = [
        ("driver", limited(Type::String, DRIVER_MAX)),
        ("allowMultipleAllocations", limited(Type::Bool, 1)),
        ("attributes", nested(limited(Type::Dyn, VALUE_MAX))),
        (
            "capacity",
            nested(Type::Opaque("kubernetes.Quantity").into()),
        ),
    ];
    let fields = fields.map(|(name, decl)| (name.to_owned(), decl));
    Env::new().declare("device", Type::object("kubernetes.DRADevice", fields))
});

fn limited(ty: Type, max: u64) -> Decl {
    let mut decl = Decl::from(ty);
    decl.max = max;
    decl
}

/// Faults in the `cel` of a selector.
pub(super) fn validate(cel: &Spot<'_>, faults: &mut Faults) {
    let (path, expression) = (cel.path("expression"), cel.text("expression"));
    if expression.len() > EXPRESSION_BYTES_MAX {
        return faults.too_long(path, EXPRESSION_BYTES_MAX);
    }
    let program = match ENV.compile(expression) {
        Ok(program) => program,
        Err(errors) => {
            return faults.invalid(path, expression, format!("compilation failed: {errors}"));
        }
    };
    let found = program.result_type();
    if !matches!(found, Type::Bool | Type::Dyn) {
        let rule = format!("must evaluate to bool or the unknown type, not {found}");
        return faults.invalid(path, expression, rule);
    }
    if program.estimated_cost() > COST_MAX {
        faults.forbidden(path, "too complex, exceeds cost limit");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(expression: &str, expected: Option<&str>) {
        let cel = json!({ "expression": expression });
        let mut faults = Faults::new();
        let spot = Spot {
            value: &cel,
            path: "cel".into(),
        };
        validate(&spot, &mut faults);
        let found = faults.0.first().map(ToString::to_string);
        assert_eq!(found.as_deref(), expected, "{expression}");
    }

    #[test]
    fn selectors_speak_of_devices() {
        for good in [
            "device.driver == \"gpu.example.com\"",
            "device.attributes[\"gpu.example.com\"].model == \"a100\"",
            "device.attributes[\"gpu.example.com\"].shared",
            "device.capacity[\"gpu.example.com\"].memory.compareTo(quantity(\"2Gi\")) >= 0",
            "cel.bind(dra, device.attributes[\"dra.example.com\"], dra.a && dra.b)",
            "device.attributes[\"a\"].version.isGreaterThan(semver(\"1.0.0\"))",
            "device.allowMultipleAllocations == true",
        ] {
            check(good, None);
        }
        check(
            "",
            Some(
                "cel.expression: Invalid value: \"\": compilation failed: ERROR: <input>:1:0: \
                 Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', \
                 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
            ),
        );
        check(
            "device.driver",
            Some(
                "cel.expression: Invalid value: \"device.driver\": must evaluate to bool or the \
                 unknown type, not string",
            ),
        );
        check(
            "device.name == \"x\"",
            Some(
                "cel.expression: Invalid value: \"device.name == \\\"x\\\"\": compilation failed: \
                 ERROR: <input>:1:7: undefined field 'name'\n | device.name == \"x\"\n | ......^",
            ),
        );
        let all = "device.attributes.all(a, device.attributes.all(b, \
                   device.attributes.all(c, device.attributes.all(d, a == b && c == d))))";
        check(
            all,
            Some("cel.expression: Forbidden: too complex, exceeds cost limit"),
        );
        check(
            &" ".repeat(EXPRESSION_BYTES_MAX + 1),
            Some("cel.expression: Too long: may not be more than 10240 bytes"),
        );
    }
}
