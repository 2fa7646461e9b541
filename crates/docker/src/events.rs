//! What happens, told to whoever listens; the last of it also to those who come late.

use std::collections::{BTreeMap, VecDeque};

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::answer::{self, Answer, Fault};
use crate::call::{Call, Filters};
use crate::record::{Record, now, parse_moment};

/// Events that are remembered, and that one listener may be behind.
const KEPT: usize = 256;

#[derive(Clone, Debug)]
pub(crate) struct Event {
    kind: &'static str,
    action: String,
    id: String,
    attributes: BTreeMap<String, String>,
    at: i64,
}

pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    past: Mutex<VecDeque<Event>>,
}

impl Default for Events {
    fn default() -> Events {
        Events {
            sender: broadcast::Sender::new(KEPT),
            past: Mutex::default(),
        }
    }
}

impl Events {
    pub(crate) fn tell(
        &self,
        kind: &'static str,
        action: impl Into<String>,
        id: &str,
        attributes: BTreeMap<String, String>,
    ) {
        let event = Event {
            kind,
            action: action.into(),
            id: id.to_owned(),
            attributes,
            at: now(),
        };
        let mut past = self.past.lock();
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody may be listening.
        let _ = self.sender.send(event);
    }

    /// An event of a container, with what docker tells along.
    pub(crate) fn container(
        &self,
        record: &Record,
        action: impl Into<String>,
        more: &[(&str, String)],
    ) {
        let mut attributes = record.config.labels.clone();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        for (name, value) in more {
            attributes.insert((*name).to_owned(), value.clone());
        }
        self.tell("container", action, &record.id, attributes);
    }

    fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.past.lock();
        (past.iter().cloned().collect(), self.sender.subscribe())
    }
}

impl Event {
    fn to_json(&self) -> Value {
        let mut event = json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": self.attributes},
            "scope": "local",
            "time": self.at / 1_000_000_000,
            "timeNano": self.at,
        });
        if self.kind == "container" {
            event["status"] = json!(self.action);
            event["id"] = json!(self.id);
            event["from"] = json!(self.attributes.get("image"));
        }
        event
    }

    fn fits(&self, filters: &Filters) -> bool {
        let of_kind = |kind: &'static str, wish: &str| {
            let named = self.attributes.get("name").is_some_and(|name| name == wish);
            let long = self.id.starts_with(wish) || named;
            self.kind == kind && long || self.attributes.get(kind).is_some_and(|id| id == wish)
        };
        let image = |wish: &str| {
            let known = self.attributes.get("image").or(self.attributes.get("name"));
            self.id == wish
                || known.is_some_and(|name| name == wish || name.split(':').next() == Some(wish))
        };
        let action = self.action.split(':').next().unwrap_or_default();
        filters.fits("type", |wish| wish == self.kind)
            && filters.fits("event", |wish| wish == action || wish == self.action)
            && filters.fits("container", |wish| of_kind("container", wish))
            && filters.fits("network", |wish| of_kind("network", wish))
            && filters.fits("volume", |wish| of_kind("volume", wish))
            && filters.fits("image", image)
            && filters.fits("scope", |wish| wish == "local")
            && filters.labels(&self.attributes)
    }
}

/// `GET /events`.
pub(crate) async fn events(call: Call) -> Answer {
    let filters = call.query.filters()?;
    let moment = |name: &str| match call.query.text(name) {
        "" => Ok(None),
        text => parse_moment(text)
            .map(Some)
            .ok_or_else(|| Fault::bad(format!("invalid {name}: {text:?}"))),
    };
    let (since, until) = (moment("since")?, moment("until")?);
    let (past, mut live) = call.daemon.events.listen();
    let stop = call.daemon.stop.clone();
    let (pieces, mut response) = answer::stream("application/json");
    *response.status_mut() = StatusCode::OK;
    tokio::spawn(async move {
        let early = |event: &Event| since.is_none_or(|since| event.at < since);
        let late = |event: &Event| until.is_some_and(|until| event.at > until);
        let wanted = since.is_some() || until.is_some();
        let told = |event: &&Event| wanted && !early(event) && !late(event);
        for event in past.iter().filter(told) {
            if event.fits(&filters) && !answer::line(&pieces, &event.to_json()).await {
                return;
            }
        }
        let left = until.map(|until| u64::try_from(until - now()).unwrap_or(0));
        let end = async {
            match left {
                Some(nanos) => tokio::time::sleep(std::time::Duration::from_nanos(nanos)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                event = live.recv() => event,
                () = &mut end => return,
                () = stop.raised() => return,
                () = pieces.closed() => return,
            };
            match event {
                Ok(event) if event.fits(&filters) => {
                    if !answer::line(&pieces, &event.to_json()).await {
                        return;
                    }
                }
                // A listener that is too slow misses what it missed.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    Ok(response)
}
