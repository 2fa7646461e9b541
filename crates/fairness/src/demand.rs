//! How many seats a priority level would have used: mean, spread and peak over a period.

/// Of the smoothed demand, how much a period keeps: half of it is gone after five minutes.
const SMOOTHING: f64 = 0.977;

/// Seat demand since the last look, and what looks have found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    seats: u32,
    peak: u32,
    begun: u64,
    at: u64,
    sum: f64,
    squares: f64,
    pub(crate) found: Found,
}

/// The demand of the last period.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) peak: u32,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
    pub(crate) smoothed: f64,
}

impl Demand {
    pub(crate) fn new(now: u64) -> Demand {
        Demand {
            seats: 0,
            peak: 0,
            begun: now,
            at: now,
            sum: 0.0,
            squares: 0.0,
            found: Found::default(),
        }
    }

    /// From now on so many seats are wanted.
    pub(crate) fn note(&mut self, now: u64, seats: u32) {
        let held = now.saturating_sub(self.at) as f64 * f64::from(self.seats);
        self.sum += held;
        self.squares += held * f64::from(self.seats);
        self.at = now;
        self.seats = seats;
        self.peak = self.peak.max(seats);
    }

    /// Ends a period.
    pub(crate) fn look(&mut self, now: u64) -> Found {
        self.note(now, self.seats);
        let time = (now.saturating_sub(self.begun) as f64).max(1.0);
        let mean = self.sum / time;
        let deviation = (self.squares / time - mean * mean).max(0.0).sqrt();
        let envelope = mean + deviation;
        let decayed = SMOOTHING * self.found.smoothed + (1.0 - SMOOTHING) * envelope;
        self.found = Found {
            peak: self.peak,
            mean,
            deviation,
            smoothed: envelope.max(decayed),
        };
        self.peak = self.seats;
        self.begun = now;
        self.sum = 0.0;
        self.squares = 0.0;
        self.found
    }
}
