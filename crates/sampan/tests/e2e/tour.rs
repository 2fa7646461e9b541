//! The tour's chapters, typed by a test.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::kubectl::{IMAGE, kubectls};

const BINARY: &str = env!("CARGO_BIN_EXE_sampan");

/// The text of all `sh` blocks of a page, in order.
fn shell_blocks(page: &str) -> String {
    let (mut text, mut inside) = (String::new(), false);
    for line in page.lines() {
        match (inside, line.trim_end()) {
            (false, "```sh") => inside = true,
            (true, "```") => inside = false,
            (true, line) => {
                text.push_str(line);
                text.push('\n');
            }
            (false, _) => {}
        }
    }
    text
}

fn chapters() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tour");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = entries
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(char::is_numeric)
        })
        .collect();
    pages.sort();
    assert!(pages.len() >= 7, "the tour has lost chapters: {pages:?}");
    pages
}

#[test]
fn every_chapter_does_what_it_says() {
    let cluster = Cluster::start();
    cluster.make_image(IMAGE);
    // A folder with `kubectl` and `sampan` under these very names.
    let bin = cluster.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let newest = kubectls().pop().unwrap();
    std::os::unix::fs::symlink(newest, bin.join("kubectl")).unwrap();
    // The one of the tour knows its server's folder.
    let script = format!(
        "#!/bin/bash\ncase \"$1\" in\nimage|config) exec {BINARY} \"$1\" \"$2\" --data-dir {} \"${{@:3}}\";;\n\
         *) exec {BINARY} \"$@\";;\nesac\n",
        cluster.folder.path().display(),
    );
    std::fs::write(bin.join("sampan"), script).unwrap();
    std::fs::set_permissions(bin.join("sampan"), Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        bin.display(),
        "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    );
    for page in chapters() {
        let blocks = shell_blocks(&std::fs::read_to_string(&page).unwrap());
        assert!(!blocks.is_empty(), "{} has no commands", page.display());
        let script = format!(
            "export PATH={path}\ncd {}\nset -xeuo pipefail\n{blocks}",
            cluster.folder.path().display(),
        );
        let output = cluster.run(Path::new("/bin/bash"), &["-c", &script], "");
        assert!(
            output.status.success(),
            "{}\n{}\n{}\nserver:\n{}",
            page.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            cluster.log()
        );
    }
}
