//! News of the builder as news of a job.

use std::sync::Arc;

use build::{Follower, News, StepId};
use parking_lot::Mutex;

use crate::jobs::Job;

type Failed = (Option<String>, (usize, usize));

/// Tells a job what the builder tells, and remembers what failed first.
pub(super) struct Reporter {
    job: Arc<Job>,
    failed: Mutex<Option<Failed>>,
}

impl Reporter {
    pub(super) fn new(job: Arc<Job>) -> Reporter {
        Reporter {
            job,
            failed: Mutex::new(None),
        }
    }

    pub(super) fn follower(self: &Arc<Reporter>) -> Follower {
        let reporter = Arc::clone(self);
        Follower::new(move |news| reporter.hear(news))
    }

    /// The step that failed, and its lines.
    pub(super) fn failed(&self) -> Option<Failed> {
        self.failed.lock().clone()
    }

    fn digest(&self, step: StepId) -> String {
        self.job
            .digest(&format!("step {} {}", step.stage, step.number))
    }

    fn hear(&self, news: News) {
        match news {
            News::Begins { step, name } => self.job.begin(&self.digest(step), &name),
            News::Says { step, text } => self.job.log(&self.digest(step), &text),
            News::Ends { step, cached } => self.job.end(&self.digest(step), cached, ""),
            News::Fails { step, lines, error } => {
                let digest = self.digest(step);
                let shown = self.job.knows(&digest);
                self.job.end(&digest, false, &error);
                let vertex = shown.then_some(digest);
                self.failed.lock().get_or_insert((vertex, lines));
            }
        }
    }
}
