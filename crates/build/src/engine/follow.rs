//! What a build tells step by step while it runs, for clients that show its stages side by side.

use std::sync::Arc;

/// A step of a build: its stage, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId {
    pub stage: usize,
    pub number: usize,
}

/// One piece of news. Steps that only change settings are told of when they fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    Begins {
        step: StepId,
        /// As clients show it: `[stage 2/3] RUN true`.
        name: String,
    },
    Says {
        step: StepId,
        text: String,
    },
    Ends {
        step: StepId,
        /// What is kept of an earlier time was enough.
        cached: bool,
    },
    Fails {
        step: StepId,
        /// First and last line in the Dockerfile; zero where it is of no line.
        lines: (usize, usize),
        error: String,
    },
}

type Tell = dyn Fn(News) + Send + Sync;

/// Who hears the news; nobody by default. It must not wait for anything.
#[derive(Clone, Default)]
pub struct Follower(Option<Arc<Tell>>);

impl Follower {
    pub fn new(tell: impl Fn(News) + Send + Sync + 'static) -> Follower {
        Follower(Some(Arc::new(tell)))
    }

    pub(super) fn follows(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn tell(&self, news: News) {
        if let Some(tell) = &self.0 {
            tell(news);
        }
    }

    pub(super) fn says(&self, step: StepId, text: String) {
        self.tell(News::Says { step, text });
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Follower")
            .field(&self.follows())
            .finish()
    }
}
