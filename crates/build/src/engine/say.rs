//! What a build tells while it runs. Nobody waits for a slow listener: what it does not take in time
//! is left out, and that is said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::follow::{Follower, StepId};

/// Bytes that may wait for a listener.
const BACKLOG: usize = 4 << 20;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Text with its ends of lines.
    Text(String),
    /// Progress of something with an id.
    Progress { id: String, status: String },
}

impl Said {
    fn length(&self) -> usize {
        match self {
            Said::Text(text) => text.len(),
            Said::Progress { id, status } => id.len() + status.len(),
        }
    }
}

/// Where messages go; cheap to clone.
#[derive(Clone, Debug)]
pub struct Say {
    sender: mpsc::UnboundedSender<Said>,
    waiting: Arc<AtomicUsize>,
    clipped: Arc<AtomicBool>,
    /// Who hears the texts of one step instead.
    tap: Option<(Follower, StepId)>,
}

/// Where they come out.
#[derive(Debug)]
pub struct Messages {
    receiver: mpsc::UnboundedReceiver<Said>,
    waiting: Arc<AtomicUsize>,
}

impl Messages {
    /// The next one; `None` when everybody has gone silent.
    pub async fn recv(&mut self) -> Option<Said> {
        let said = self.receiver.recv().await?;
        self.waiting.fetch_sub(said.length(), Ordering::Relaxed);
        Some(said)
    }
}

impl Say {
    /// A fresh pair.
    pub fn channel() -> (Say, Messages) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let messages = Messages {
            receiver,
            waiting: Arc::clone(&waiting),
        };
        let clipped = Arc::default();
        let say = Say {
            sender,
            waiting,
            clipped,
            tap: None,
        };
        (say, messages)
    }

    /// Says some text.
    pub fn text(&self, text: impl Into<String>) {
        self.pass(Said::Text(text.into()));
    }

    /// Says a line.
    pub fn line(&self, text: impl std::fmt::Display) {
        self.text(format!("{text}\n"));
    }

    /// Says a line of the classic builder's, for which whoever follows steps has no use.
    pub fn remark(&self, text: impl std::fmt::Display) {
        if self.tap.is_none() {
            self.line(text);
        }
    }

    /// The same place, but texts go to who follows this step.
    pub(super) fn tapped(&self, follower: &Follower, step: StepId) -> Say {
        let mut say = self.clone();
        say.tap = follower.follows().then(|| (follower.clone(), step));
        say
    }

    /// Without anybody who follows a step.
    pub(super) fn plain(&self) -> Say {
        let mut say = self.clone();
        say.tap = None;
        say
    }

    /// Passes a message on.
    pub fn pass(&self, said: Said) {
        if let Some((follower, step)) = &self.tap {
            let text = match said {
                Said::Text(text) => text,
                Said::Progress { id, status } => format!("{id}: {status}\n"),
            };
            return follower.says(*step, text);
        }
        let length = said.length();
        if self.waiting.fetch_add(length, Ordering::Relaxed) + length > BACKLOG {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            self.clipped.store(true, Ordering::Relaxed);
            return;
        }
        if self.clipped.swap(false, Ordering::Relaxed) {
            let notice = Said::Text("[output clipped: nobody took it in time]\n".to_owned());
            self.waiting.fetch_add(notice.length(), Ordering::Relaxed);
            let _ = self.sender.send(notice);
        }
        // Without a listener there is nobody to tell.
        let _ = self.sender.send(said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_takes_is_clipped() {
        let (say, mut messages) = Say::channel();
        let large = "x".repeat(BACKLOG - 1);
        say.text(large.clone());
        say.text("lost");
        assert_eq!(messages.recv().await, Some(Said::Text(large)));
        say.line("more");
        let notice = messages.recv().await;
        assert!(matches!(notice, Some(Said::Text(text)) if text.contains("clipped")));
        assert_eq!(messages.recv().await, Some(Said::Text("more\n".to_owned())));
        drop(say);
        assert_eq!(messages.recv().await, None);
    }
}
