//! Two clocks: the machine's own, which others read and anybody may set, and a
//! steady one, by which waits are counted. Here one is told from the other.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// How long a wait for a time of day lasts at most: the clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(60);

/// Says what time of day it is.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Default for Clock {
    /// The machine's.
    fn default() -> Clock {
        Clock::new(Timestamp::now)
    }
}

impl Clock {
    /// A clock that somebody else keeps.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Clock {
        Clock { now: Arc::new(now) }
    }

    /// The time of day, for what others read.
    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// When something that has happened did, as far as the clock can tell: what it has yet to
    /// come to is taken for now.
    pub(crate) fn happened(&self, at: Timestamp) -> Instant {
        let now = Instant::now();
        let age = Duration::try_from(self.now().duration_since(at)).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    }

    /// When to look whether a time of day has come.
    pub(crate) fn look_for(&self, at: Timestamp) -> Instant {
        let left = Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        Instant::now() + left.min(LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_yet_to_come_has_just_happened() {
        let day = |second| Timestamp::from_second(second).unwrap();
        let clock = Clock::new(move || day(10_000));
        let before = Instant::now();
        for future in [10_000, 10_001, 13_600] {
            assert!(clock.happened(day(future)) >= before);
        }
        let past = clock.happened(day(10_000 - 3_600));
        assert!(past + Duration::from_secs(3_600) >= before);
        assert!(past + Duration::from_secs(3_599) < Instant::now());
    }

    #[test]
    fn a_time_of_day_is_looked_for_again_and_again() {
        let day = |second| Timestamp::from_second(second).unwrap();
        let clock = Clock::new(move || day(10_000));
        let before = Instant::now();
        assert!(clock.look_for(day(9_000)) <= Instant::now());
        assert!(clock.look_for(day(10_010)) >= before + Duration::from_secs(10));
        assert!(clock.look_for(day(50_000)) <= Instant::now() + LOOK);
    }
}
