//! systemd's manager: transient units and their jobs.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Error, Target};
use crate::properties::Properties;
use crate::value::Value;

/// systemd's own socket, for root, whether or not there is a bus.
const PRIVATE: &str = "/run/systemd/private";
/// How long a job may take, as in runc.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const MANAGER: Target<'static> = Target {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: INTERFACE,
};
const FOLLOW_JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',\
    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A connection to systemd.
#[derive(Debug)]
pub struct Manager(Connection);

impl Manager {
    /// Connects to systemd itself, or to the system's bus where it does not let us in.
    pub fn connect() -> Result<Manager, Error> {
        if let Ok(connection) = Connection::peer(Path::new(PRIVATE)) {
            return Ok(Manager(connection));
        }
        let mut connection = Connection::bus(Path::new(crate::SYSTEM_BUS))?;
        connection.ask_bus("AddMatch", vec![Value::text(FOLLOW_JOBS)])?;
        connection.call(MANAGER, "Subscribe", Vec::new())?;
        Ok(Manager(connection))
    }

    /// A property of the manager.
    pub fn property(&mut self, name: &str) -> Result<Value, Error> {
        let target = Target {
            interface: "org.freedesktop.DBus.Properties",
            ..MANAGER
        };
        let words = vec![Value::text(INTERFACE), Value::text(name)];
        let mut answer = self.0.call(target, "Get", words)?;
        Ok(answer.body.pop().unwrap_or_else(|| Value::text("")))
    }

    /// Makes a unit, and waits until it stands.
    pub(crate) fn start(&mut self, unit: &str, properties: Properties) -> Result<(), Error> {
        let words = vec![
            Value::text(unit),
            Value::text("replace"),
            listed(properties),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
        ];
        self.job(unit, "StartTransientUnit", words)
    }

    /// Changes a unit until it stops.
    pub(crate) fn set(&mut self, unit: &str, properties: Properties) -> Result<(), Error> {
        let words = vec![Value::text(unit), Value::Bool(true), listed(properties)];
        self.0.call(MANAGER, "SetUnitProperties", words).map(drop)
    }

    /// Stops a unit, and waits until it is gone; what is not there is no error.
    pub(crate) fn stop(&mut self, unit: &str) -> Result<(), Error> {
        let words = vec![Value::text(unit), Value::text("replace")];
        match self.job(unit, "StopUnit", words) {
            Err(error) if error.is_remote("NoSuchUnit") => return Ok(()),
            stopped => stopped?,
        }
        self.forget(unit)
    }

    /// A unit that failed is kept for those who look; nobody does.
    pub(crate) fn forget(&mut self, unit: &str) -> Result<(), Error> {
        let forgotten = self
            .0
            .call(MANAGER, "ResetFailedUnit", vec![Value::text(unit)]);
        match forgotten {
            Err(error) if error.is_remote("NoSuchUnit") => Ok(()),
            other => other.map(drop),
        }
    }

    fn job(&mut self, unit: &str, member: &str, words: Vec<Value>) -> Result<(), Error> {
        let answer = self.0.call(MANAGER, member, words)?;
        let job = answer.body.into_iter().next();
        let deadline = Instant::now() + JOB_TIMEOUT;
        while let Some(message) = self.0.next_message(Some(deadline))? {
            // Number, object, unit and result of the job.
            if !message.is_signal(INTERFACE, "JobRemoved") || message.body.get(1) != job.as_ref() {
                continue;
            }
            let result = message.body.get(3).and_then(Value::as_text);
            return match result.unwrap_or_default() {
                "done" | "skipped" => Ok(()),
                result => Err(Error::Job {
                    unit: unit.to_owned(),
                    result: result.to_owned(),
                }),
            };
        }
        Err(Error::Timeout(format!("{member} {unit}"), JOB_TIMEOUT))
    }
}

fn listed(properties: Properties) -> Value {
    let one = |(name, value): (&str, Value)| {
        Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
    };
    let all = properties.into_iter().map(one).collect();
    Value::Array("(sv)".to_owned(), all)
}
