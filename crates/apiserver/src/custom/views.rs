//! The versions of an object that field managers speak, for definitions with a conversion webhook.
//! Merging cannot wait: what it lacks is noted, asked of the webhook, and then it is tried again.

use meta::Status;
use parking_lot::Mutex;
use schema::{Type, Unconverted, Versions};
use serde_json::Value;

use super::convert::{Conversion, Converter};

/// So many conversions a merge may ask for. Each manager needs three at most, and there are few
/// versions among managers.
const CONVERSIONS_MAX: usize = 64;

/// Conversions of one request.
pub(crate) struct Views<'r> {
    converter: &'r Converter,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// What was converted, each with the result.
    done: Vec<(Unconverted, Value)>,
    lacking: Option<Unconverted>,
}

impl<'r> Views<'r> {
    /// `None` where versions differ in their name only.
    pub(crate) fn of(conversion: Option<&'r Conversion>) -> Option<Views<'r>> {
        match conversion? {
            Conversion::Rename => None,
            Conversion::Webhook(converter) => Some(Views {
                converter,
                asked: Mutex::default(),
            }),
        }
    }

    /// Notes what is lacking; the error is never shown, since the request is tried again.
    pub(crate) fn lack(&self, wanted: Unconverted) -> Status {
        let status = Status::internal(&wanted);
        self.asked.lock().lacking = Some(wanted);
        status
    }

    /// Whether something was lacking; if so it is there now.
    pub(crate) async fn fetched(&self) -> Result<bool, Status> {
        let Some(wanted) = self.asked.lock().lacking.take() else {
            return Ok(false);
        };
        if self.asked.lock().done.len() >= CONVERSIONS_MAX {
            let text = "too many versions among the managers of fields";
            return Err(Status::internal(text));
        }
        let objects = vec![wanted.object.clone()];
        let mut converted = self.converter.ask(objects, &wanted.api_version).await?;
        let result = converted.pop().unwrap_or_default();
        self.asked.lock().done.push((wanted, result));
        Ok(true)
    }
}

impl Versions for Views<'_> {
    fn ty(&self, api_version: &str) -> Option<&Type> {
        let mut types = self.converter.types().iter();
        let found = types.find(|(own, _)| own == api_version);
        found.map(|(_, ty)| ty)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, Unconverted> {
        let asked = self.asked.lock();
        let mut done = asked.done.iter();
        let found =
            done.find(|(what, _)| what.api_version == api_version && what.object == *object);
        match found {
            Some((_, result)) => Ok(result.clone()),
            None => Err(Unconverted {
                object: object.clone(),
                api_version: api_version.to_owned(),
            }),
        }
    }
}
