//! How many seats each priority level has: nominally by shares, then by lending and borrowing.

/// A level's bounds, and what it wants of what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) wanted: f64,
}

/// What is wanted counts at least this much, so that idle levels have a proportion too.
const WANTED_MIN: f64 = 0.001;
/// Halvings until the proportion is exact.
const STEPS: u32 = 100;

/// Seats so that they sum up to `total`: each level gets the same proportion of what it wants,
/// but for its bounds. The proportion comes along.
pub(crate) fn divide(total: f64, claims: &[Claim]) -> (Vec<f64>, f64) {
    let share = |claim: &Claim, proportion: f64| {
        let wanted = claim.wanted.max(WANTED_MIN) * proportion;
        wanted.clamp(claim.least, claim.most.max(claim.least))
    };
    let sum =
        |proportion: f64| -> f64 { claims.iter().map(|claim| share(claim, proportion)).sum() };
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < total && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        match sum(middle) < total {
            true => low = middle,
            false => high = middle,
        }
    }
    let shares = claims.iter().map(|claim| share(claim, high)).collect();
    (shares, high)
}

/// Nominal seats of a level.
pub(crate) fn nominal(total: u32, shares: u32, all_shares: u32) -> u32 {
    let (total, shares) = (u64::from(total), u64::from(shares));
    (total * shares).div_ceil(u64::from(all_shares.max(1))) as u32
}

/// A part in percent, to the nearest.
pub(crate) fn percent(of: u32, percent: u32) -> u32 {
    (f64::from(of) * f64::from(percent) / 100.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(least: f64, wanted: f64, most: f64) -> Claim {
        Claim {
            least,
            most,
            wanted,
        }
    }

    #[test]
    fn seats_follow_demand_within_bounds() {
        let check = |total, claims: &[Claim], expected: &[f64]| {
            let (shares, _) = divide(total, claims);
            for (share, expected) in shares.iter().zip(expected) {
                assert!((share - expected).abs() < 1e-6, "{shares:?} {expected:?}");
            }
        };
        // Nobody at a bound: in proportion.
        check(
            30.0,
            &[claim(0.0, 10.0, 100.0), claim(0.0, 20.0, 100.0)],
            &[10.0, 20.0],
        );
        check(
            60.0,
            &[claim(0.0, 10.0, 100.0), claim(0.0, 20.0, 100.0)],
            &[20.0, 40.0],
        );
        // An idle level keeps what it may not lend.
        check(
            100.0,
            &[claim(40.0, 40.0, 200.0), claim(25.0, 500.0, 200.0)],
            &[40.0, 60.0],
        );
        // What one may not borrow goes to the others.
        check(
            100.0,
            &[claim(10.0, 90.0, 30.0), claim(10.0, 10.0, 500.0)],
            &[30.0, 70.0],
        );
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!((nominal(600, 30, 245), nominal(600, 5, 245)), (74, 13));
        assert_eq!(percent(74, 33), 24);
    }
}
