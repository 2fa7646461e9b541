use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, World, object, request};

fn quota(name: &str, spec: Value, used: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec,
        "status": {"hard": spec["hard"], "used": used}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}})
}

fn create(plugin: &ResourceQuota, world: &World, pod: Value) -> Result<(), String> {
    let pod = object(pod);
    let asked = request(Operation::Create, "pods", pod.name());
    let judged = plugin.validate(&asked.borrow(), Some(&pod), world);
    judged.map_err(|status| status.message)
}

fn settle(plugin: &ResourceQuota, pod: Value, stored: bool) {
    let pod = object(pod);
    let asked = request(Operation::Create, "pods", pod.name());
    plugin.settled(&asked.borrow(), Some(&pod), stored);
}

/// Creates a pod as the API server does, cache included.
fn store(plugin: &ResourceQuota, world: &World, name: &str) -> Result<(), String> {
    create(plugin, world, pod(name))?;
    world.put("pods", pod(name));
    settle(plugin, pod(name), true);
    Ok(())
}

fn two_pods(used: Value) -> World {
    World::default().with(QUOTAS, quota("q", json!({"hard": {"pods": "2"}}), used))
}

#[test]
fn a_quota_holds_before_anybody_counts() {
    let (plugin, world) = (ResourceQuota::default(), two_pods(json!({})));
    for name in ["a", "b"] {
        assert_eq!(store(&plugin, &world, name), Ok(()), "{name}");
    }
    assert_eq!(
        create(&plugin, &world, pod("c")).unwrap_err(),
        "pods \"c\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
    );
}

#[test]
fn what_is_on_its_way_is_counted() {
    let (plugin, world) = (ResourceQuota::default(), two_pods(json!({"pods": "0"})));
    assert_eq!(create(&plugin, &world, pod("a")), Ok(()));
    assert_eq!(create(&plugin, &world, pod("b")), Ok(()));
    assert!(create(&plugin, &world, pod("c")).is_err());
    settle(&plugin, pod("a"), false);
    assert_eq!(create(&plugin, &world, pod("c")), Ok(()));
    assert!(create(&plugin, &world, pod("d")).is_err());
}

#[test]
fn a_late_status_neither_lets_in_nor_keeps_out() {
    let (plugin, world) = (ResourceQuota::default(), two_pods(json!({"pods": "0"})));
    for name in ["a", "b"] {
        store(&plugin, &world, name).unwrap();
    }
    assert!(create(&plugin, &world, pod("c")).is_err());
    // The controller counts, one pod goes, and its status is late again.
    world.put(
        QUOTAS,
        quota("q", json!({"hard": {"pods": "2"}}), json!({"pods": "2"})),
    );
    assert!(create(&plugin, &world, pod("c")).is_err());
    world.remove("pods", "default", "a");
    assert_eq!(store(&plugin, &world, "c"), Ok(()));
    assert!(create(&plugin, &world, pod("d")).is_err());
}

#[test]
fn after_a_restart_all_is_counted_again() {
    let world = two_pods(json!({"pods": "1"}))
        .with("pods", pod("a"))
        .with("pods", pod("b"));
    assert!(create(&ResourceQuota::default(), &world, pod("c")).is_err());
}

#[test]
fn many_writes_at_once_do_not_slip_through() {
    let plugin = ResourceQuota::default();
    let spec = json!({"hard": {"pods": "20"}});
    let world = World::default().with(QUOTAS, quota("q", spec, json!({"pods": "0"})));
    let worker = |number: usize| {
        let (plugin, world) = (&plugin, &world);
        move || {
            (0..50)
                .filter(|index| store(plugin, world, &format!("{number}-{index}")).is_ok())
                .count()
        }
    };
    let admitted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|number| scope.spawn(worker(number))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    assert_eq!(admitted, 20);
}

#[test]
fn dry_runs_cost_nothing() {
    let (plugin, world) = (ResourceQuota::default(), two_pods(json!({"pods": "1"})));
    world.put("pods", pod("a"));
    let object = object(pod("b"));
    let asked = Asked {
        dry_run: true,
        ..request(Operation::Create, "pods", "b")
    };
    for _ in 0..3 {
        assert_eq!(
            plugin.validate(&asked.borrow(), Some(&object), &world),
            Ok(())
        );
        plugin.settled(&asked.borrow(), Some(&object), false);
    }
    assert_eq!(create(&plugin, &world, pod("b")), Ok(()));
    assert!(create(&plugin, &world, pod("c")).is_err());
}

#[test]
fn objects_must_state_what_is_limited() {
    let spec = json!({"hard": {"limits.memory": "1Gi", "cpu": "3"}});
    let world = World::default().with(QUOTAS, quota("q", spec, json!({})));
    assert_eq!(
        create(&ResourceQuota::default(), &world, pod("a")).unwrap_err(),
        "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c"
    );
    let mut bare = pod("b");
    bare["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "1Gi"}});
    assert_eq!(
        create(&ResourceQuota::default(), &world, bare).unwrap_err(),
        "pods \"b\" is forbidden: failed quota: q: must specify cpu for: c"
    );
}

#[test]
fn all_that_is_exceeded_is_told() {
    let spec = json!({"hard": {"cpu": "1500m", "requests.cpu": "1", "pods": "9"}});
    let world = World::default()
        .with(QUOTAS, quota("q", spec, json!({})))
        .with("pods", pod("a"));
    assert_eq!(
        create(&ResourceQuota::default(), &world, pod("b")).unwrap_err(),
        "pods \"b\" is forbidden: exceeded quota: q, requested: cpu=1,requests.cpu=1, \
         used: cpu=1,requests.cpu=1, limited: cpu=1500m,requests.cpu=1"
    );
}

#[test]
fn scopes_choose_the_quota() {
    let spec = json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]});
    let world = World::default().with(QUOTAS, quota("q", spec, json!({"pods": "0"})));
    assert_eq!(create(&ResourceQuota::default(), &world, pod("a")), Ok(()));
    let mut idle = pod("b");
    idle["spec"]["containers"][0]["resources"] = json!({});
    assert!(create(&ResourceQuota::default(), &world, idle).is_err());
}

#[test]
fn updates_are_charged_by_their_growth() {
    let service = |revision: &str, kind: &str, ports: usize| {
        json!({"metadata": {"name": "s", "namespace": "default", "resourceVersion": revision},
            "spec": {"type": kind, "ports": vec![json!({}); ports]}})
    };
    let spec = json!({"hard": {"services": "1", "services.nodeports": "2"}});
    let world = World::default()
        .with(QUOTAS, quota("q", spec, json!({})))
        .with("services", service("1", "ClusterIP", 1));
    let plugin = ResourceQuota::default();
    let update = |kind: &str, ports: usize| {
        let mut asked = request(Operation::Update, "services", "s");
        asked.old = Some(object(service("1", "ClusterIP", 1)));
        let new = object(service("1", kind, ports));
        let judged = plugin.validate(&asked.borrow(), Some(&new), &world);
        plugin.settled(&asked.borrow(), Some(&new), false);
        judged.map_err(|status| status.message)
    };
    assert_eq!(update("NodePort", 2), Ok(()));
    assert_eq!(
        update("NodePort", 3).unwrap_err(),
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=3, \
         used: services.nodeports=0, limited: services.nodeports=2"
    );
}

#[test]
fn any_kind_can_be_counted() {
    let spec = json!({"hard": {"count/widgets.example.com": "0", "configmaps": "1"}});
    let world = World::default().with(QUOTAS, quota("q", spec, json!({})));
    let judge = |resource: &str| {
        let made = object(json!({"metadata": {"name": "x"}}));
        let asked = request(Operation::Create, resource, "x");
        let judged = ResourceQuota::default().validate(&asked.borrow(), Some(&made), &world);
        judged.map_err(|status| status.message)
    };
    assert_eq!(judge("configmaps"), Ok(()));
    assert_eq!(judge("events"), Ok(()));
    assert_eq!(judge("pods/binding"), Ok(()));
    assert_eq!(
        judge("widgets.example.com").unwrap_err(),
        "widgets.example.com \"x\" is forbidden: exceeded quota: q, requested: \
         count/widgets.example.com=1, used: count/widgets.example.com=0, limited: \
         count/widgets.example.com=0"
    );
}

#[test]
fn controllers_count_with_the_same_rules() {
    let spec = json!({"hard": {"pods": "5", "cpu": "4", "services": "1"}});
    let quota = object(quota("q", spec, json!({})));
    let pods = [object(pod("a")), object(pod("b"))];
    assert_eq!(shown(&used(&quota, "pods", &pods)), "cpu=2,pods=2");
    assert_eq!(shown(&used(&quota, "services", &[])), "services=0");
    assert_eq!(shown(&used(&quota, "secrets", &[])), "");
}
