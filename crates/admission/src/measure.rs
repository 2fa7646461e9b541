//! How long each plugin takes, under upstream's name.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use base::metrics::{Histogram, Histograms};

use crate::plugin::Operation;

static TIME: Histograms = Histograms::new(
    "apiserver_admission_controller_admission_duration_seconds",
    "[STABLE] Admission controller latency histogram in seconds, identified by name and broken \
     out for each operation and API resource and type (validate or admit).",
    &["name", "operation", "rejected", "type"],
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5],
);

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Admit,
    Validate,
}

/// The series of one plugin in which nothing is refused, found once: they grow with every write.
#[derive(Default)]
pub(crate) struct Times {
    known: [[OnceLock<Arc<Histogram>>; 4]; 2],
}

/// Reads the time once between two plugins.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }
}

impl Times {
    /// The plugin of this name was asked since the clock was read last.
    pub(crate) fn tell(
        &self,
        (name, step, operation): (&'static str, Step, Operation),
        refused: bool,
        clock: &mut Clock,
    ) {
        let now = Instant::now();
        let took = now.duration_since(clock.0);
        clock.0 = now;
        let word = match operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        };
        let kind = match step {
            Step::Admit => "admit",
            Step::Validate => "validate",
        };
        if refused {
            return TIME.observe_time(&[name, word, "true", kind], took);
        }
        let series = &self.known[step as usize][operation as usize];
        let series = series.get_or_init(|| TIME.of(&[name, word, "false", kind]));
        series.observe(took.as_secs_f64());
    }
}
