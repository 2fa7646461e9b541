//! A disk that fills up and empties again, on a small tmpfs of its own.

use std::path::Path;
use std::process::Command;

use store::StoreError;

use super::{Opened, config, get, put};

const DIR: &str = "STORE_FULL_DIR";

/// Runs inside the mount namespace; passes at once in an ordinary run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let stored = dir.join("store");
    let opened = Opened::at(config(&stored, 100)).await;
    let ballast = dir.join("ballast");
    let value = vec![b'v'; 32 << 10];
    let mut written = Vec::new();
    for round in 0..3 {
        fill(&ballast);
        let refused = loop {
            let key = format!("{round}/{:06}", written.len());
            match put(opened.store.as_ref(), &key, value.clone()).await {
                Ok(_) => written.push(key),
                Err(error) => break error,
            }
            assert!(written.len() < 10_000, "the disk never fills");
        };
        assert!(matches!(refused, StoreError::NoSpace), "{refused}");
        // Reads go on, and so do writes once there is space again.
        assert!(get(opened.store.as_ref(), &written[0]).await.is_some());
        std::fs::remove_file(&ballast).unwrap();
        let key = format!("{round}/after");
        put(opened.store.as_ref(), &key, value.clone())
            .await
            .unwrap();
        written.push(key);
    }
    opened.close().await;
    let opened = Opened::at(config(&stored, 100)).await;
    for key in &written {
        let found = get(opened.store.as_ref(), key).await;
        assert_eq!(found.as_deref(), Some(value.as_slice()), "{key}");
    }
    opened.close().await;
    println!("\nfull disk survived with {} keys", written.len());
}

fn fill(ballast: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(ballast).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=96m tmpfs \"$STORE_FULL_DIR\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::child", "--nocapture"])
        .env(DIR, dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("full disk survived"), "{told}\n{errors}");
}
