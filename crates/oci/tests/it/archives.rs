//! In and out again, and the life of records.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use oci::ImageError;
use tar::EntryType;

use crate::make::{docker_archive, file, leftovers, link, small_image, store, tarball};

#[test]
fn what_is_saved_can_be_loaded() {
    let (folder, first) = store();
    let image = small_image(&first, folder.path(), "demo/app:v1");
    let archive = folder.path().join("saved.tar");
    let names = ["demo/app:v1".to_owned()];
    oci::save(&first, &names, std::fs::File::create(&archive).unwrap()).unwrap();

    let (_folder, second) = store();
    let loaded = oci::load(&second, &archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id, image.id);
    assert!(loaded[0].repo_tags.contains("docker.io/demo/app:v1"));
    assert_eq!(loaded[0].config.config.env, ["A=b"]);
    let tree = second.layer_folder(&image.layers[0].diff_id);
    assert_eq!(
        std::fs::read_to_string(tree.join("app")).unwrap(),
        "#!not really a program"
    );
    assert_eq!(
        std::fs::metadata(tree.join("tmp"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o1777
    );
    assert_eq!(
        std::fs::read_link(tree.join("bin/app")).unwrap().to_str(),
        Some("/app")
    );

    // The same as a folder, without docker's table: an OCI layout.
    let layout = folder.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    tar::Archive::new(std::fs::File::open(&archive).unwrap())
        .unpack(&layout)
        .unwrap();
    std::fs::remove_file(layout.join("manifest.json")).unwrap();
    let (_folder, third) = store();
    let loaded = oci::load(&third, &layout).unwrap();
    assert_eq!(
        (&loaded[0].id, &loaded[0].manifest),
        (&image.id, &image.manifest)
    );

    // And compressed, from a stream.
    let (_folder, fourth) = store();
    let gzip = flate2::read::GzEncoder::new(
        std::fs::File::open(&archive).unwrap(),
        flate2::Compression::fast(),
    );
    assert_eq!(oci::load_stream(&fourth, gzip).unwrap()[0].id, image.id);
}

#[test]
fn names_move_and_images_go_with_their_last_name() {
    let (folder, store) = store();
    let image = small_image(&store, folder.path(), "app:v1");
    store.tag("app:v1", "other/name").unwrap();
    assert_eq!(store.get("other/name:latest").unwrap().id, image.id);
    assert_eq!(store.get(&image.id.hex()[..12]).unwrap().id, image.id);
    assert_eq!(store.get(image.id.as_str()).unwrap().repo_tags.len(), 2);
    assert!(!store.remove("app:v1").unwrap());
    assert!(matches!(store.get("app:v1"), Err(ImageError::NotFound(_))));
    store.lease("c1", &[&image]).unwrap();
    assert!(store.remove("other/name").unwrap());
    assert!(
        store.layer_folder(&image.layers[0].diff_id).is_dir(),
        "a container stands on it"
    );
    store.release("c1").unwrap();
    store.collect().unwrap();
    assert_eq!(leftovers(&folder), Vec::<String>::new());
    assert!(store.list().unwrap().is_empty());
}

/// The inodes of a folder and of what is in it.
fn inodes(folder: &std::path::Path, found: &mut std::collections::BTreeSet<u64>) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(folder).unwrap();
    found.insert(metadata.ino());
    if metadata.is_dir() {
        for entry in std::fs::read_dir(folder).unwrap() {
            inodes(&entry.unwrap().path(), found);
        }
    }
}

#[test]
fn inodes_are_counted_when_a_layer_comes() {
    let (folder, store) = store();
    let layer = tarball(&[
        link(EntryType::Directory, "a/", ""),
        file("a/one", "x"),
        file("a/two", "x"),
        link(EntryType::Link, "a/again", "a/one"),
        link(EntryType::Symlink, "s", "a/one"),
        link(EntryType::Fifo, "pipe", ""),
        file("a/.wh.gone", ""),
    ]);
    let path = folder.path().join("a.tar");
    std::fs::write(&path, docker_archive(&[layer], "a:b", None)).unwrap();
    let image = &oci::load(&store, &path).unwrap()[0];
    let mut found = std::collections::BTreeSet::new();
    inodes(&store.layer_folder(&image.layers[0].diff_id), &mut found);
    assert_eq!(image.layers[0].inodes, found.len() as u64, "{found:?}");
    // Two names of one image are one image; its archive is a file more.
    store.tag("a:b", "a:c").unwrap();
    assert_eq!(store.disk_usage().unwrap().1, found.len() as u64 + 1);
}

#[test]
fn layers_become_what_overlayfs_expects() {
    let (folder, store) = store();
    let lower = tarball(&[file("a/gone", "x"), file("a/kept", "x"), file("b/old", "x")]);
    let upper = tarball(&[
        file("a/.wh.gone", ""),
        file("b/.wh..wh..opq", ""),
        file("b/new", "y"),
        link(EntryType::Symlink, "s", "/etc/passwd"),
        link(EntryType::Link, "b/again", "b/new"),
        link(EntryType::Fifo, "pipe", ""),
        link(EntryType::Char, "device", ""),
    ]);
    // A character device 0:0 would be a forged whiteout; give this one numbers.
    let mut upper = upper;
    let position = upper
        .windows(6)
        .position(|window| window == b"device")
        .unwrap();
    upper[position + 329..position + 336].copy_from_slice(b"0000001");
    upper[position + 337..position + 344].copy_from_slice(b"0000003");
    let sum: u32 = upper[position..position + 512]
        .iter()
        .enumerate()
        .map(|(index, byte)| {
            if (148..156).contains(&index) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    upper[position + 148..position + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let archive = folder.path().join("a.tar");
    std::fs::write(&archive, docker_archive(&[lower, upper], "x:y", None)).unwrap();
    let image = &oci::load(&store, &archive).unwrap()[0];
    let tree = store.layer_folder(&image.layers[1].diff_id);
    let gone = std::fs::symlink_metadata(tree.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let device = std::fs::symlink_metadata(tree.join("device")).unwrap();
    assert_eq!(device.rdev(), nix::sys::stat::makedev(1, 3));
    assert!(
        std::fs::symlink_metadata(tree.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let (one, two) = (tree.join("b/new"), tree.join("b/again"));
    assert_eq!(one.metadata().unwrap().ino(), two.metadata().unwrap().ino());
    assert!(!tree.join("b/.wh..wh..opq").exists());
    // The kernel agrees: stacked, the lower files are hidden.
    let (work, up, merged) = (
        folder.path().join("w"),
        folder.path().join("u"),
        folder.path().join("m"),
    );
    for path in [&work, &up, &merged] {
        std::fs::create_dir(path).unwrap();
    }
    let lower = store.layer_folder(&image.layers[0].diff_id);
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        tree.display(),
        lower.display(),
        up.display(),
        work.display()
    );
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )
    .unwrap();
    let seen = [
        merged.join("a/gone").exists(),
        merged.join("a/kept").exists(),
        merged.join("b/old").exists(),
        merged.join("b/new").exists(),
    ];
    nix::mount::umount(&merged).unwrap();
    assert_eq!(seen, [false, true, false, true]);
}

#[test]
fn an_image_stays_pinned_until_it_is_told_otherwise() {
    let (folder, store) = store();
    let image = small_image(&store, folder.path(), "demo/app:v1");
    assert!(!image.pinned);
    store.pin("demo/app:v1", true).unwrap();
    // Also when it comes once more.
    assert!(small_image(&store, folder.path(), "demo/app:v1").pinned);
    assert!(store.get("demo/app:v1").unwrap().pinned);
    store.pin(image.id.as_str(), false).unwrap();
    assert!(!store.get("demo/app:v1").unwrap().pinned);
    assert!(matches!(
        store.pin("nobody/knows:it", true),
        Err(ImageError::NotFound(_))
    ));
}
