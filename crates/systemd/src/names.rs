//! Names of slices and scopes, and where their cgroups lie.

/// A cgroup's parent that is no slice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no slice: a name such as \"a-b.slice\" is expected")]
pub struct NameError(pub String);

const SLICE: &str = ".slice";

/// The slice of a cgroup by its path, as Kubernetes names it: `/kubepods/burstable/pod1-2` is
/// `kubepods-burstable-pod1_2.slice`.
pub fn slice_of(path: &str) -> String {
    let parts = path.split('/').filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.map(|part| part.replace('-', "_")).collect();
    match parts.is_empty() {
        true => format!("-{SLICE}"),
        false => parts.join("-") + SLICE,
    }
}

/// The slice that a parent names: itself, or the last part of its path.
pub fn slice_name(parent: &str) -> Result<&str, NameError> {
    let name = parent.trim_end_matches('/').rsplit('/').next();
    let wrong = || NameError(parent.to_owned());
    let name = name.filter(|name| name.ends_with(SLICE));
    let name = name.ok_or_else(wrong)?;
    expand(name).map(|_| name)
}

/// Where a slice's cgroup is: `a-b.slice` lies in `/a.slice/a-b.slice`.
pub fn expand(slice: &str) -> Result<String, NameError> {
    let wrong = || NameError(slice.to_owned());
    let name = slice.strip_suffix(SLICE).ok_or_else(wrong)?;
    if name == "-" {
        return Ok(String::new());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    if !name.chars().all(plain) || name.split('-').any(str::is_empty) {
        return Err(wrong());
    }
    let mut path = String::new();
    for (at, _) in name.match_indices('-').chain([(name.len(), "")]) {
        path.push('/');
        path.push_str(&name[..at]);
        path.push_str(SLICE);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_named_as_kubernetes_names_them() {
        let slice = slice_of("/kubepods/burstable/pod1b4e28ba-2fa1");
        assert_eq!(slice, "kubepods-burstable-pod1b4e28ba_2fa1.slice");
        assert_eq!(
            expand(&slice).unwrap(),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b4e28ba_2fa1.slice"
        );
        assert_eq!(slice_of("/"), "-.slice");
        assert_eq!(expand("-.slice").unwrap(), "");
    }

    #[test]
    fn a_parent_is_a_slice_or_nothing() {
        assert_eq!(slice_name("system.slice"), Ok("system.slice"));
        assert_eq!(slice_name("/a.slice/a-b.slice"), Ok("a-b.slice"));
        for wrong in [
            "",
            "/kubepods/x",
            "a--b.slice",
            "-a.slice",
            ".slice",
            "a b.slice",
            "x.scope",
        ] {
            assert!(slice_name(wrong).is_err(), "{wrong}");
        }
    }
}
