//! `--mount=type=cache,target=/x`.

use crate::dockerfile::instruction::{Mount, MountKind, Sharing};

pub(super) fn parse(text: &str) -> Result<Mount, String> {
    let mut mount = Mount::default();
    let fields: Vec<(&str, Option<&str>)> = text
        .split(',')
        .map(|field| match field.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value)),
            None => (field.trim(), None),
        })
        .collect();
    if let Some((_, kind)) = fields.iter().find(|(name, _)| *name == "type") {
        mount.kind = match kind.unwrap_or_default() {
            "bind" => MountKind::Bind,
            "cache" => MountKind::Cache,
            "tmpfs" => MountKind::Tmpfs,
            "secret" => MountKind::Secret,
            "ssh" => MountKind::Ssh,
            other => return Err(format!("unsupported mount type {other:?}")),
        };
    }
    mount.readonly = mount.kind == MountKind::Bind;
    for (name, value) in fields {
        field(&mut mount, name, value)?;
    }
    if mount.target.is_empty() && !matches!(mount.kind, MountKind::Secret | MountKind::Ssh) {
        return Err("missing mount target".to_owned());
    }
    if mount.kind == MountKind::Secret && mount.id.is_none() && mount.target.is_empty() {
        return Err("one of id, target or env is required for a secret mount".to_owned());
    }
    Ok(mount)
}

fn field(mount: &mut Mount, name: &str, value: Option<&str>) -> Result<(), String> {
    let key = name.to_ascii_lowercase();
    let truth = || match value.unwrap_or("true") {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(format!("invalid value for {key}: {other}")),
    };
    let text = || value.ok_or_else(|| format!("invalid field '{name}' must be a key=value pair"));
    let number = |text: &str| {
        text.parse()
            .map_err(|_| format!("invalid value {text} for {key}"))
    };
    match key.as_str() {
        "type" => {}
        "target" | "dst" | "destination" => text()?.clone_into(&mut mount.target),
        "source" | "src" => match mount.kind {
            // Of a secret it is another word for its name.
            MountKind::Secret => mount.id = Some(text()?.to_owned()),
            _ => text()?.clone_into(&mut mount.source),
        },
        "from" => mount.from = Some(text()?.to_owned()),
        "id" => mount.id = Some(text()?.to_owned()),
        "env" => mount.env = Some(text()?.to_owned()),
        "readonly" | "ro" => mount.readonly = truth()?,
        "readwrite" | "rw" => mount.readonly = !truth()?,
        "required" => mount.required = truth()?,
        "uid" => mount.uid = number(text()?)?,
        "gid" => mount.gid = number(text()?)?,
        "mode" => {
            let wrong = |_| format!("invalid value {} for mode", value.unwrap_or_default());
            mount.mode = Some(u32::from_str_radix(text()?, 8).map_err(wrong)? & 0o7777);
        }
        "size" => mount.size = bytes(text()?)?,
        "sharing" => {
            mount.sharing = match text()? {
                "shared" => Sharing::Shared,
                "private" => Sharing::Private,
                "locked" => Sharing::Locked,
                other => return Err(format!("unsupported sharing value {other:?}")),
            }
        }
        _ => return Err(format!("unexpected key '{key}' in '{name}'")),
    }
    Ok(())
}

/// `64m` as bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("invalid size: {text:?}");
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}
