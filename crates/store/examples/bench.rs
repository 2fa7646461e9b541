//! Prints how many durable puts and reads per second the store does, beside
//! Debian's etcd 3.4 when `etcd` is on the path.
//!
//! `cargo run --release --example bench -p store [folder]`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Crew;
use futures::StreamExt;
use store::{Compare, Config, KeyRange, Op, Order, Range, Store, Txn};

const VALUE_BYTES: usize = 1_024;
const SPAN: Duration = Duration::from_secs(3);
const REOPEN: &str = "--reopen";

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if std::env::args().nth(1).as_deref() == Some(REOPEN) {
        let dir = std::env::args_os().nth(2).ok_or("no folder given")?;
        return reopen(Path::new(&dir)).await;
    }
    let root = std::env::args_os().nth(1).map(PathBuf::from);
    let root = root.unwrap_or_else(std::env::temp_dir);
    let root = root.join(format!("store-bench-{}", std::process::id()));
    let measured = measure(&root).await;
    std::fs::remove_dir_all(&root)?;
    measured
}

async fn measure(root: &Path) -> Result<(), Failure> {
    for writers in [1, 64] {
        let (crew, store) = open(&root.join(format!("store-{writers}"))).await?;
        let rate = creates(&store, writers, 0).await?;
        tell(&format!("store, {writers} writers"), rate);
        tell("  objects", store.revision() as f64);
        tell("  resident, MB", resident()?);
        close(crew, store).await?;
    }
    let (crew, store) = open(&root.join("store-watch")).await?;
    for _ in 0..60 {
        follow(&crew, &store).await?;
    }
    tell(
        "store, 64 writers, 60 watches",
        creates(&store, 64, 0).await?,
    );
    close(crew, store).await?;
    large(&root.join("store-large")).await?;
    etcd(&root.join("etcd"))
}

async fn open(dir: &Path) -> Result<(Crew, Arc<dyn Store>), Failure> {
    let crew = Crew::new();
    let config = Config {
        dir: dir.to_owned(),
        ..Config::default()
    };
    let store = store::open(config, &crew).await?;
    Ok((crew, store))
}

async fn close(crew: Crew, store: Arc<dyn Store>) -> Result<(), Failure> {
    crew.stop().raise();
    drop(store);
    Ok(crew.finished().await?)
}

/// Creates objects as an API server does; returns how many per second. Runs
/// for [`SPAN`], or until there are `most`.
async fn creates(store: &Arc<dyn Store>, writers: usize, most: usize) -> Result<f64, Failure> {
    let began = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0_usize;
            while (most == 0 && began.elapsed() < SPAN) || done < most / writers {
                let key = bytes::Bytes::from(format!("/registry/configmaps/{writer:03}/{done:09}"));
                let put = Op::Put {
                    key: key.clone(),
                    value: vec![b'v'; VALUE_BYTES].into(),
                    lease: 0,
                    prev_kv: false,
                };
                let txn = Txn {
                    compare: vec![Compare::ModRevision(key, Order::Equal, 0)],
                    success: vec![put],
                    failure: Vec::new(),
                };
                if !store.txn(txn).await?.succeeded {
                    return Err(Failure::from("a key existed already"));
                }
                done += 1;
            }
            Ok(done)
        })
    });
    let mut sum = 0;
    for task in tasks.collect::<Vec<_>>() {
        sum += task.await??;
    }
    Ok(sum as f64 / began.elapsed().as_secs_f64())
}

async fn follow(crew: &Crew, store: &Arc<dyn Store>) -> Result<(), Failure> {
    let mut watch = store.watch(KeyRange::prefix("/registry/"), 0).await?;
    crew.spawn("watch", async move {
        while let Some(Ok(_)) = watch.next().await {}
    });
    Ok(())
}

/// 100,000 objects: memory, counting, listing, restart.
async fn large(dir: &Path) -> Result<(), Failure> {
    let (crew, store) = open(dir).await?;
    creates(&store, 64, 100_000).await?;
    let began = Instant::now();
    let page = Range {
        limit: 500,
        ..Range::all(KeyRange::prefix("/registry/"))
    };
    let page = store.range(page).await?;
    tell_time(&format!("page of 500 of {}", page.count), began);
    let began = Instant::now();
    let all = store
        .range(Range::all(KeyRange::prefix("/registry/")))
        .await?;
    tell_time(&format!("list of {}", all.kvs.len()), began);
    drop(all);
    let began = Instant::now();
    close(crew, store).await?;
    tell_time("close", began);
    // In a process of its own, so that its memory is the store's alone.
    let me = std::env::current_exe()?;
    Command::new(me).arg(REOPEN).arg(dir).status()?;
    Ok(())
}

async fn reopen(dir: &Path) -> Result<(), Failure> {
    tell("resident before restart, MB", resident()?);
    let began = Instant::now();
    let (crew, store) = open(dir).await?;
    tell_time("restart", began);
    tell("resident after restart, MB", resident()?);
    let began = Instant::now();
    store.compact(store.revision()).await?;
    tell_time("compact", began);
    close(crew, store).await
}

fn resident() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or("0")
        .parse()?;
    Ok(kib / 1_024.0)
}

/// The same puts against etcd through its JSON gateway: its HTTP layer is in
/// the figure, so read it as a floor.
fn etcd(dir: &Path) -> Result<(), Failure> {
    const CLIENT: &str = "127.0.0.1:23790";
    let started = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen-client-urls", "http://127.0.0.1:23790"])
        .args(["--advertise-client-urls", "http://127.0.0.1:23790"])
        .args(["--listen-peer-urls", "http://127.0.0.1:23791"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        return Ok(());
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while etcd_puts(CLIENT, 0, 1).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    for writers in [1, 64] {
        let began = Instant::now();
        let threads = (0..writers).map(|writer| {
            std::thread::spawn(move || {
                let mut done = 0;
                while began.elapsed() < SPAN {
                    done += etcd_puts(CLIENT, writer, 50)?;
                }
                Ok::<usize, Failure>(done)
            })
        });
        let mut sum = 0;
        for thread in threads.collect::<Vec<_>>() {
            sum += thread.join().map_err(|_| "a client panicked")??;
        }
        let rate = sum as f64 / began.elapsed().as_secs_f64();
        tell(&format!("etcd over HTTP, {writers} writers"), rate);
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// `count` puts over one connection.
fn etcd_puts(address: &str, writer: usize, count: usize) -> Result<usize, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    // Both are base64: any letters will do.
    let value = "dmFs".repeat(VALUE_BYTES / 3);
    let mut answer = vec![0; 4_096];
    for step in 0..count {
        let body = format!(r#"{{"key":"{writer:04}{step:08}","value":"{value}"}}"#);
        let head = format!(
            "POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        let read = stream.read(&mut answer)?;
        if !answer[..read].starts_with(b"HTTP/1.1 200") {
            return Err("etcd refused a put".into());
        }
    }
    Ok(count)
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn tell(name: &str, figure: f64) {
    println!("{name:<32} {figure:>10.0}");
}

fn tell_time(name: &str, began: Instant) {
    tell(&format!("{name}, ms"), began.elapsed().as_secs_f64() * 1e3);
}
