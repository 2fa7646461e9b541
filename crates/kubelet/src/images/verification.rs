//! When pods must show that they may use an image that is on the node.

use super::reference;

/// Whose images pods may use without having pulled them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageVerification {
    /// All that are there.
    Never,
    /// Those that somebody else brought.
    NeverPreloaded,
    /// Those with such a name, without its tag; or below such a one that ends with `/*`.
    NeverListed(Vec<String>),
    Always,
}

impl ImageVerification {
    /// Whether a pod must have the credentials for an image, by its name in the pod.
    pub(super) fn is_asked_for(&self, image: &str, by_kubelet: bool) -> bool {
        match self {
            ImageVerification::Never => false,
            ImageVerification::NeverPreloaded => by_kubelet,
            ImageVerification::NeverListed(patterns) => {
                let name = reference::without_tag(image);
                let fits = |pattern: &String| match pattern.strip_suffix('*') {
                    Some(folder) => name.starts_with(folder),
                    None => name == pattern,
                };
                !patterns.iter().any(fits)
            }
            ImageVerification::Always => true,
        }
    }
}
