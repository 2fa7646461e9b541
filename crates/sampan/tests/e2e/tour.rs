//! The tour's chapters, typed by a test.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::kubectl::{IMAGE, kubectls};

const BINARY: &str = env!("CARGO_BIN_EXE_sampan");

/// What a reader does.
enum Step {
    /// Types this into a shell.
    Shell(String),
    /// Stops the server, and starts it with these arguments.
    Server(Vec<String>),
}

/// The `sh` blocks of a page, in order; those marked `sh server` start a server.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = vec![Step::Shell(String::new())];
    let (mut inside, mut server) = (false, false);
    for line in page.lines().map(str::trim_end) {
        match (inside, line) {
            (false, "```sh") => (inside, server) = (true, false),
            (false, "```sh server") => (inside, server) = (true, true),
            (true, "```") => inside = false,
            (true, line) if server => {
                let words = line.split_whitespace().map(str::to_owned);
                // After `sampan server`.
                steps.push(Step::Server(words.skip(2).collect()));
                steps.push(Step::Shell(String::new()));
            }
            (true, line) => {
                if let Some(Step::Shell(text)) = steps.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            (false, _) => {}
        }
    }
    steps
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
    let mut cluster = Cluster::start();
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
        let steps = steps(&std::fs::read_to_string(&page).unwrap());
        let typed = |step: &Step| matches!(step, Step::Shell(text) if !text.is_empty());
        assert!(
            steps.iter().any(typed),
            "{} has no commands",
            page.display()
        );
        for step in steps {
            match step {
                Step::Shell(text) => type_in(&cluster, &path, &page, &text),
                Step::Server(arguments) => restart(&mut cluster, &page, &arguments),
            }
        }
    }
}

fn type_in(cluster: &Cluster, path: &str, page: &Path, text: &str) {
    let script = format!(
        "export PATH={path}\ncd {}\nset -xeuo pipefail\n{text}",
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

/// Files that are named lie where the reader is.
fn restart(cluster: &mut Cluster, page: &Path, arguments: &[String]) {
    let folder = cluster.folder.path().to_owned();
    let arguments = arguments.iter().map(|word| match folder.join(word) {
        file if file.is_file() => file.display().to_string(),
        _ => word.clone(),
    });
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (_, well) = cluster.terminate();
    assert!(well, "{}\n{}", page.display(), cluster.log());
    cluster.boot_with(&words);
}
