//! Configuration, waiting in time, borrowing; time is tokio's, paused.

use serde_json::json;

use super::*;

fn digest<'a>(user: &'a str, groups: &'a [String], verb: &'a str, resource: &'a str) -> Digest<'a> {
    Digest {
        user,
        groups,
        verb,
        is_resource: true,
        namespace: "default",
        resource,
        ..Digest::default()
    }
}

fn groups(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn way_of(fairness: &Fairness, digest: &Digest<'_>) -> (String, String) {
    let plan = fairness.plan();
    let way = plan
        .ways
        .iter()
        .find(|way| way.schema.matches(digest))
        .unwrap();
    (way.schema.name.clone(), way.room.name.clone())
}

#[tokio::test]
async fn defaults_classify_as_upstream_does() {
    let fairness = Fairness::new(600, Duration::from_secs(15));
    let all = groups(&["system:authenticated"]);
    let check = |digest: &Digest<'_>, schema: &str, level: &str| {
        assert_eq!(
            way_of(&fairness, digest),
            (schema.to_owned(), level.to_owned())
        );
    };
    check(
        &digest("jane", &all, "get", "pods"),
        "global-default",
        "global-default",
    );
    let masters = groups(&["system:masters", "system:authenticated"]);
    check(
        &digest("admin", &masters, "get", "pods"),
        "exempt",
        "exempt",
    );
    let nodes = groups(&["system:nodes", "system:authenticated"]);
    check(
        &digest("system:node:a", &nodes, "get", "pods"),
        "system-nodes",
        "system",
    );
    let status = Digest {
        subresource: "status",
        namespace: "",
        ..digest("system:node:a", &nodes, "patch", "nodes")
    };
    check(&status, "system-node-high", "node-high");
    let accounts = groups(&["system:serviceaccounts", "system:authenticated"]);
    let account = "system:serviceaccount:kube-system:x";
    let lease = Digest {
        group: "coordination.k8s.io",
        ..digest(account, &accounts, "update", "leases")
    };
    check(&lease, "system-leader-election", "leader-election");
    let list = digest(account, &accounts, "list", "pods");
    check(&list, "kube-system-service-accounts", "workload-high");
    let other = digest("system:serviceaccount:a:x", &accounts, "list", "pods");
    check(&other, "service-accounts", "workload-low");
    let probe = Digest {
        user: "system:anonymous",
        groups: &groups(&["system:unauthenticated"]),
        verb: "get",
        path: "/readyz",
        ..Digest::default()
    };
    check(&probe, "probes", "exempt");
    let text = fairness.metrics();
    let line = "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"system\"} 74\n";
    assert!(text.contains(line), "{text}");
}

fn level(name: &str, shares: u32, length: u32) -> serde_json::Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": shares, "lendablePercent": 50,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 8, "handSize": 2,
                "queueLengthLimit": length}}}}})
}

fn schema(name: &str, level: &str, user: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": {
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 10,
        "distinguisherMethod": {"type": "ByUser"}, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": user}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                "namespaces": ["*"]}]}]}})
}

#[tokio::test(start_paused = true)]
async fn requests_wait_and_are_refused_in_time() {
    let fairness = Fairness::new(15, Duration::from_secs(15));
    // Ten of fifteen shares, five are the catch-all's.
    let levels = [level("own", 10, 50)];
    fairness.configure(
        &[schema("mine", "own", "jane"), schema("lost", "none", "joe")],
        &levels,
    );
    let jane = digest("jane", &[], "get", "pods");
    let mut seats = Vec::new();
    for _ in 0..10 {
        seats.push(fairness.enter(&jane, |_| Work::default()).await.unwrap());
    }
    assert_eq!(
        (seats[0].schema_uid(), seats[0].level_uid()),
        ("uid-mine", "uid-own")
    );
    let begun = Instant::now();
    let refused = fairness
        .enter(&jane, |_| Work::default())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.reason, begun.elapsed().as_secs()),
        ("time-out", 15)
    );
    // One gives up, one gets the seat that is freed.
    let gone = fairness.enter(&jane, |_| Work::default());
    assert!(
        tokio::time::timeout(Duration::from_secs(1), gone)
            .await
            .is_err()
    );
    let free = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seats.pop();
    };
    let (seat, ()) = tokio::join!(fairness.enter(&jane, |_| Work::default()), free);
    drop(seat.unwrap());
    // A schema without a level is passed over.
    let joe = fairness
        .enter(&digest("joe", &[], "get", "pods"), |_| Work::default())
        .await;
    assert_eq!(joe.unwrap().level_uid(), "");
    let text = fairness.metrics();
    for line in [
        "current_executing_requests{flow_schema=\"mine\",priority_level=\"own\"} 9",
        "current_inqueue_requests{flow_schema=\"mine\",priority_level=\"own\"} 0",
        "rejected_requests_total{flow_schema=\"mine\",priority_level=\"own\",reason=\"time-out\"} 1",
        "dispatched_requests_total{flow_schema=\"mine\",priority_level=\"own\"} 11",
    ] {
        assert!(
            text.contains(&format!("apiserver_flowcontrol_{line}\n")),
            "{line} in {text}"
        );
    }
    assert!(
        fairness
            .dump_priority_levels()
            .contains("own, 0, false, false, 0, 9, 11, 0, 1, 0\n")
    );
    assert!(fairness.dump_queues().contains("own, 7, "));
    assert_eq!(fairness.dump_requests().lines().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_levels_lend_and_take_back() {
    let fairness = Fairness::new(45, Duration::from_secs(15));
    let schemas = [schema("a", "a", "jane"), schema("b", "b", "joe")];
    fairness.configure(&schemas, &[level("a", 20, 50), level("b", 20, 50)]);
    let jane = digest("jane", &[], "get", "pods");
    let mut seats = Vec::new();
    for _ in 0..20 {
        seats.push(fairness.enter(&jane, |_| Work::default()).await.unwrap());
    }
    // Thirty more want in; the other level is idle and lends half of its seats.
    let own = &fairness;
    let want = (0..8).map(|_| async move { own.enter(&jane, |_| Work::default()).await });
    let mut want: Vec<_> = want.map(Box::pin).collect();
    for one in &mut want {
        let soon = tokio::time::timeout(Duration::from_millis(1), one.as_mut());
        assert!(soon.await.is_err(), "twenty seats are all there are");
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    fairness.adjust();
    for one in want {
        seats.push(one.await.unwrap());
    }
    assert!(
        fairness
            .metrics()
            .contains("current_limit_seats{priority_level=\"b\"} 1")
    );
    drop(seats);
    // Nobody wants anything: after a while all are near their own.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        fairness.adjust();
    }
    let limits = *fairness.plan().rooms["b"].limits.lock();
    assert!(limits.current >= limits.least, "{limits:?}");
}
