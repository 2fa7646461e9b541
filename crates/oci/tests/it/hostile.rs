//! Archives that lie, climb or break: refused, and nothing stays behind.

use oci::{Digest, ImageError};
use tar::EntryType;

use crate::make::{Part, docker_archive, file, leftovers, link, small_image, store, tarball};

/// Loads an archive that must be refused.
fn refused(archive: &[u8]) -> ImageError {
    let (folder, store) = store();
    let path = folder.path().join("bad.tar");
    std::fs::write(&path, archive).unwrap();
    let fault = oci::load(&store, &path).unwrap_err();
    assert_eq!(leftovers(&folder), Vec::<String>::new(), "after: {fault}");
    assert!(store.list().unwrap().is_empty());
    fault
}

fn refused_layer(parts: &[Part]) -> ImageError {
    refused(&docker_archive(&[tarball(parts)], "bad:1", None))
}

#[test]
fn paths_that_climb() {
    for path in ["../evil", "a/../../evil", "/../evil"] {
        let fault = refused_layer(&[
            file("ok", "x"),
            Part {
                path,
                ..file("", "evil")
            },
        ]);
        assert!(matches!(fault, ImageError::Hostile(_)), "{path}: {fault}");
    }
}

#[test]
fn links_lead_nowhere_outside() {
    let (folder, store) = store();
    let outside = folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let target: &'static str = Box::leak(outside.display().to_string().into_boxed_str());
    let layer = tarball(&[
        link(EntryType::Symlink, "door", target),
        file("door/evil", "x"),
        link(EntryType::Symlink, "up", "../../../../../../.."),
        file("up/evil2", "x"),
        link(EntryType::Symlink, "passwd", "/etc/passwd"),
        file("passwd", "replaced"),
    ]);
    let path = folder.path().join("a.tar");
    std::fs::write(&path, docker_archive(&[layer], "a:b", None)).unwrap();
    let image = &oci::load(&store, &path).unwrap()[0];
    let tree = store.layer_folder(&image.layers[0].diff_id);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(
        tree.join(target.trim_start_matches('/'))
            .join("evil")
            .is_file(),
        "resolved inside"
    );
    assert!(tree.join("evil2").is_file());
    assert_eq!(
        std::fs::read_to_string(tree.join("passwd")).unwrap(),
        "replaced"
    );
    assert!(
        std::fs::symlink_metadata(tree.join("passwd"))
            .unwrap()
            .is_file()
    );
}

#[test]
fn hard_links_out_of_the_layer() {
    for target in ["../../../../etc/passwd", "/nowhere/at/all"] {
        refused_layer(&[Part {
            kind: EntryType::Link,
            path: "stolen",
            link: target,
            text: "",
        }]);
    }
}

#[test]
fn forged_whiteouts_and_unknown_entries() {
    refused_layer(&[link(EntryType::Char, "null", "")]);
    refused_layer(&[file("a/.wh...", "")]);
    refused_layer(&[Part {
        kind: EntryType::new(b'Z'),
        ..file("odd", "")
    }]);
}

#[test]
fn a_layer_with_another_digest() {
    let layer = tarball(&[file("a", "x")]);
    let fault = refused(&docker_archive(
        &[layer],
        "a:b",
        Some(Digest::of(b"another")),
    ));
    assert!(matches!(fault, ImageError::Corrupt(_)), "{fault}");
}

#[test]
fn truncated_and_empty_archives() {
    let whole = docker_archive(&[tarball(&[file("a", "some text")])], "a:b", None);
    refused(&[]);
    refused(b"not an archive at all");
    refused(&whole[..700]);
    let mut layer = tarball(&[file("a", "some text")]);
    layer.truncate(600);
    refused(&docker_archive(&[layer], "a:b", None));
}

#[test]
fn a_changed_blob_of_a_layout() {
    let (folder, first) = store();
    small_image(&first, folder.path(), "app");
    let archive = folder.path().join("saved.tar");
    oci::save(
        &first,
        &["app".to_owned()],
        std::fs::File::create(&archive).unwrap(),
    )
    .unwrap();
    let layout = folder.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    tar::Archive::new(std::fs::File::open(&archive).unwrap())
        .unpack(&layout)
        .unwrap();
    std::fs::remove_file(layout.join("manifest.json")).unwrap();
    for blob in std::fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap().path();
        let good = std::fs::read(&blob).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&blob, bad).unwrap();
        let (other, second) = store();
        let fault = oci::load(&second, &layout).unwrap_err();
        assert!(matches!(fault, ImageError::Corrupt(_)), "{fault}");
        assert_eq!(leftovers(&other), Vec::<String>::new());
        std::fs::write(&blob, good).unwrap();
    }
}

#[test]
fn what_a_crash_left_is_removed_at_the_next_start() {
    let (folder, store) = store();
    let tmp = folder.path().join("images/tmp");
    std::fs::create_dir_all(tmp.join("dead/0")).unwrap();
    std::fs::write(tmp.join("dead.lock"), "").unwrap();
    let living = store.ingest().unwrap();
    let again = oci::Store::open(&folder.path().join("images")).unwrap();
    assert!(!tmp.join("dead").exists());
    assert_eq!(
        std::fs::read_dir(&tmp).unwrap().count(),
        2,
        "the living keeps its folder and lock"
    );
    drop((living, again));
    assert_eq!(leftovers(&folder), Vec::<String>::new());
}

#[test]
fn a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &disk, Some("tmpfs"), flags, Some("size=1m")).unwrap();
    let binary = folder.path().join("binary");
    std::fs::write(&binary, vec![7u8; 4 << 20]).unwrap();
    let store = oci::Store::open(&disk.join("images")).unwrap();
    let wishes = oci::BinaryImage {
        path: "/app".to_owned(),
        ..Default::default()
    };
    let fault = oci::image_from_binary(&store, &binary, "big", &wishes).unwrap_err();
    let left = std::fs::read_dir(disk.join("images/tmp")).unwrap().count();
    let kept = std::fs::read_dir(disk.join("images/layers"))
        .unwrap()
        .count();
    nix::mount::umount(&disk).unwrap();
    assert!(
        matches!(&fault, ImageError::Io(_, error) if error.kind() == std::io::ErrorKind::StorageFull),
        "{fault}"
    );
    assert_eq!((left, kept), (0, 0));
}
