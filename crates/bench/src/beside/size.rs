//! What many objects weigh in memory.

use std::time::Duration;

use anyhow::Result;

use super::compare::{Better, Comparison, Goal};
use super::load::{self, CLIENTS};
use super::side::Side;
use super::{Stage, split};

const OBJECTS: usize = 50_000;
const NAMESPACE: &str = "bench-fill";
const FILL_SPAN: Duration = Duration::from_secs(300);
/// Between the last write and the look at memory: what writes need must be given back by then.
const REST: Duration = Duration::from_secs(15);

/// Fills both sides up to [`OBJECTS`] and looks at their processes.
pub(super) async fn measure(stage: &mut Stage) -> Result<()> {
    let results = stage.each(async |side| {
        let client = side.client()?;
        load::namespace(&client, NAMESPACE).await?;
        let pods = count(side, "/api/v1/pods").await?;
        let missing = OBJECTS.saturating_sub(pods + count(side, "/api/v1/configmaps").await?);
        let path = load::config_maps(NAMESPACE);
        let access = side.access();
        let filled = load::run(&access, OBJECTS, FILL_SPAN, move |worker, at| {
            let number = at * CLIENTS + worker;
            (number < missing).then(|| load::make_config_map(&path, &format!("fill-{number:05}")))
        });
        anyhow::ensure!(
            filled.await?.count == missing,
            "not filled in {FILL_SPAN:?}"
        );
        tokio::time::sleep(REST).await;
        let each: Vec<f64> = side
            .memory()?
            .iter()
            .map(|memory| memory.resident as f64 / 1e6)
            .collect();
        Ok((each, pods))
    });
    let ((ours, pods), theirs) = split(results.await?)?;
    let sum = |each: &Vec<f64>| each.iter().sum::<f64>();
    let mut note = format!("{REST:?} after the last write; {pods} pods, the rest config maps");
    if let Some((each, _)) = &theirs {
        let each: Vec<String> = each.iter().map(|one| format!("{one:.0}")).collect();
        note += &format!("; theirs: etcd and kube-apiserver, {} MB", each.join(" + "));
    }
    let theirs = theirs.map(|(each, _)| sum(&each));
    let figure = Comparison::new(
        "memory at 50,000 objects (RSS)",
        "MB",
        Better::Less,
        sum(&ours),
        theirs,
    );
    stage.found.push(figure.goal(Goal::Times(5.0)).note(note));
    Ok(())
}

/// How many objects a collection has.
async fn count(side: &Side, path: &str) -> Result<usize> {
    let page = side.client()?.get_value(&format!("{path}?limit=1")).await?;
    let items = page["items"].as_array().map_or(0, Vec::len);
    let rest = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
    Ok(items + usize::try_from(rest)?)
}
