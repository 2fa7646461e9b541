//! From the claims of a token to a user, and whether both are as they should be.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Bindings, Budget, Decl, Env, Program, Type, Value as Cel};
use meta::Faults;
use serde_json::{Map, Value, json};

use super::config::{JwtAuthenticator, PrefixedClaim};
use crate::identity::Identity;

const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The compiled expressions of one issuer, beside what it says without them.
#[derive(Debug)]
pub(super) struct Mapper {
    config: JwtAuthenticator,
    username: Option<Program>,
    groups: Option<Program>,
    uid: Option<Program>,
    /// By key.
    extra: Vec<(String, Program)>,
    /// With the message of a rule that does not hold.
    claim_rules: Vec<(String, Program)>,
    user_rules: Vec<(String, Program)>,
    user: Decl,
}

fn user_type() -> Decl {
    let text = || Decl::from(Type::String);
    let texts = || Decl::from(Type::list(Type::String));
    Decl::from(Type::object(
        "kubernetes.UserInfo",
        [
            ("username".to_owned(), text()),
            ("uid".to_owned(), text()),
            ("groups".to_owned(), texts()),
            ("extra".to_owned(), Type::map(Type::String, texts()).into()),
        ],
    ))
}

/// Compiles expressions, and collects what is wrong with them.
struct Compiler<'a> {
    claims: Env,
    user: Env,
    faults: &'a mut Faults,
}

impl Compiler<'_> {
    fn compile(&mut self, of_user: bool, text: &str, path: String, rule: bool) -> Option<Program> {
        if text.is_empty() {
            return None;
        }
        let env = if of_user { &self.user } else { &self.claims };
        match env.compile(text) {
            Err(errors) => {
                let why = format!("compilation failed: {errors}");
                self.faults.invalid(path, text, why);
                None
            }
            Ok(program) if rule && *program.result_type() != Type::Bool => {
                self.faults.invalid(path, text, "must evaluate to bool");
                None
            }
            Ok(program) => Some(program),
        }
    }
}

impl Mapper {
    /// Compiles what `config` holds; what does not compile is left out and told.
    pub(super) fn compile(config: &JwtAuthenticator, path: &str, faults: &mut Faults) -> Mapper {
        let user = user_type();
        let mut with = Compiler {
            claims: Env::new().declare("claims", Type::map(Type::String, Type::Dyn)),
            user: Env::new().declare("user", user.clone()),
            faults,
        };
        let mappings = &config.claim_mappings;
        let at = |part: &str| format!("{path}.claimMappings.{part}");
        let username = &mappings.username.expression;
        let username = with.compile(false, username, at("username.expression"), false);
        let groups = &mappings.groups.expression;
        let groups = with.compile(false, groups, at("groups.expression"), false);
        let uid = with.compile(false, &mappings.uid.expression, at("uid.expression"), false);
        let mut extra = Vec::new();
        for (index, mapping) in mappings.extra.iter().enumerate() {
            let path = at(&format!("extra[{index}].valueExpression"));
            let program = with.compile(false, &mapping.value_expression, path, false);
            extra.extend(program.map(|program| (mapping.key.clone(), program)));
        }
        let message = |message: &str, expression: &str| match message {
            "" => format!("validation expression '{expression}' failed"),
            message => format!("validation expression '{expression}' failed: {message}"),
        };
        let mut claim_rules = Vec::new();
        for (index, rule) in config.claim_validation_rules.iter().enumerate() {
            let path = format!("{path}.claimValidationRules[{index}].expression");
            let program = with.compile(false, &rule.expression, path, true);
            let message = message(&rule.message, &rule.expression);
            claim_rules.extend(program.map(|program| (message, program)));
        }
        let mut user_rules = Vec::new();
        for (index, rule) in config.user_validation_rules.iter().enumerate() {
            let path = format!("{path}.userValidationRules[{index}].expression");
            let program = with.compile(true, &rule.expression, path, true);
            let message = message(&rule.message, &rule.expression);
            user_rules.extend(program.map(|program| (message, program)));
        }
        Mapper {
            config: config.clone(),
            username,
            groups,
            uid,
            extra,
            claim_rules,
            user_rules,
            user,
        }
    }

    /// The user that claims name.
    pub(super) fn identity(&self, claims: &Value) -> Result<Identity, String> {
        let none = Map::new();
        let fields = claims.as_object().unwrap_or(&none);
        let mut budget = Budget::new();
        let mut on = |program: &Program| {
            let bound = Bindings::new().bind("claims", Cel::untyped(claims));
            program
                .evaluate(&bound, &mut budget)
                .map(own)
                .map_err(|error| error.to_string())
        };
        let username = match &self.username {
            Some(program) => named("username", on(program))?,
            None => self.username(fields)?,
        };
        let groups = match &self.groups {
            Some(program) => list("group", on(program))?,
            None => groups(&self.config.claim_mappings.groups, fields)?,
        };
        let uid_claim = self.config.claim_mappings.uid.claim.as_str();
        let uid = match (&self.uid, uid_claim) {
            (Some(program), _) => one("uid", on(program))?,
            (None, "") => String::new(),
            (None, claim) => text_claim(fields, claim)
                .map_err(|why| format!("oidc: parse uid claim {claim:?}: {why}"))?,
        };
        let mut extra = BTreeMap::new();
        if let Some(id) = fields
            .get("jti")
            .and_then(Value::as_str)
            .filter(|id| !id.is_empty())
        {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, program) in &self.extra {
            let values = list("extra", on(program))?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        self.required(fields)?;
        let mut identity = Identity {
            name: username,
            uid,
            groups,
            extra,
        };
        for (message, program) in &self.claim_rules {
            holds("claim", message, on(program))?;
        }
        self.check_user(&identity, &mut budget)?;
        identity.mark_authenticated();
        Ok(identity)
    }

    fn username(&self, claims: &Map<String, Value>) -> Result<String, String> {
        let PrefixedClaim { claim, prefix, .. } = &self.config.claim_mappings.username;
        let name = text_claim(claims, claim)
            .map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
        if claim == "email" {
            match claims.get("email_verified") {
                None | Some(Value::Bool(true)) => {}
                Some(Value::Bool(false)) => return Err("oidc: email not verified".into()),
                Some(_) => return Err("oidc: parse 'email_verified' claim: no bool".into()),
            }
        }
        Ok(format!("{}{name}", prefix.as_deref().unwrap_or_default()))
    }

    fn required(&self, claims: &Map<String, Value>) -> Result<(), String> {
        let rules = self.config.claim_validation_rules.iter();
        for rule in rules.filter(|rule| !rule.claim.is_empty()) {
            let (claim, wanted) = (&rule.claim, &rule.required_value);
            if !claims.contains_key(claim) {
                return Err(format!(
                    "oidc: required claim {claim} not present in ID token"
                ));
            }
            let value = text_claim(claims, claim)
                .map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if value != *wanted {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {value}, want = {wanted}"
                ));
            }
        }
        Ok(())
    }

    fn check_user(&self, identity: &Identity, budget: &mut Budget) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let info = json!({"username": identity.name, "uid": identity.uid,
            "groups": identity.groups, "extra": identity.extra});
        for (message, program) in &self.user_rules {
            let bound = Bindings::new().bind("user", Cel::typed(&info, &self.user));
            let result = program.evaluate(&bound, budget).map(own);
            holds(
                "user info",
                message,
                result.map_err(|error| error.to_string()),
            )?;
        }
        Ok(())
    }
}

/// The value of an expression, free of what it was made from.
fn own(value: Cel<'_>) -> Option<Value> {
    value.to_json()
}

type Evaluated = Result<Option<Value>, String>;

fn failed(what: &str, why: &str) -> String {
    format!("oidc: error evaluating {what} claim expression: {why}")
}

fn one(what: &str, evaluated: Evaluated) -> Result<String, String> {
    match evaluated {
        Ok(Some(Value::String(text))) => Ok(text),
        Ok(_) => {
            let why = format!("{what} claim expression must return a string");
            Err(failed(what, &why))
        }
        Err(why) => Err(failed(what, &why)),
    }
}

fn named(what: &str, evaluated: Evaluated) -> Result<String, String> {
    match one(what, evaluated)? {
        empty if empty.is_empty() => {
            Err("oidc: empty username via CEL expression is not allowed".into())
        }
        name => Ok(name),
    }
}

fn list(what: &str, evaluated: Evaluated) -> Result<Vec<String>, String> {
    let bad = || failed(what, "expression must return a string or a list of strings");
    match evaluated {
        Ok(Some(Value::String(text))) if text.is_empty() => Ok(Vec::new()),
        Ok(Some(Value::String(text))) => Ok(vec![text]),
        Ok(Some(Value::Null)) => Ok(Vec::new()),
        Ok(Some(Value::Array(items))) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            let texts: Option<Vec<String>> = texts.collect();
            let mut texts = texts.ok_or_else(bad)?;
            texts.retain(|text| !text.is_empty());
            Ok(texts)
        }
        Ok(_) => Err(bad()),
        Err(why) => Err(failed(what, &why)),
    }
}

fn holds(what: &str, message: &str, evaluated: Evaluated) -> Result<(), String> {
    match evaluated {
        Ok(Some(Value::Bool(true))) => Ok(()),
        Ok(_) => Err(format!(
            "oidc: error evaluating {what} validation rule: {message}"
        )),
        Err(why) => Err(format!(
            "oidc: error evaluating {what} validation rule: {why}"
        )),
    }
}

fn text_claim(claims: &Map<String, Value>, claim: &str) -> Result<String, String> {
    match claims.get(claim) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("claim is no string".into()),
        None => Err("claim not present".into()),
    }
}

/// A list of texts, or one text.
fn groups(mapping: &PrefixedClaim, claims: &Map<String, Value>) -> Result<Vec<String>, String> {
    let claim = &mapping.claim;
    let Some(value) = claims.get(claim).filter(|_| !claim.is_empty()) else {
        return Ok(Vec::new());
    };
    let bad = || format!("oidc: parse groups claim {claim:?}: no list of strings");
    let prefix: Arc<str> = mapping.prefix.as_deref().unwrap_or_default().into();
    let with = |group: &str| format!("{prefix}{group}");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(one) => Ok(vec![with(one)]),
        Value::Array(all) => {
            let all = all.iter().map(|one| one.as_str().map(with));
            all.collect::<Option<Vec<String>>>().ok_or_else(bad)
        }
        _ => Err(bad()),
    }
}
