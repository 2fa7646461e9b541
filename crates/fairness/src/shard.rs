//! Shuffle sharding: each flow is dealt a few queues, so that two flows rarely share all of theirs.

/// Most cards of one hand: more than this does not fit into a hash of 64 bits.
pub const HAND_MAX: usize = 64;
/// Bits of a hash that may be spent on dealing.
pub const HASH_BITS_MAX: u32 = 60;

/// How many bits it takes to deal `hand` cards of `deck`.
pub fn entropy_bits(deck: u32, hand: u32) -> u32 {
    let bits: f64 = (0..hand)
        .map(|dealt| f64::from(deck.saturating_sub(dealt).max(1)).log2())
        .sum();
    bits.ceil() as u32
}

/// Deals `hand` different cards out of `deck`, the same for the same hash.
pub fn deal(mut hash: u64, deck: usize, hand: usize, mut take: impl FnMut(usize)) {
    let hand = hand.min(deck).min(HAND_MAX);
    let mut rests = [0; HAND_MAX];
    for (dealt, rest) in rests.iter_mut().enumerate().take(hand) {
        let left = (deck - dealt) as u64;
        *rest = (hash % left) as usize;
        hash /= left;
    }
    for dealt in 0..hand {
        // The card is counted among those not dealt before.
        let mut card = rests[dealt];
        for earlier in (0..dealt).rev() {
            if card >= rests[earlier] {
                card += 1;
            }
        }
        take(card);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hands_have_no_card_twice_and_are_spread() {
        let mut counts = [0_u32; 16];
        let mut hash = 1_u64;
        for _ in 0..10_000 {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut hand = BTreeSet::new();
            deal(hash >> 8, 16, 4, |card| assert!(hand.insert(card)));
            assert_eq!(hand.len(), 4);
            hand.into_iter().for_each(|card| counts[card] += 1);
        }
        // 2500 each on average.
        assert!(
            counts.iter().all(|count| (2200..2800).contains(count)),
            "{counts:?}"
        );
        assert_eq!((entropy_bits(128, 6), entropy_bits(64, 6)), (42, 36));
    }
}
