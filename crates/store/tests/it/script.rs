//! Scripts in `testdata/*.txt`: commands behind `> `, below each its answer.
//! `UPDATE=1` rewrites the answers. Every script runs twice: with everything
//! in memory, and with a checkpoint after every change.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use store::{
    Compare, EventKind, KeyRange, KeyValue, Op, OpResult, Order, Range, RangeResult, StoreError,
    Txn, TxnResult, WatchStream,
};

use super::{Opened, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_answer_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let update = std::env::var_os("UPDATE").is_some();
    let mut scripts = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let recorded = std::fs::read_to_string(&path).unwrap();
        let in_memory = play(&recorded, 10_000).await;
        if update {
            std::fs::write(&path, &in_memory).unwrap();
        } else {
            assert_eq!(recorded, in_memory, "{}", path.display());
        }
        assert_eq!(
            in_memory,
            play(&recorded, 1).await,
            "{} on disk",
            path.display()
        );
        scripts += 1;
    }
    assert!(scripts > 3, "{scripts} scripts found");
}

async fn play(script: &str, checkpoint_changes: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), checkpoint_changes);
    let mut opened = Opened::at(config.clone()).await;
    let mut watches = BTreeMap::new();
    let mut trace = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(trace, "{line}").unwrap();
            if command == "reopen" {
                watches.clear();
                opened.close().await;
                opened = Opened::at(config.clone()).await;
                continue;
            }
            let answer = match run(&opened, &mut watches, command).await {
                Ok(answer) => answer,
                Err(error) => format!("error: {error}\n"),
            };
            trace.push_str(&answer);
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(trace, "{line}").unwrap();
        }
    }
    watches.clear();
    opened.close().await;
    trace
}

async fn run(
    opened: &Opened,
    watches: &mut BTreeMap<String, WatchStream>,
    command: &str,
) -> Result<String, StoreError> {
    let store = &opened.store;
    let mut words = Words(command.split_whitespace().peekable());
    let number = |words: &mut Words| words.word().parse::<i64>().unwrap();
    Ok(match words.word() {
        "rev" => format!("revision {}\n", store.revision()),
        "compact" => {
            store.compact(number(&mut words)).await?;
            "compacted\n".to_owned()
        }
        "grant" => {
            let (id, ttl) = (number(&mut words), number(&mut words));
            format!("lease {}\n", store.lease_grant(id, ttl).await?)
        }
        "revoke" => {
            store.lease_revoke(number(&mut words)).await?;
            format!("revoked, revision {}\n", store.revision())
        }
        "keepalive" => format!(
            "ttl {}\n",
            store.lease_keep_alive(number(&mut words)).await?
        ),
        "lease" => {
            let status = store.lease_status(number(&mut words)).await?;
            format!(
                "granted {} keys {:?}\n",
                status.ttl_seconds_granted, status.keys
            )
        }
        "leases" => format!("{:?}\n", store.leases().await?),
        "watch" => {
            let name = words.word().to_owned();
            let keys = words.keys();
            let from = words.option("from").unwrap_or(0);
            watches.insert(name, store.watch(keys, from).await?);
            String::new()
        }
        "events" => events(opened, watches.get_mut(words.word()).unwrap()).await?,
        "get" => shown_range(&store.range(words.range()).await?, ""),
        "txn" => shown_txn(&store.txn(words.txn()).await?, ""),
        _ => {
            words = Words(command.split_whitespace().peekable());
            let success = vec![words.op()];
            let txn = Txn {
                success,
                ..Txn::default()
            };
            shown_txn(&store.txn(txn).await?, "")
        }
    })
}

/// Reads a watch until it has seen the newest revision.
async fn events(opened: &Opened, watch: &mut WatchStream) -> Result<String, StoreError> {
    let mut trace = String::new();
    opened.store.request_progress();
    loop {
        let quiet = std::time::Duration::from_millis(300);
        let Ok(batch) = tokio::time::timeout(quiet, watch.next()).await else {
            return Ok(trace);
        };
        let Some(batch) = batch else {
            return Ok(trace + "end\n");
        };
        let batch = batch?;
        for event in batch.events {
            let kind = match event.kind {
                EventKind::Put => "put",
                EventKind::Delete => "delete",
            };
            let prev = event.prev_kv.as_ref().map_or("none".to_owned(), shown);
            writeln!(trace, "{kind} {} prev {prev}", shown(&event.kv)).unwrap();
        }
        if batch.revision >= opened.store.revision() {
            return Ok(trace);
        }
    }
}

fn shown(kv: &KeyValue) -> String {
    let KeyValue {
        create_revision,
        mod_revision,
        version,
        lease,
        ..
    } = kv;
    let (key, value) = (text(&kv.key), text(&kv.value));
    let lease = match lease {
        0 => String::new(),
        lease => format!(" lease {lease}"),
    };
    format!("{key}={value} c{create_revision} m{mod_revision} v{version}{lease}")
}

fn shown_range(result: &RangeResult, indent: &str) -> String {
    let more = if result.more { " more" } else { "" };
    let mut trace = format!(
        "{indent}count {} at {}{more}\n",
        result.count, result.revision
    );
    for kv in &result.kvs {
        writeln!(trace, "{indent}  {}", shown(kv)).unwrap();
    }
    trace
}

fn shown_txn(result: &TxnResult, indent: &str) -> String {
    let branch = if result.succeeded { "then" } else { "else" };
    let mut trace = format!("{indent}{branch}, revision {}\n", result.revision);
    let deeper = format!("{indent}  ");
    for one in &result.results {
        match one {
            OpResult::Range(range) => trace.push_str(&shown_range(range, &deeper)),
            OpResult::Put { prev_kv: None } => {}
            OpResult::Put { prev_kv: Some(kv) } => {
                writeln!(trace, "{deeper}prev {}", shown(kv)).unwrap();
            }
            OpResult::Delete { deleted, prev_kvs } => {
                writeln!(trace, "{deeper}deleted {deleted}").unwrap();
                for kv in prev_kvs {
                    writeln!(trace, "{deeper}prev {}", shown(kv)).unwrap();
                }
            }
            OpResult::Txn(txn) => trace.push_str(&shown_txn(txn, &deeper)),
        }
    }
    trace
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn word(&mut self) -> &'a str {
        self.0.next().expect("the command ends too early")
    }

    fn bytes(&mut self) -> Bytes {
        self.word().to_owned().into()
    }

    /// Takes `wanted` if it comes next.
    fn flag(&mut self, wanted: &str) -> bool {
        self.0.next_if(|word| *word == wanted).is_some()
    }

    /// Takes `name=number` if it comes next.
    fn option(&mut self, name: &str) -> Option<i64> {
        let is_it = |word: &&str| word.split_once('=').is_some_and(|(left, _)| left == name);
        let word = self.0.next_if(is_it)?;
        word.split_once('=')
            .map(|(_, right)| right.parse().unwrap())
    }

    /// `key`, `prefix*`, `from..to` or `from..`.
    fn keys(&mut self) -> KeyRange {
        let word = self.word().to_owned();
        if let Some(prefix) = word.strip_suffix('*') {
            return KeyRange::prefix(prefix.to_owned());
        }
        match word.split_once("..") {
            Some((start, "")) => KeyRange::From(start.to_owned().into()),
            Some((start, end)) => KeyRange::Span(start.to_owned().into(), end.to_owned().into()),
            None => KeyRange::One(word.into()),
        }
    }

    fn range(&mut self) -> Range {
        let mut range = Range::all(self.keys());
        range.revision = self.option("rev").unwrap_or(0);
        range.limit = self.option("limit").unwrap_or(0) as usize;
        range.keys_only = self.flag("keys");
        range.count_only = self.flag("count");
        range
    }

    fn op(&mut self) -> Op {
        match self.word() {
            "put" => Op::Put {
                key: self.bytes(),
                value: self.bytes(),
                lease: self.option("lease").unwrap_or(0),
                prev_kv: self.flag("prev"),
            },
            "delete" => Op::Delete {
                keys: self.keys(),
                prev_kv: self.flag("prev"),
            },
            "get" => Op::Range(self.range()),
            "(" => {
                let txn = self.txn();
                assert!(self.flag(")"));
                Op::Txn(txn)
            }
            other => panic!("unknown word {other}"),
        }
    }

    /// `if <field> <key> <order> <operand> ... then <op> ... else <op> ...`
    fn txn(&mut self) -> Txn {
        let mut txn = Txn::default();
        while self.flag("if") {
            txn.compare.push(self.compare());
        }
        for (word, branch) in [("then", &mut txn.success), ("else", &mut txn.failure)] {
            if self.flag(word) {
                while self
                    .0
                    .peek()
                    .is_some_and(|next| !["else", ")"].contains(next))
                {
                    branch.push(self.op());
                }
            }
        }
        txn
    }

    fn compare(&mut self) -> Compare {
        let field = self.word();
        let key = self.bytes();
        let order = match self.word() {
            "=" => Order::Equal,
            "!=" => Order::NotEqual,
            "<" => Order::Less,
            ">" => Order::Greater,
            other => panic!("unknown order {other}"),
        };
        let operand = self.word();
        let number = || operand.parse().unwrap();
        match field {
            "mod" => Compare::ModRevision(key, order, number()),
            "create" => Compare::CreateRevision(key, order, number()),
            "version" => Compare::Version(key, order, number()),
            "lease" => Compare::Lease(key, order, number()),
            "value" => Compare::Value(key, order, operand.to_owned().into()),
            other => panic!("unknown field {other}"),
        }
    }
}
