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

/// The whole name of an image's repository, as registries and credentials know it:
/// `docker.io/library/nginx` of `nginx:1.2`.
pub(super) fn repository(image: &str) -> String {
    let name = without_tag(image);
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path),
        _ => ("docker.io", name),
    };
    let host = match host {
        "index.docker.io" => "docker.io",
        host => host,
    };
    match host == "docker.io" && !path.contains('/') {
        true => format!("{host}/library/{path}"),
        false => format!("{host}/{path}"),
    }
}

/// The whole name of an image, with its tag and digest.
pub(super) fn whole(image: &str) -> String {
    let name = without_tag(image);
    match &image[name.len()..] {
        "" => format!("{}:latest", repository(name)),
        rest => format!("{}{rest}", repository(name)),
    }
}

/// The image without its tag and digest.
pub(super) fn without_tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let after_slash = name.rfind('/').map_or(0, |at| at + 1);
    match name[after_slash..].find(':') {
        Some(at) => &name[..after_slash + at],
        None => name,
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
        for (image, whole) in [
            ("nginx", "docker.io/library/nginx"),
            ("team/app:1", "docker.io/team/app"),
            ("index.docker.io/nginx", "docker.io/library/nginx"),
            ("quay.io/a/b", "quay.io/a/b"),
            ("localhost:5000/x:1", "localhost:5000/x"),
            (digest.as_str(), "docker.io/a/b"),
        ] {
            assert_eq!(repository(image), whole);
        }
        assert_eq!(
            without_tag("localhost:5000/x:1@sha256:0"),
            "localhost:5000/x"
        );
    }
}
