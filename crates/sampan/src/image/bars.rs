//! Progress bars of a pull, one per layer; plain lines when nobody looks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use oci::{Digest, Progress, Report};

/// What a pull shall tell, on the terminal.
pub(crate) fn report() -> Report {
    let bars: Mutex<(MultiProgress, HashMap<Digest, ProgressBar>)> =
        Mutex::new((MultiProgress::new(), HashMap::new()));
    Arc::new(move |progress| {
        let mut guard = bars.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, bars) = &mut *guard;
        match progress {
            Progress::Resolved(layers) => {
                for (digest, size) in layers {
                    let bar = all.add(ProgressBar::new(size).with_style(style()));
                    bar.set_prefix(digest.hex().chars().take(12).collect::<String>());
                    bars.insert(digest, bar);
                }
            }
            Progress::Present(digest) => end(bars.get(&digest), "exists"),
            Progress::Arrived(digest, bytes) => {
                if let Some(bar) = bars.get(&digest) {
                    bar.inc(bytes);
                }
            }
            Progress::Unpacked(digest) => end(bars.get(&digest), "done"),
        }
    })
}

fn end(bar: Option<&ProgressBar>, word: &'static str) {
    if let Some(bar) = bar {
        bar.set_message(word);
        bar.finish();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:30}] {bytes:>10}/{total_bytes:<10} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
