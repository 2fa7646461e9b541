//! Names of images, as far as the node must read them.

/// The image with `:latest` added when it has neither tag nor digest.
pub(super) fn with_default_tag(image: &str) -> Result<String, String> {
    let fault = || format!("couldn't parse image name {image:?}: invalid reference format");
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match rest[after_slash..].find(':') {
        Some(at) => (
            &rest[..after_slash + at],
            Some(&rest[after_slash + at + 1..]),
        ),
        None => (rest, None),
    };
    let tag_ok = tag.is_none_or(|tag| {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        !tag.is_empty() && tag.len() <= 128 && tag.chars().all(word) && !tag.starts_with(['.', '-'])
    });
    let digest_ok = digest.is_none_or(|digest| {
        let hex = digest.split_once(':').map_or("", |(_, hex)| hex);
        hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
    });
    if !path_is_valid(path) || !tag_ok || !digest_ok {
        return Err(fault());
    }
    match (tag, digest) {
        (None, None) => Ok(format!("{image}:latest")),
        _ => Ok(image.to_owned()),
    }
}

/// The registry of an image; `docker.io` when it names none.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if is_host(first) => first,
        _ => "docker.io",
    }
}

fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn path_is_valid(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let host = parts.len() > 1 && is_host(parts[0]);
    let names = if host { &parts[1..] } else { &parts[..] };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !path.is_empty()
        && names.iter().all(|name| {
            name.starts_with(plain)
                && name.ends_with(plain)
                && name
                    .chars()
                    .all(|c| plain(c) || matches!(c, '_' | '-' | '.'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_completed() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (image, expected) in [
            ("nginx", Some("nginx:latest")),
            ("nginx:1.2", Some("nginx:1.2")),
            ("localhost:5000/x", Some("localhost:5000/x:latest")),
            (digest.as_str(), Some(digest.as_str())),
            ("Nginx", None),
            ("", None),
            ("a b", None),
            ("nginx:", None),
            ("a//b", None),
            ("a@sha256:zz", None),
        ] {
            assert_eq!(with_default_tag(image).ok().as_deref(), expected, "{image}");
        }
        assert_eq!(registry("nginx"), "docker.io");
        assert_eq!(registry("quay.io/a/b"), "quay.io");
        assert_eq!(registry("library/b"), "docker.io");
    }
}
