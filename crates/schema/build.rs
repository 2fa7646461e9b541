//! Writes the schema table from the sources of two dependencies: `k8s-openapi` has the published
//! schema (fields, formats, required, words), `k8s-pb` the protobuf tags and the `+` annotations.
//! What neither has stands in `build/overlay.txt`.

#[path = "build/annotations.rs"]
mod annotations;
#[path = "build/assemble.rs"]
mod assemble;
#[path = "build/overlay.rs"]
mod overlay;
#[path = "build/published.rs"]
mod published;
#[path = "build/sources.rs"]
mod sources;

use std::path::PathBuf;
use std::{env, fs};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    let sources = sources::find()?;
    let published = published::read(&sources.openapi.join("src/v1_36"))?;
    let annotated = annotations::read(&sources.protobuf.join("src"))?;
    let overlay = overlay::read(include_str!("build/overlay.txt"))?;
    let (table, docs) = assemble::table(&published, &annotated, &overlay)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("table.txt"), table)?;
    fs::write(out.join("docs.txt"), docs)?;
    Ok(())
}
