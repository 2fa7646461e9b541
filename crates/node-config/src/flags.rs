//! Upstream's flags as patches of the configuration.

use serde_json::{Map, Value, json};

use crate::table::FIELDS;
use crate::{at, put};

/// Whether there is such a flag.
pub fn is_flag(name: &str) -> bool {
    FIELDS
        .iter()
        .any(|row| !row.flag.is_empty() && row.flag == name)
}

/// Sets what a flag says; of a list or a map, nothing of the file stays, except for gates.
pub(crate) fn apply(tree: &mut Value, name: &str, text: &str) -> Result<(), String> {
    let row = FIELDS
        .iter()
        .find(|row| !row.flag.is_empty() && row.flag == name);
    let row = row.ok_or_else(|| format!("unknown flag: --{name}"))?;
    let invalid = |why: String| format!("invalid argument {text:?} for \"--{name}\" flag: {why}");
    let mut value = match (row.path, row.go.trim_start_matches('*')) {
        ("evictionHard" | "evictionSoft", _) => pairs(text, '<').map_err(invalid)?,
        ("reservedMemory", _) => reserved_memory(text).map_err(invalid)?,
        ("registerWithTaints", _) => taints(text).map_err(invalid)?,
        ("shutdownGracePeriodByPodPriority", _) => periods(text).map_err(invalid)?,
        ("featureGates", _) => gates(text).map_err(invalid)?,
        (_, "bool") => match text {
            "" | "true" | "1" | "t" | "T" | "TRUE" | "True" => Value::Bool(true),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Value::Bool(false),
            _ => {
                let why = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
                return Err(invalid(why));
            }
        },
        (_, "int32" | "int64") => {
            let number: Result<i64, _> = text.parse();
            let why = || format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
            number.map_err(|_| invalid(why()))?.into()
        }
        (_, "[]string") => words(text).map(Value::from).collect(),
        (_, "map[string][]string") => lists(text).map_err(invalid)?,
        (_, "map[string]string") => pairs(text, '=').map_err(invalid)?,
        _ => Value::from(text),
    };
    if let (true, Value::Object(own)) = (row.path == "featureGates", &mut value) {
        let before = at(tree, row.path).and_then(Value::as_object);
        for (name, on) in before.into_iter().flatten() {
            own.entry(name.clone()).or_insert_with(|| on.clone());
        }
    }
    put(tree, row.path, value);
    Ok(())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn pairs(text: &str, sign: char) -> Result<Value, String> {
    let pair = |word: &str| {
        let (name, value) = word
            .split_once(sign)
            .ok_or_else(|| format!("malformed pair, expect string{sign}string"))?;
        Ok((name.trim().to_owned(), Value::from(value.trim())))
    };
    let map: Result<Map<String, Value>, String> = words(text).map(pair).collect();
    Ok(Value::Object(map?))
}

/// `NAME:VALUE,NAME:VALUE`; a name may come several times.
fn lists(text: &str) -> Result<Value, String> {
    let mut map: Map<String, Value> = Map::new();
    for word in words(text) {
        let (name, value) = word
            .split_once(':')
            .ok_or("malformed pair, expect string:string")?;
        let list = map.entry(name.trim()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(value.trim().into());
        }
    }
    Ok(Value::Object(map))
}

fn gates(text: &str) -> Result<Value, String> {
    let gate = |word: &str| {
        let (name, on) = word
            .split_once('=')
            .ok_or_else(|| format!("missing bool value for {word}"))?;
        let why = || {
            format!(
                "invalid value of {name}={on}, err: strconv.ParseBool: parsing {on:?}: invalid syntax"
            )
        };
        let on: bool = on.trim().parse().map_err(|_| why())?;
        Ok((name.trim().to_owned(), Value::Bool(on)))
    };
    let map: Result<Map<String, Value>, String> = words(text).map(gate).collect();
    Ok(Value::Object(map?))
}

/// `0:memory=1Gi,hugepages-1Gi=2Gi;1:memory=2Gi`.
fn reserved_memory(text: &str) -> Result<Value, String> {
    let nodes = text.split(';').filter(|node| !node.trim().is_empty());
    let node = |text: &str| {
        let form = || format!("the format must be numa-node:memory-type=quantity, not {text:?}");
        let (node, limits) = text.split_once(':').ok_or_else(form)?;
        let node: i32 = node.trim().parse().map_err(|_| form())?;
        Ok(json!({"numaNode": node, "limits": pairs(limits, '=')?}))
    };
    nodes.map(node).collect()
}

fn taints(text: &str) -> Result<Value, String> {
    let taint = |word: &str| {
        let invalid = || format!("invalid taint spec: {word}");
        let (key, effect) = word.split_once(':').ok_or_else(invalid)?;
        let (key, value) = key.split_once('=').unwrap_or((key, ""));
        Ok(json!({"key": key, "value": value, "effect": effect}))
    };
    words(text).map(taint).collect()
}

/// `0=60s,1000=10s`.
fn periods(text: &str) -> Result<Value, String> {
    let period = |word: &str| {
        let (priority, time) = word
            .split_once('=')
            .ok_or_else(|| "malformed pair, expect string=string".to_owned())?;
        let number = |_| format!("{priority:?} is no priority");
        let priority: i32 = priority.trim().parse().map_err(number)?;
        let time = crate::GoDuration::parse(time)?;
        let seconds = time.nanos / 1_000_000_000;
        Ok(json!({"priority": priority, "shutdownGracePeriodSeconds": seconds}))
    };
    words(text).map(period).collect()
}
