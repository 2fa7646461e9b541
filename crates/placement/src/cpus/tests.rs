//! The CPU manager over lives of pods and of processes.

use super::*;
use crate::machine::tests::machine;

fn config() -> CpuConfig {
    CpuConfig {
        exclusive: true,
        reserved: CpuSet::parse("0").unwrap(),
        ..CpuConfig::default()
    }
}

fn container(name: &str, role: Role, milli_cpus: i64) -> ContainerWish {
    ContainerWish {
        name: name.into(),
        role,
        milli_cpus,
        memory: BTreeMap::new(),
        extended: BTreeMap::new(),
    }
}

fn pod(uid: &str, milli_cpus: i64) -> PodWish {
    PodWish {
        uid: uid.into(),
        guaranteed: true,
        pod_level: false,
        containers: vec![container("main", Role::Main, milli_cpus)],
    }
}

fn give(cpus: &mut Cpus, pod: &PodWish, affinity: Option<Mask>) -> Result<(), NoCpus> {
    let machine = machine(2, 4);
    let mut all = pod.containers.iter();
    all.try_for_each(|one| cpus.allocate(&machine, pod, one, affinity))
}

fn shown(cpus: &Cpus, uid: &str, container: &str) -> String {
    cpus.of_container(uid, container).unwrap().to_string()
}

#[test]
fn whole_processors_are_had_alone_also_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(2, 4);
    let mut cpus = Cpus::open(config(), &machine, Policy::None, folder.path()).unwrap();
    give(&mut cpus, &pod("a", 2_000), None).unwrap();
    give(&mut cpus, &pod("b", 1_500), None).unwrap();
    let burstable = PodWish {
        guaranteed: false,
        ..pod("c", 2_000)
    };
    give(&mut cpus, &burstable, None).unwrap();
    assert_eq!(shown(&cpus, "a", "main"), "1,9");
    assert_eq!(shown(&cpus, "b", "main"), "0,2-8,10-15");
    assert_eq!(shown(&cpus, "c", "main"), "0,2-8,10-15");
    drop(cpus);
    let mut cpus = Cpus::open(config(), &machine, Policy::None, folder.path()).unwrap();
    assert_eq!(shown(&cpus, "a", "main"), "1,9");
    give(&mut cpus, &pod("d", 8_000), Some(Mask::of([1]))).unwrap();
    assert_eq!(shown(&cpus, "d", "main"), "4-7,12-15");
    assert_eq!(
        give(&mut cpus, &pod("e", 6_000), None).unwrap_err(),
        NoCpus::Other(
            "not enough cpus available to satisfy request: requested=6, available=5".into()
        )
    );
    assert!(cpus.retain(|uid| uid != "d"));
    assert_eq!(shown(&cpus, "x", "y"), "0,2-8,10-15");
    // Another policy must not forget who has what.
    let refused =
        Cpus::open(CpuConfig::default(), &machine, Policy::None, folder.path()).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("differs from state checkpoint policy"),
        "{refused}"
    );
    let smaller = super::super::machine::tests::machine(1, 4);
    assert!(Cpus::open(config(), &smaller, Policy::None, folder.path()).is_err());
}

#[test]
fn init_containers_leave_their_processors_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut cpus = Cpus::open(config(), &machine(2, 4), Policy::None, folder.path()).unwrap();
    let pod = PodWish {
        containers: vec![
            container("first", Role::Init, 4_000),
            container("proxy", Role::Sidecar, 2_000),
            container("main", Role::Main, 2_000),
        ],
        ..pod("a", 0)
    };
    give(&mut cpus, &pod, None).unwrap();
    let first = cpus.exclusive("a", "first").unwrap();
    let (proxy, main) = (
        cpus.exclusive("a", "proxy").unwrap(),
        cpus.exclusive("a", "main").unwrap(),
    );
    assert!(proxy.is_disjoint(&main));
    assert_eq!((proxy.len(), main.len()), (2, 2));
    assert_eq!(first.len(), 4);
    cpus.retain(|_| false);
    assert_eq!(shown(&cpus, "a", "main"), "0-15");
}

#[test]
fn full_cores_only_refuses_halves() {
    let folder = tempfile::tempdir().unwrap();
    let strict = CpuConfig {
        full_cores_only: true,
        strict_reservation: true,
        ..config()
    };
    let mut cpus = Cpus::open(strict, &machine(2, 4), Policy::None, folder.path()).unwrap();
    assert_eq!(shown(&cpus, "a", "main"), "1-15");
    let refused = |cpus: &mut Cpus, count| match give(cpus, &pod("a", count), None) {
        Err(NoCpus::Alignment(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(&mut cpus, 3_000),
        "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2"
    );
    assert_eq!(
        refused(&mut cpus, 16_000),
        "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 14, requested CPUs = 16, CPUs per core = 2"
    );
}

#[test]
fn hints_know_what_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(2, 4);
    let mut cpus = Cpus::open(config(), &machine, Policy::None, folder.path()).unwrap();
    let of = |cpus: &Cpus, count: i64| {
        let pod = pod("a", count);
        let hints = cpus.hints(&machine, &pod, &pod.containers[0]);
        let list = hints["cpu"].clone().unwrap();
        let all = list
            .iter()
            .map(|hint| (hint.affinity.unwrap(), hint.preferred));
        all.collect::<Vec<_>>()
    };
    let (one, other, both) = (Mask::of([0]), Mask::of([1]), Mask::of([0, 1]));
    assert_eq!(
        of(&cpus, 4_000),
        [(one, true), (other, true), (both, false)]
    );
    assert_eq!(of(&cpus, 8_000), [(other, true), (both, false)]);
    assert_eq!(of(&cpus, 9_000), [(both, true)]);
    give(&mut cpus, &pod("b", 8_000), Some(other)).unwrap();
    assert_eq!(of(&cpus, 4_000), [(one, true), (both, false)]);
    assert_eq!(of(&cpus, 15_000), []);
}

#[test]
fn nodes_of_one_socket_are_near_enough_where_that_is_asked_for() {
    // Two sockets of two nodes of four cores.
    let mut whole = machine(4, 4);
    for cpu in whole.cpus.values_mut() {
        cpu.socket = cpu.node / 2;
    }
    let folder = tempfile::tempdir().unwrap();
    let by_socket = CpuConfig {
        align_by_socket: true,
        ..config()
    };
    let open = |policy| Cpus::open(by_socket.clone(), &whole, policy, folder.path());
    assert!(open(Policy::SingleNumaNode).is_err());
    let mut cpus = open(Policy::Restricted).unwrap();
    // Seven of node 0 are free: one comes from its neighbour.
    let wish = pod("a", 8_000);
    let hints = cpus.hints(&whole, &wish, &wish.containers[0]);
    let preferred: Vec<Mask> = hints["cpu"]
        .iter()
        .flatten()
        .filter(|hint| hint.preferred)
        .filter_map(|hint| hint.affinity)
        .collect();
    let expected = [[1].as_slice(), &[2], &[3], &[0, 1], &[2, 3]];
    let expected = expected.map(|nodes| Mask::of(nodes.iter().copied()));
    assert_eq!(preferred, expected);
    let near = Some(Mask::of([0]));
    let given = cpus.allocate(&whole, &wish, &wish.containers[0], near);
    given.unwrap();
    let held = cpus.exclusive("a", "main").unwrap();
    assert!(held.iter().all(|id| whole.cpus[&id].socket == 0), "{held}");
}
