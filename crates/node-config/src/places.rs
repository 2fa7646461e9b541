//! Places of images, as `matchImages` and pull secrets name them: a host with globs, a port, the
//! beginning of a path.

/// A place such as `*.registry.io:8080/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlace {
    host: Vec<String>,
    port: String,
    path: String,
}

impl ImagePlace {
    /// Reads a place without a scheme; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<ImagePlace, String> {
        let fault = |why: String| format!("parse {:?}: {why}", format!("https://{text}"));
        if text.chars().any(char::is_control) {
            return Err(fault("net/url: invalid control character in URL".into()));
        }
        let end = text.find(['/', '?', '#']).unwrap_or(text.len());
        let (authority, rest) = text.split_at(end);
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // An address of IPv6.
            Some((inside, after)) => (inside, after.strip_prefix(':').unwrap_or(after)),
            None => host.split_once(':').unwrap_or((host, "")),
        };
        if !port.chars().all(|sign| sign.is_ascii_digit()) {
            return Err(fault(format!(
                "invalid port {:?} after host",
                format!(":{port}")
            )));
        }
        if let Some(bad) = host.chars().find(|sign| " \\^`{|}".contains(*sign)) {
            return Err(fault(format!(
                "invalid character {:?} in host name",
                bad.to_string()
            )));
        }
        Ok(ImagePlace {
            host: host.split('.').map(str::to_owned).collect(),
            port: port.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether an image's name, without its tag, lies here: every part of its host as the globs say,
    /// the same port, and a path that begins as this one.
    pub fn holds(&self, image: &str) -> bool {
        let Ok(image) = ImagePlace::parse(image) else {
            return false;
        };
        self.port == image.port
            && self.host.len() == image.host.len()
            && image.path.starts_with(&self.path)
            && self.host.iter().zip(&image.host).all(|(glob, part)| {
                let (glob, part): (Vec<_>, Vec<_>) =
                    (glob.chars().collect(), part.chars().collect());
                fits(&glob, &part)
            })
    }
}

/// Whether a glob with `*` and `[…]` means a text.
fn fits(glob: &[char], text: &[char]) -> bool {
    match (glob, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            fits(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, after)| fits(glob, after))
        }
        (['[', class @ ..], [sign, after @ ..]) => {
            let Some(end) = class.iter().position(|one| *one == ']') else {
                return false;
            };
            is_among(&class[..end], *sign) && fits(&class[end + 1..], after)
        }
        ([one, rest @ ..], [sign, after @ ..]) => one == sign && fits(rest, after),
        _ => false,
    }
}

/// Whether a sign is one of `abc` or `a-c`.
fn is_among(class: &[char], sign: char) -> bool {
    match class {
        [first, '-', last, rest @ ..] => (*first..=*last).contains(&sign) || is_among(rest, sign),
        [one, rest @ ..] => *one == sign || is_among(rest, sign),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_hold_images() {
        let holds = |place: &str, image: &str| ImagePlace::parse(place).unwrap().holds(image);
        for (place, image) in [
            ("registry.io", "registry.io/team/app"),
            ("*.registry.io", "a.registry.io/app"),
            ("*.*.registry.io", "a.b.registry.io/app"),
            ("re*io.*", "registrio.io/app"),
            (
                "123456.dkr.ecr.[a-c]*-1.aws.com",
                "123456.dkr.ecr.ap-1.aws.com/x",
            ),
            ("registry.io:8080/path", "registry.io:8080/pathology/app"),
            ("registry.io/", "registry.io/app"),
            ("[fd00::1]:5000", "[fd00::1]:5000/app"),
        ] {
            assert!(holds(place, image), "{place} {image}");
        }
        for (place, image) in [
            ("*.io", "a.registry.io/app"),
            ("registry.io", "registry.io:8080/app"),
            ("registry.io:8080", "registry.io/app"),
            ("registry.io/path", "registry.io/pat/app"),
            ("registry.*", "registry.io.io/app"),
            ("*", "registry.io/app"),
        ] {
            assert!(!holds(place, image), "{place} {image}");
        }
        for (place, why) in [
            ("registry.io:port", "invalid port \":port\" after host"),
            ("regi stry.io", "invalid character \" \" in host name"),
        ] {
            let fault = ImagePlace::parse(place).unwrap_err();
            assert!(fault.ends_with(why), "{fault}");
        }
    }
}
