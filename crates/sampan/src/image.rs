//! `sampan image`: the node's images, without a server.
#![expect(clippy::print_stdout, reason = "this is a command line's face")]

mod bars;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use oci::{BinaryImage, Credentials, Puller, RegistryOptions, Store};

use crate::config::DEFAULT_DATA_DIR;
use crate::server::engine_root;

/// Arguments of `image`.
#[derive(Args, Debug)]
pub(crate) struct ImageCommand {
    /// Folder that holds everything
    #[arg(short = 'd', long, global = true, default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List images
    #[command(visible_alias = "list")]
    Ls {
        /// Print ids only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Fetch an image from a registry
    Pull {
        image: String,
        /// user:password, for a registry that asks
        #[arg(long, env = "SAMPAN_REGISTRY_CREDENTIALS", hide_env_values = true)]
        creds: Option<String>,
        /// Speak to the image's registry without TLS
        #[arg(long)]
        plain_http: bool,
        /// Mirrors, credentials and certificates, as k3s' registries.yaml has them [default:
        /// <data-dir>/engine/registries.yaml if it exists]
        #[arg(long)]
        private_registry: Option<PathBuf>,
    },
    /// Put the images of an archive (docker or OCI, also compressed) or OCI layout into the store
    Load {
        /// File or folder [default: standard input]
        #[arg(short, long)]
        input: Option<PathBuf>,
    },
    /// Write images into an archive that docker and OCI tools read
    Save {
        #[arg(required = true)]
        images: Vec<String>,
        /// File to write
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Give an image one more name
    Tag { source: String, target: String },
    /// Keep images when room is made on a full disk, used or not
    Pin {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Let images go again when room is made
    Unpin {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Make an image from this very binary, or another static one, for demonstrations and tests
    #[command(hide = true)]
    FromBinary {
        tag: String,
        /// A static binary; put under /bin with its own name, and run without arguments
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Further names of it under /bin, as a busybox has them
        #[arg(long = "link", requires = "binary", value_delimiter = ',')]
        links: Vec<String>,
    },
}

/// Runs a verb.
pub(crate) async fn run(command: ImageCommand) -> Result<()> {
    let folder = std::path::absolute(&command.data_dir)?;
    let store = open(&folder)?;
    match command.verb {
        Verb::Ls { quiet } => list(&store, quiet),
        Verb::Pull {
            image,
            creds,
            plain_http,
            private_registry,
        } => {
            let options = runtime::registries(&engine_root(&folder), private_registry.as_deref())?;
            pull(&store, options, &image, creds.as_deref(), plain_http).await
        }
        Verb::Load { input } => {
            let images = match input {
                Some(path) => oci::load(&store, &path)?,
                None => oci::load_stream(&store, std::io::stdin().lock())?,
            };
            for image in images {
                let names: Vec<&str> = image.repo_tags.iter().map(String::as_str).collect();
                println!(
                    "Loaded image: {}",
                    if names.is_empty() {
                        image.id.as_str().to_owned()
                    } else {
                        names.join(", ")
                    }
                );
            }
            Ok(())
        }
        Verb::Save { images, output } => save(&store, &images, &output),
        Verb::Tag { source, target } => Ok(store.tag(&source, &target)?),
        Verb::Pin { images } => (images.iter()).try_for_each(|image| Ok(store.pin(image, true)?)),
        Verb::Unpin { images } => {
            (images.iter()).try_for_each(|image| Ok(store.pin(image, false)?))
        }
        Verb::Rm { images } => {
            for image in images {
                let gone = store.remove(&image)?;
                println!("{}: {image}", if gone { "Deleted" } else { "Untagged" });
            }
            Ok(())
        }
        Verb::FromBinary {
            tag,
            binary: None,
            links: _,
        } => {
            let binary = std::env::current_exe().context("cannot tell where this program is")?;
            from_own_binary(&folder, &binary, &tag)
        }
        Verb::FromBinary {
            tag,
            binary: Some(binary),
            links,
        } => from_binary(&store, &binary, &tag, &links),
    }
}

fn open(data_dir: &Path) -> Result<Store> {
    let root = engine_root(data_dir).join("images");
    Store::open(&root).with_context(|| format!("image store {}", root.display()))
}

async fn pull(
    store: &Store,
    mut options: RegistryOptions,
    image: &str,
    creds: Option<&str>,
    plain_http: bool,
) -> Result<()> {
    if plain_http && let Some((registry, _)) = image.split_once('/') {
        options.insecure.push(registry.to_owned());
    }
    let (username, password) = creds
        .and_then(|text| text.split_once(':'))
        .unwrap_or_default();
    let credentials = Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
        ..Credentials::default()
    };
    let pulled = Puller::new(store, &options)
        .pull(image, &credentials, Some(bars::report()))
        .await?;
    // Nobody stays to see to it.
    store.settle()?;
    println!("{}", pulled.id.as_str());
    Ok(())
}

/// Written beside the target first, so that a failed save leaves no half archive.
fn save(store: &Store, images: &[String], output: &Path) -> Result<()> {
    let folder = output
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .with_context(|| format!("cannot write beside {}", output.display()))?;
    oci::save(store, images, &mut file)?;
    file.persist(output)
        .with_context(|| format!("cannot write {}", output.display()))?;
    Ok(())
}

/// Puts an image of `binary` into the store of a data folder.
pub(crate) fn from_own_binary(data_dir: &Path, binary: &Path, tag: &str) -> Result<()> {
    let wishes = BinaryImage {
        path: "/sampan".into(),
        entrypoint: vec!["/sampan".into()],
        cmd: vec!["demo-app".into(), "serve".into()],
        ..BinaryImage::default()
    };
    oci::image_from_binary(&open(data_dir)?, binary, tag, &wishes)?;
    Ok(())
}

fn from_binary(store: &Store, binary: &Path, tag: &str, links: &[String]) -> Result<()> {
    let name = binary
        .file_name()
        .and_then(|name| name.to_str())
        .with_context(|| format!("{} names no file", binary.display()))?;
    let path = format!("/bin/{name}");
    let wishes = BinaryImage {
        cmd: vec![path.clone()],
        path,
        links: links.iter().map(|link| format!("/bin/{link}")).collect(),
        env: vec!["PATH=/bin".into()],
        ..BinaryImage::default()
    };
    oci::image_from_binary(store, binary, tag, &wishes)?;
    Ok(())
}

fn list(store: &Store, quiet: bool) -> Result<()> {
    if !quiet {
        println!("{:<48} {:<24} {:<14} SIZE", "REPOSITORY", "TAG", "IMAGE ID");
    }
    for image in store.list()? {
        let id: String = image.id.hex().chars().take(12).collect();
        if quiet {
            println!("{id}");
            continue;
        }
        let size = human_bytes(image.size());
        let untagged = image
            .repo_tags
            .is_empty()
            .then(|| "<none>:<none>".to_owned());
        for name in image.repo_tags.iter().chain(&untagged) {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
            println!("{repository:<48} {tag:<24} {id:<14} {size}");
        }
    }
    Ok(())
}

/// As docker prints sizes: powers of a thousand, three digits.
fn human_bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            let digits = if size < 10.0 && unit != "B" {
                2
            } else if size < 100.0 && unit != "B" {
                1
            } else {
                0
            };
            return format!("{size:.digits$}{unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.1}TB")
}

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn sizes_read_like_docker() {
        for (bytes, text) in [
            (5, "5B"),
            (1500, "1.50kB"),
            (56_700_000, "56.7MB"),
            (187_000_000, "187MB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
