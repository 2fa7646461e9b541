//! Ids and names for what comes without one.

const FIRST: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clever", "coastal", "crisp", "deep", "eager", "fair",
    "fleet", "gentle", "glad", "golden", "hardy", "jolly", "keen", "light", "lively", "loyal",
    "lucky", "merry", "nimble", "proud", "quiet", "rapid", "silver", "steady", "sunny", "swift",
    "tidy", "warm",
];
const SECOND: [&str; 32] = [
    "anchor", "barge", "beacon", "bow", "buoy", "canoe", "clipper", "compass", "crane", "cutter",
    "dhow", "ferry", "galley", "harbor", "heron", "junk", "keel", "ketch", "lagoon", "lantern",
    "mast", "oar", "pier", "reef", "rudder", "sail", "schooner", "sloop", "stern", "tide",
    "tiller", "wharf",
];

/// 64 hexadecimal digits.
pub(crate) fn fresh_id() -> String {
    let half = || uuid::Uuid::new_v4().simple().to_string();
    half() + &half()
}

/// Two words that `taken` does not know together, with a number when need be.
pub(crate) fn fresh_name(taken: impl Fn(&str) -> bool) -> String {
    let pick = |words: &[&'static str; 32]| words[rand::random_range(0..words.len())];
    for round in 0_u32.. {
        let mut name = format!("{}_{}", pick(&FIRST), pick(&SECOND));
        if round > 3 {
            name += &rand::random_range(0..1000 * round).to_string();
        }
        if !taken(&name) {
            return name;
        }
    }
    fresh_id()
}
