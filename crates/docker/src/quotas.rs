//! How much room containers' own files and volumes may take, where the file system counts it.

use std::io;
use std::path::Path;

use crate::answer::Fault;
use crate::wire::HostConfig;

/// The smallest that docker takes.
const BYTES_MIN: u64 = 1;
const OPTION: &str = "size";

/// `10G`, `1.5 GiB`, `1024`: always powers of 1024, as docker counts room on disks.
pub(crate) fn bytes(text: &str) -> Result<u64, Fault> {
    let wrong = || Fault::bad(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let short = lower.strip_suffix("ib").or(lower.strip_suffix('b'));
    let short = short.unwrap_or(&lower);
    let (number, unit) = match short.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => short.split_at(at),
        None => (short, ""),
    };
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    if !number.is_finite() || number < 0.0 {
        return Err(wrong());
    }
    Ok((number * 1024f64.powi(power)) as u64)
}

/// What `--storage-opt` says; `None` is without limit.
fn wanted(host: &HostConfig) -> Result<Option<u64>, Fault> {
    let mut size = None;
    for (name, value) in host.storage_opt.iter().flatten() {
        if !name.eq_ignore_ascii_case(OPTION) {
            return Err(Fault::bad(format!("unknown option {name}")));
        }
        size = Some(bytes(value)?).filter(|size| *size >= BYTES_MIN);
    }
    Ok(size)
}

/// Makes the folders of a container's own files, which take no more than was said.
pub(crate) fn make_writable(folder: &Path, host: &HostConfig) -> Result<(), Fault> {
    for name in ["upper", "work"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let said = host.storage_opt.as_ref().is_some_and(|o| !o.is_empty());
    if said && !linux::quota::is_supported(folder) {
        return Err(Fault::bad(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    let Some(bytes) = wanted(host)? else {
        return Ok(());
    };
    linux::quota::limit(folder, bytes)?;
    // Files move from one of them to the other, which they do within one project only.
    let project = linux::quota::project(folder)?;
    for name in ["upper", "work"] {
        linux::quota::join(&folder.join(name), project)?;
    }
    Ok(())
}

/// Sets how large an empty folder may become.
pub(crate) fn limit(folder: &Path, bytes: u64) -> Result<(), Fault> {
    Ok(linux::quota::limit(folder, bytes)?)
}

/// Removes a folder with all in it, and gives back the project of what is called `part` in it.
pub(crate) fn remove(folder: &Path, part: &str) -> io::Result<()> {
    let project = linux::quota::project(&folder.join(part)).unwrap_or(0);
    std::fs::remove_dir_all(folder)?;
    match folder.parent() {
        Some(beside) if project != 0 => linux::quota::release(beside, project),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_options() {
        for (text, expect) in [
            ("10G", Some(10 << 30)),
            ("1.5 KiB", Some(1536)),
            ("1024", Some(1024)),
            ("12mb", Some(12 << 20)),
            ("much", None),
            ("-1", None),
            ("5x", None),
        ] {
            assert_eq!(bytes(text).ok(), expect, "{text}");
        }
        let host: HostConfig = serde_json::from_str(r#"{"StorageOpt":{"colour":"9"}}"#).unwrap();
        assert_eq!(wanted(&host).unwrap_err().message, "unknown option colour");
    }

    #[test]
    fn where_nothing_is_counted_limits_are_refused() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let host: HostConfig = serde_json::from_str(r#"{"StorageOpt":{"size":"1G"}}"#).unwrap();
        let fault = make_writable(folder.path(), &host).unwrap_err();
        assert!(fault.message.contains("pquota"), "{fault}");
        make_writable(folder.path(), &HostConfig::default()).unwrap();
        remove(folder.path(), "upper").unwrap();
        assert!(!folder.path().exists());
        // For the guard, which removes it once more.
        std::fs::create_dir(folder.path()).unwrap();
    }
}
