//! Engines that are killed while they take an image in.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cluster::eventually;
use crate::docker::Engine;
use crate::registry::Registry;

const SIZE: usize = 16 << 20;

/// Names of all that is below a folder, but not what is in layers.
fn listing(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in [
        "",
        "blobs/sha256",
        "layers",
        "tmp",
        "begun",
        "leases",
        "kept",
    ] {
        for entry in std::fs::read_dir(folder.join(part)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            found.insert(format!("{part}/{name}"));
        }
    }
    found
}

/// How long the files in temporary folders are whose names the test knows.
fn length_of(tmp: &Path, wanted: impl Fn(&Path) -> bool) -> u64 {
    let mut most = 0;
    let below = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let pieces = below(tmp).into_iter().flat_map(|ingest| below(&ingest));
    for piece in pieces.flat_map(|piece| below(&piece).into_iter().chain([piece])) {
        if wanted(&piece) {
            most = most.max(piece.metadata().map_or(0, |metadata| metadata.len()));
        }
    }
    most
}

/// From where on the one large layer was asked for.
fn starts(registry: &Registry) -> Vec<usize> {
    let content = registry.content.lock().unwrap();
    let large = content.starts.iter().filter(|(_, length)| *length > SIZE);
    large.map(|(start, _)| *start).collect()
}

#[test]
fn kill_nine_in_the_middle_of_a_pull_costs_nothing_twice() {
    let Some(mut engine) = Engine::for_docker() else {
        return;
    };
    let registry = Registry::start(&engine.network());
    let image = format!("127.0.0.1:{}/team/big:v1", registry.port);
    engine.ok(&format!(
        "docker login -u user -p secret 127.0.0.1:{} 2>/dev/null",
        registry.port
    ));
    engine.ok(&format!(
        "head -c {SIZE} /dev/urandom > big && docker create --name make busybox \
         && docker cp big make:/big && docker commit make {image} && docker push {image} \
         && docker rm make && docker rmi {image}"
    ));
    let images = engine.path("engine/images");
    let without = listing(&images);
    // As it comes when nothing goes wrong.
    engine.ok(&format!("docker pull {image}"));
    let whole = listing(&images);
    engine.ok(&format!("docker rmi {image}"));
    assert_eq!(listing(&images), without);
    let tmp = images.join("tmp");
    let mut expected = vec![0];
    let mut had = 0;
    registry.content.lock().unwrap().starts.clear();
    // Each time it is killed with more of the blob, and with the beginning of its file unpacked.
    for more in [SIZE / 2, SIZE / 4] {
        registry.content.lock().unwrap().holds = Some(more);
        engine.ok(&format!("docker pull {image} > pulling 2>&1 &"));
        had += more;
        eventually("a part of the layer", || {
            let blob = |path: &Path| path.extension().is_some();
            (length_of(&tmp, blob) == had as u64).then_some(())
        });
        eventually("a part of its file", || {
            let unpacked = |path: &Path| path.ends_with("big");
            (length_of(&tmp, unpacked) > 0).then_some(())
        });
        assert_eq!(starts(&registry), expected);
        expected.push(had);
        engine.kill();
        engine.boot();
        let mut left = listing(&images);
        left.retain(|name| !name.starts_with("begun/"));
        assert_eq!(left, without);
        assert_eq!(engine.ok("docker images -q").lines().count(), 1);
    }
    engine.ok(&format!("docker pull {image}"));
    assert_eq!(starts(&registry), expected);
    assert_eq!(listing(&images), whole);
    engine.ok(&format!("docker run --rm {image} cat /big | cmp - big"));
}
