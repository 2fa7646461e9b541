//! The file that says how registries are spoken to: mirrors, credentials, certificates.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oci::RegistryOptions;

use super::OpenError;

/// Names of the file in the engine's folder. JSON is YAML.
const NAMES: [&str; 2] = ["registries.yaml", "registries.json"];
/// Bytes of it.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the file: the one that was named, or else that of the engine's folder, if there is one.
pub fn read(root: &Path, named: Option<&Path>) -> Result<RegistryOptions, OpenError> {
    if let Some(path) = named {
        return parse(path)?.ok_or_else(|| {
            let absent = std::io::Error::from(ErrorKind::NotFound);
            OpenError::Io(path.to_owned(), absent)
        });
    }
    for name in NAMES {
        if let Some(options) = parse(&root.join(name))? {
            return Ok(options);
        }
    }
    Ok(RegistryOptions::default())
}

fn parse(path: &Path) -> Result<Option<RegistryOptions>, OpenError> {
    let io = |error| OpenError::Io(path.to_owned(), error);
    let fault = |words: String| OpenError::Registries(PathBuf::from(path), words);
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
        Ok(meta) if meta.len() > BYTES_MAX => return Err(fault("too large".to_owned())),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let tree = super::yaml(&text).map_err(fault)?;
    let options = RegistryOptions::from_tree(tree).map_err(|error| fault(error.to_string()))?;
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_file_counts_else_that_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = read(folder.path(), None).unwrap();
        assert_eq!(nothing, RegistryOptions::default());
        let json = r#"{"mirrors": {"docker.io": "one.lan"}}"#;
        std::fs::write(folder.path().join("registries.json"), json).unwrap();
        let yaml = "mirrors:\n  docker.io:\n    endpoint:\n    - https://two.lan\n";
        let named = folder.path().join("named");
        std::fs::write(&named, yaml).unwrap();
        let mirror = |options: RegistryOptions| options.mirrors["docker.io"].endpoint.clone();
        assert_eq!(mirror(read(folder.path(), None).unwrap()), ["one.lan"]);
        let options = read(folder.path(), Some(&named)).unwrap();
        assert_eq!(mirror(options), ["https://two.lan"]);
        assert!(read(folder.path(), Some(Path::new("/nowhere"))).is_err());
        std::fs::write(&named, "mirrors: [").unwrap();
        let fault = read(folder.path(), Some(&named)).unwrap_err().to_string();
        assert!(fault.starts_with(named.to_str().unwrap()), "{fault}");
    }
}
