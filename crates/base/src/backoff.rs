//! Exponential back-off with jitter, as a value.

use std::time::Duration;

use rand::Rng;

/// Delays that double from `first` up to `limit`, each shortened by up to a
/// fifth at random so that many waiters do not wake together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `first` and never exceeds `limit`.
    pub fn new(first: Duration, limit: Duration) -> Backoff {
        Backoff {
            first,
            limit,
            failures: 0,
        }
    }

    /// The next delay; each call counts as one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1u32 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let whole = doubled.min(self.limit);
        whole.mul_f64(1.0 - rand::rng().random_range(0.0..0.2))
    }

    /// How often [`Backoff::next_delay`] was called since the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for expected in [1, 2, 4, 5, 5] {
            let delay = backoff.next_delay().as_secs_f64();
            let whole = f64::from(expected);
            assert!(
                delay <= whole && delay >= whole * 0.8,
                "{delay} for {whole}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }
}
