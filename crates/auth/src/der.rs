//! The little of DER that writing a certificate needs.

const SEQUENCE: u8 = 0x30;

/// One element: tag, length, content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let skip = bytes.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | (bytes.len() - skip) as u8);
            out.extend(bytes.iter().skip(skip));
        }
    }
    out.extend_from_slice(content);
    out
}

/// A sequence of finished elements.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// An explicit context tag around a finished element.
pub(crate) fn explicit(number: u8, inner: &[u8]) -> Vec<u8> {
    element(0xa0 | number, inner)
}

/// A positive integer from its bytes, highest first.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut content: Vec<u8> = bytes.iter().skip(skip).copied().collect();
    if content.first().is_none_or(|first| first & 0x80 != 0) {
        content.insert(0, 0);
    }
    element(0x02, &content)
}

/// An object identifier from its numbers.
pub(crate) fn oid(numbers: &[u64]) -> Vec<u8> {
    let mut content = Vec::new();
    let (first, rest) = match numbers {
        [first, second, rest @ ..] => (first * 40 + second, rest),
        _ => (0, numbers),
    };
    for number in std::iter::once(&first).chain(rest) {
        let mut groups = vec![(number & 0x7f) as u8];
        let mut left = number >> 7;
        while left > 0 {
            groups.push(0x80 | (left & 0x7f) as u8);
            left >>= 7;
        }
        content.extend(groups.iter().rev());
    }
    element(0x06, &content)
}

/// A bit string of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    let mut content = vec![0];
    content.extend_from_slice(bytes);
    element(0x03, &content)
}

/// A bit string of flags; bit 0 is the first. Trailing zeros are left out, as DER wants it.
pub(crate) fn flags(set: &[u8]) -> Vec<u8> {
    let Some(highest) = set.iter().max().copied() else {
        return element(0x03, &[0]);
    };
    let mut bytes = vec![0u8; usize::from(highest / 8) + 1];
    for bit in set {
        if let Some(byte) = bytes.get_mut(usize::from(bit / 8)) {
            *byte |= 0x80 >> (bit % 8);
        }
    }
    let mut content = vec![7 - highest % 8];
    content.extend(bytes);
    element(0x03, &content)
}

/// An octet string.
pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    element(0x04, bytes)
}

/// A point in time, by Unix seconds: two digits of the year until 2049, four after.
pub(crate) fn time(seconds: i64) -> Vec<u8> {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let civil = time.to_zoned(jiff::tz::TimeZone::UTC);
    match civil.year() {
        ..=2049 => element(0x17, civil.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()),
        _ => element(0x18, civil.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_what_the_standard_says() {
        assert_eq!(integer(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[]), [2, 1, 0]);
        assert_eq!(
            oid(&[1, 2, 840, 10045, 4, 3, 2]),
            [6, 8, 42, 134, 72, 206, 61, 4, 3, 2]
        );
        // Digital signature and key encipherment.
        assert_eq!(flags(&[0, 2]), [3, 2, 5, 0xa0]);
        assert_eq!(flags(&[8]), [3, 3, 7, 0, 0x80]);
        assert_eq!(element(4, &[0; 200])[..3], [4, 0x81, 200]);
        assert_eq!(time(0)[2..], *b"700101000000Z");
        assert_eq!(time(2_524_608_000)[2..], *b"20500101000000Z");
    }
}
