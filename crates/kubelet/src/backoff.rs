//! How long a container that keeps ending, or an image that does not come,
//! waits before the next attempt.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First wait.
const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// A quiet time of this length forgets earlier failures.
const FORGET: SignedDuration = SignedDuration::from_mins(10);

/// The waits of one container or image. `None` inside means that nothing failed lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrashBackoff {
    state: Option<(SignedDuration, Timestamp)>,
}

impl CrashBackoff {
    /// The wait that applies to a failure at `failed_at`, and when it is over; `None` when the
    /// next attempt may be made at once.
    pub(crate) fn waiting(
        &self,
        failed_at: Timestamp,
        now: Timestamp,
    ) -> Option<(SignedDuration, Timestamp)> {
        let (delay, updated) = self.state?;
        let until = failed_at + delay;
        let forgotten = failed_at.duration_since(updated) > FORGET;
        (!forgotten && now < until).then_some((delay, until))
    }

    /// Notes that another attempt is made after a failure at `failed_at`; no wait is longer than
    /// `limit`.
    pub(crate) fn attempt(&mut self, failed_at: Timestamp, now: Timestamp, limit: Duration) {
        let limit = SignedDuration::try_from(limit).unwrap_or(SignedDuration::MAX);
        let next = match self.state {
            Some((delay, updated)) if failed_at.duration_since(updated) <= FORGET => {
                (delay * 2).min(limit)
            }
            _ => FIRST.min(limit),
        };
        self.state = Some((next, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    #[test]
    fn waits_double_from_ten_seconds_to_five_minutes_and_are_forgotten() {
        let mut backoff = CrashBackoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            backoff.waiting(now, now),
            None,
            "the first restart is at once"
        );
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            backoff.attempt(now, now, LIMIT);
            let (delay, until) = backoff.waiting(now, now).unwrap();
            assert_eq!(delay.as_secs(), seconds);
            assert_eq!(backoff.waiting(now, until), None);
            now = until;
        }
        let later = now + SignedDuration::from_mins(11);
        assert_eq!(backoff.waiting(later, later), None);
        backoff.attempt(later, later, LIMIT);
        assert_eq!(backoff.waiting(later, later).unwrap().0, FIRST);
        let mut short = CrashBackoff::default();
        for _ in 0..3 {
            short.attempt(now, now, Duration::from_secs(4));
            assert_eq!(short.waiting(now, now).unwrap().0.as_secs(), 4);
        }
    }
}
