//! `GET /containers/{id}/top`: the machine's `ps`, narrowed to one container.

use serde_json::json;
use tokio::process::Command;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;

pub(crate) async fn top(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let inner = container.inner()?;
    let wish = match call.query.text("ps_args") {
        "" => "-ef",
        wish => wish,
    };
    let pids = call.daemon.engine.container_processes(&inner)?;
    let output = Command::new("ps")
        .args(wish.split_whitespace())
        .output()
        .await;
    let output = output.map_err(|error| Fault::internal(format!("running ps: {error}")))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::bad(format!("Error running ps: {words}")));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let titles: Vec<String> = words(lines.next().unwrap_or_default());
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(Fault::bad("Couldn't find PID field in ps output"));
    };
    let row = |line: &str| -> Option<Vec<String>> {
        let mut fields = words(line);
        let pid: i32 = fields.get(column)?.parse().ok()?;
        if !pids.contains(&pid) {
            return None;
        }
        // The last column may hold spaces.
        if fields.len() > titles.len() {
            let rest = fields.split_off(titles.len() - 1).join(" ");
            fields.push(rest);
        }
        Some(fields)
    };
    let rows: Vec<Vec<String>> = lines.filter_map(row).collect();
    answer::ok(&json!({"Titles": titles, "Processes": rows}))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
