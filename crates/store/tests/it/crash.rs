//! kill -9 at random moments: nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::{KeyRange, Range};

use super::{Opened, config, put};

const DIR: &str = "STORE_CRASH_DIR";
const ROUND: &str = "STORE_CRASH_ROUND";
const ROUNDS: u64 = 12;
const WRITERS: u64 = 16;
const CHANGES: usize = 300;

fn value(round: u64, writer: u64, step: u64) -> Vec<u8> {
    let text = format!("{round}/{writer}/{step} ");
    text.repeat(1 + (step as usize * 37 + writer as usize) % 400)
        .into_bytes()
}

/// What the process that is killed runs; passes at once in an ordinary run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let opened = Opened::at(config(Path::new(&dir), CHANGES)).await;
    let writers = (0..WRITERS).map(|writer| {
        let store = opened.store.clone();
        async move {
            for step in 0.. {
                let key = format!("{round:03}/{writer:03}/{step:09}");
                let result = put(store.as_ref(), &key, value(round, writer, step))
                    .await
                    .unwrap();
                println!("\nack {writer} {step} {}", result.revision);
                if step % 500 == 499 {
                    // Another compaction may be ahead of this one.
                    drop(store.compact(result.revision - 100).await);
                }
            }
        }
    });
    futures::future::join_all(writers).await;
}

/// Lets a child write for `span`, kills it, and returns what it had been told.
fn reign(dir: &Path, round: u64, span: Duration) -> (BTreeMap<u64, u64>, i64) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut revision = 0;
    let mut deadline = None;
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(rest) = line.strip_prefix("ack ") else {
            continue;
        };
        let numbers: Vec<u64> = rest.split(' ').map_while(|n| n.parse().ok()).collect();
        // The pipe may end within a line.
        if let [writer, step, at] = numbers[..]
            && !killed
        {
            acknowledged.insert(writer, step);
            revision = revision.max(at as i64);
        }
        let deadline = deadline.get_or_insert(Instant::now() + span);
        if Instant::now() >= *deadline && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(
        !child.wait().unwrap().success(),
        "the child ended by itself"
    );
    (acknowledged, revision)
}

#[tokio::test]
async fn no_acknowledged_write_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = Vec::new();
    for round in 0..ROUNDS {
        let span = Duration::from_millis((round * 7_919 + 13) % 400);
        let (acknowledged, revision) = reign(dir.path(), round, span);
        assert!(!acknowledged.is_empty(), "round {round} wrote nothing");
        history.push(acknowledged);
        let opened = Opened::at(config(dir.path(), CHANGES)).await;
        assert!(opened.store.revision() >= revision);
        verify(&opened, &history).await;
        opened.close().await;
    }
}

async fn verify(opened: &Opened, history: &[BTreeMap<u64, u64>]) {
    for (round, acknowledged) in history.iter().enumerate() {
        for (writer, last) in acknowledged {
            let keys = KeyRange::prefix(format!("{round:03}/{writer:03}/"));
            let found = opened.store.range(Range::all(keys)).await.unwrap();
            assert!(
                found.kvs.len() as u64 > *last,
                "round {round} writer {writer}"
            );
            assert!(
                found.kvs.len() as u64 <= last + 200,
                "writes out of nothing"
            );
            for (step, kv) in found.kvs.iter().enumerate() {
                assert_eq!(kv.key, format!("{round:03}/{writer:03}/{step:09}"));
                assert_eq!(kv.value, value(round as u64, *writer, step as u64));
            }
        }
    }
}
