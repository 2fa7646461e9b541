//! How long a container that keeps ending, or an image that does not come,
//! waits before the next attempt.

use std::time::Duration;

use tokio::time::Instant;

/// A quiet time of this length forgets earlier failures.
const FORGET: Duration = Duration::from_secs(600);

/// The waits of one container or image. `None` inside means that nothing failed lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrashBackoff {
    state: Option<(Duration, Instant)>,
}

impl CrashBackoff {
    /// The wait that applies to a failure at `failed_at`, and when it is over; `None` when the
    /// next attempt may be made at once.
    pub(crate) fn waiting(&self, failed_at: Instant, now: Instant) -> Option<(Duration, Instant)> {
        let (delay, updated) = self.state?;
        let until = failed_at + delay;
        let forgotten = failed_at.duration_since(updated) > FORGET;
        (!forgotten && now < until).then_some((delay, until))
    }

    /// Notes that another attempt is made after a failure at `failed_at`; the first and the longest
    /// wait are given.
    pub(crate) fn attempt(
        &mut self,
        failed_at: Instant,
        now: Instant,
        (first, limit): (Duration, Duration),
    ) {
        let next = match self.state {
            Some((delay, updated)) if failed_at.duration_since(updated) <= FORGET => {
                (delay * 2).min(limit)
            }
            _ => first.min(limit),
        };
        self.state = Some((next, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(10);
    const LIMITS: (Duration, Duration) = (FIRST, Duration::from_secs(300));

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes_and_are_forgotten() {
        let mut backoff = CrashBackoff::default();
        let mut now = Instant::now();
        assert_eq!(
            backoff.waiting(now, now),
            None,
            "the first restart is at once"
        );
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            backoff.attempt(now, now, LIMITS);
            let (delay, until) = backoff.waiting(now, now).unwrap();
            assert_eq!(delay.as_secs(), seconds);
            assert_eq!(backoff.waiting(now, until), None);
            now = until;
        }
        let later = now + Duration::from_secs(660);
        assert_eq!(backoff.waiting(later, later), None);
        backoff.attempt(later, later, LIMITS);
        assert_eq!(backoff.waiting(later, later).unwrap().0, FIRST);
        let mut short = CrashBackoff::default();
        for _ in 0..3 {
            short.attempt(now, now, (FIRST, Duration::from_secs(4)));
            assert_eq!(short.waiting(now, now).unwrap().0.as_secs(), 4);
        }
    }
}
