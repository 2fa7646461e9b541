//! Owners and dependents, over every way to delete.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn path(name: &str) -> String {
    format!("{MAPS}/{name}")
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

fn reference(owner: &Value, blocks: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
        "uid": uid(owner), "blockOwnerDeletion": blocks})
}

async fn make(world: &World, name: &str, owners: &[Value]) -> Value {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": owners}});
    world.post(MAPS, body).await
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let world = World::start().await;
    let owner = make(&world, "owner", &[]).await;
    let child = make(&world, "child", &[reference(&owner, false)]).await;
    make(&world, "grandchild", &[reference(&child, false)]).await;
    make(&world, "stranger", &[]).await;
    world.delete(&path("owner"), "Background").await;
    world.until_gone(&path("child")).await;
    world.until_gone(&path("grandchild")).await;
    assert!(world.get(&path("stranger")).await.is_some());
    world.stop().await;
}

#[tokio::test]
async fn an_owner_that_never_was_holds_nothing() {
    let world = World::start().await;
    let ghost = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost",
        "uid": "00000000-0000-0000-0000-000000000000"});
    let other = make(&world, "other", &[]).await;
    make(&world, "half", &[ghost.clone(), reference(&other, false)]).await;
    make(&world, "lost", std::slice::from_ref(&ghost)).await;
    let mut renamed = reference(&other, false);
    renamed["name"] = "another".into();
    make(&world, "renamed", &[renamed]).await;
    world.until_gone(&path("lost")).await;
    world.until_gone(&path("renamed")).await;
    let half = world
        .until(&path("half"), |half| {
            let owners = half.and_then(|half| half["metadata"]["ownerReferences"].as_array());
            owners.is_some_and(|owners| owners.len() == 1)
        })
        .await;
    assert_eq!(
        half["metadata"]["ownerReferences"][0]["uid"],
        other["metadata"]["uid"]
    );
    world.stop().await;
}

#[tokio::test]
async fn foreground_deletes_dependents_first() {
    let world = World::start().await;
    let owner = make(&world, "owner", &[]).await;
    let mut held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held",
        "ownerReferences": [reference(&owner, true)], "finalizers": ["example.com/wait"]}});
    held = world.post(MAPS, held).await;
    make(&world, "below", &[reference(&held, true)]).await;
    make(&world, "free", &[reference(&owner, false)]).await;
    world.delete(&path("owner"), "Foreground").await;
    world
        .until(&path("held"), |held| {
            held.is_some_and(|held| held["metadata"]["deletionTimestamp"].is_string())
        })
        .await;
    world.until_gone(&path("below")).await;
    assert!(
        world.get(&path("owner")).await.is_some(),
        "it waits for what blocks"
    );
    world
        .patch(
            &path("held"),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers":
        ["example.com/wait"]}}),
        )
        .await;
    world.until_gone(&path("held")).await;
    world.until_gone(&path("owner")).await;
    world.until_gone(&path("free")).await;
    world.stop().await;
}

#[tokio::test]
async fn orphans_go_on_alone() {
    let world = World::start().await;
    let owner = make(&world, "owner", &[]).await;
    make(&world, "child", &[reference(&owner, true)]).await;
    // The graph must know of the child before it can be let go.
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.delete(&path("owner"), "Orphan").await;
    world.until_gone(&path("owner")).await;
    let child = world.get(&path("child")).await.unwrap();
    assert_eq!(child["metadata"]["ownerReferences"], Value::Null);
    world.stop().await;
}

#[tokio::test]
async fn a_deployment_takes_all_below_it() {
    let world = World::start().await;
    let labels = json!({"app": "web"});
    world
        .post(
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"replicas": 3, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        )
        .await;
    let pods = "/api/v1/namespaces/default/pods";
    let count = |list: Option<&Value>| list.unwrap()["items"].as_array().map_or(0, Vec::len);
    world.until(pods, |list| count(list) == 3).await;
    world
        .delete(
            "/apis/apps/v1/namespaces/default/deployments/web",
            "Background",
        )
        .await;
    world.until(pods, |list| count(list) == 0).await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    world.until(sets, |list| count(list) == 0).await;
    world.stop().await;
}
