//! Names of images, as far as the default pull policy needs them.

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
const DIGEST_MIN: usize = 32;

/// The tag that the image is pulled by: `latest` when neither a tag nor a digest is given, none
/// when there is only a digest, or when this is no name of an image.
pub(super) fn tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
        None => (name, None),
    };
    let sound = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    match (sound, tag, digest) {
        (true, Some(tag), _) => Some(tag),
        (true, None, None) => Some("latest"),
        _ => None,
    }
}

/// A path of lower case, and before it perhaps a registry's host.
fn is_name(name: &str) -> bool {
    let is_id = name.len() == 64
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let library = usize::from(!path.contains('/')) * "library/".len();
    let length = domain.len() + 1 + path.len() + if domain == "docker.io" { library } else { 0 };
    !is_id && length <= NAME_MAX && is_domain(domain) && path.split('/').all(is_component)
}

/// Whether the first part of a name is meant as a host.
fn is_host(first: &str) -> bool {
    let upper = first.bytes().any(|byte| byte.is_ascii_uppercase());
    first.contains(['.', ':']) || first == "localhost" || upper
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let six = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let sound = match six {
        Some(six) => six
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(label),
    };
    sound && port.is_none_or(digits)
}

/// Lower case letters and digits, parted by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut parts = component.split(|one: char| one.is_ascii() && plain(one as u8));
    let first = parts.next().unwrap_or("");
    let rest: Vec<_> = parts.collect();
    let Some((last, middle)) = rest.split_last() else {
        return false;
    };
    let separates = |part: &&str| {
        matches!(*part, "" | "." | "_" | "__") || part.bytes().all(|byte| byte == b'-')
    };
    first.is_empty() && last.is_empty() && middle.iter().all(separates)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = tag.bytes().next().is_some_and(word);
    first && tag.len() <= TAG_MAX && tag.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    hex.len() >= DIGEST_MIN && hex.len() == length && hex.bytes().all(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_names_that_are_ones() {
        let digest = format!("nginx@sha256:{}", "0".repeat(64));
        let both = format!("nginx:latest@sha256:{}", "0".repeat(64));
        let long = "x".repeat(300);
        for (image, expected) in [
            ("nginx", Some("latest")),
            ("a/b", Some("latest")),
            ("nginx:1", Some("1")),
            ("localhost:5000/nginx", Some("latest")),
            ("localhost:5000/nginx:1", Some("1")),
            ("Registry/nginx", Some("latest")),
            ("[::1]:5000/nginx", Some("latest")),
            ("f_g/a__b-c---d.e", Some("latest")),
            ("1.2.3.4", Some("latest")),
            (digest.as_str(), None),
            (both.as_str(), Some("latest")),
            ("nginx@sha256:00", None),
            ("", None),
            ("Bad_Value!", None),
            ("-x", None),
            ("a..b", None),
            ("::1", None),
            ("*", None),
            (long.as_str(), None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
