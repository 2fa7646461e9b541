//! Times as the API writes them.

use jiff::Timestamp;

/// Now, as `metav1.Time`: `2026-01-31T12:00:00Z`.
pub fn now() -> String {
    rfc3339(Timestamp::now())
}

/// Now, as `metav1.MicroTime`: `2026-01-31T12:00:00.000000Z`.
pub fn now_micro() -> String {
    rfc3339_micro(Timestamp::now())
}

/// An instant as `metav1.Time`, to the second.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An instant as `metav1.MicroTime`.
pub fn rfc3339_micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// An instant with nine digits of nanoseconds, as CRI logs have.
pub fn rfc3339_nano(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

/// Reads any RFC 3339 time.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// How long ago `text` was, in kubectl's short form (`5s`, `3m12s`, `2d`); `<unknown>` when unreadable.
pub fn age(text: &str, now: Timestamp) -> String {
    match parse(text) {
        Some(then) => human_duration(now.as_second() - then.as_second()),
        None => "<unknown>".into(),
    }
}

/// kubectl's short form of a number of seconds (`duration.HumanDuration`).
pub fn human_duration(seconds: i64) -> String {
    let with_rest = |whole: i64, unit: &str, rest: i64, rest_unit: &str| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{rest_unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => with_rest(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn times_are_written_to_the_right_digit() {
        let at: Timestamp = "2026-01-31T12:00:00.1234567Z".parse().unwrap();
        assert_eq!(rfc3339(at), "2026-01-31T12:00:00Z");
        assert_eq!(rfc3339_micro(at), "2026-01-31T12:00:00.123456Z");
        assert_eq!(rfc3339_nano(at), "2026-01-31T12:00:00.123456700Z");
    }
}
