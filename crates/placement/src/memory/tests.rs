//! The memory manager over lives of pods and of processes.

use super::*;
use crate::machine::tests::machine;

const GI: i64 = 1 << 30;

/// Two nodes of 8 GiB, of which 1 GiB are huge pages and 1 GiB is reserved on the first.
fn config() -> MemoryConfig {
    let reserved = Amounts::from([("memory".to_owned(), GI)]);
    MemoryConfig {
        exclusive: true,
        reserved: BTreeMap::from([(0, reserved.clone())]),
        reserved_in_all: reserved,
    }
}

fn open(folder: &Path) -> Memory {
    Memory::open(config(), &machine(2, 4), folder).unwrap()
}

fn container(name: &str, role: Role, memory: i64) -> ContainerWish {
    ContainerWish {
        name: name.into(),
        role,
        milli_cpus: 0,
        memory: Amounts::from([("memory".to_owned(), memory)]),
        extended: BTreeMap::new(),
    }
}

fn pod(uid: &str, containers: Vec<ContainerWish>) -> PodWish {
    PodWish {
        uid: uid.into(),
        guaranteed: true,
        pod_level: false,
        containers,
    }
}

fn simple(uid: &str, memory: i64) -> PodWish {
    pod(uid, vec![container("main", Role::Main, memory)])
}

fn give(memory: &mut Memory, pod: &PodWish, affinity: Option<Mask>) -> Result<(), String> {
    let mut all = pod.containers.iter();
    all.try_for_each(|one| memory.allocate(pod, one, affinity, false))
}

fn shown(memory: &Memory, uid: &str) -> Option<String> {
    memory.nodes_of(uid, "main").map(|nodes| nodes.to_string())
}

#[test]
fn memory_is_given_from_the_fewest_nodes_also_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut memory = open(folder.path());
    assert_eq!(
        memory
            .allocatable()
            .iter()
            .map(|one| (one.nodes[0], one.kind.as_str(), one.size / GI))
            .collect::<Vec<_>>(),
        [
            (0, "hugepages-2Mi", 1),
            (0, "memory", 6),
            (1, "hugepages-2Mi", 1),
            (1, "memory", 7)
        ]
    );
    give(&mut memory, &simple("a", 5 * GI), None).unwrap();
    give(&mut memory, &simple("b", 5 * GI), None).unwrap();
    assert_eq!(
        (shown(&memory, "a"), shown(&memory, "b")),
        (Some("0".into()), Some("1".into()))
    );
    let burstable = PodWish {
        guaranteed: false,
        ..simple("c", 5 * GI)
    };
    give(&mut memory, &burstable, None).unwrap();
    assert_eq!(shown(&memory, "c"), None);
    // Nodes that give alone do not give in groups.
    assert_eq!(
        give(&mut memory, &simple("d", 3 * GI), None).unwrap_err(),
        "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory \
         is available"
    );
    drop(memory);
    let mut memory = open(folder.path());
    assert_eq!(shown(&memory, "b"), Some("1".into()));
    memory.retain(|_| false);
    give(&mut memory, &simple("e", 12 * GI), None).unwrap();
    assert_eq!(shown(&memory, "e"), Some("0-1".into()));
    // The first node has nothing left; its group has.
    give(&mut memory, &simple("f", GI), Some(Mask::of([0]))).unwrap();
    assert_eq!(shown(&memory, "f"), Some("0-1".into()));
    assert!(give(&mut memory, &simple("g", GI), Some(Mask::of([0]))).is_err());
    memory.retain(|_| false);
    let fresh = Nodes::of_machine(&machine(2, 4), &config().reserved);
    assert_eq!(memory.nodes, fresh);
    // Another policy must not forget who has what, nor another machine.
    let none = Memory::open(MemoryConfig::default(), &machine(2, 4), folder.path());
    let refused = none.unwrap_err().to_string();
    assert!(
        refused.contains("differs from state checkpoint policy"),
        "{refused}"
    );
    let smaller = Memory::open(config(), &machine(1, 4), folder.path());
    let refused = smaller.unwrap_err().to_string();
    assert!(
        refused.contains("the expected machine state is different"),
        "{refused}"
    );
}

#[test]
fn init_containers_leave_their_memory_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut memory = open(folder.path());
    let pod = pod(
        "a",
        vec![
            container("first", Role::Init, 4 * GI),
            container("proxy", Role::Sidecar, GI),
            container("main", Role::Main, 4 * GI),
        ],
    );
    give(&mut memory, &pod, Some(Mask::of([1]))).unwrap();
    let free = memory
        .nodes
        .sum(Mask::of([1]), "memory", |table| table.free);
    assert_eq!(free, 2 * GI);
    let size = |name: &str| memory.of_container("a", name)[0].size / GI;
    assert_eq!((size("first"), size("proxy"), size("main")), (0, 1, 4));
    memory.retain(|_| false);
    let free = memory
        .nodes
        .sum(Mask::of([1]), "memory", |table| table.free);
    assert_eq!(free, 7 * GI);
}

#[test]
fn hints_know_what_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let mut memory = open(folder.path());
    let of = |memory: &Memory, amount: i64| {
        let pod = simple("x", amount);
        let hints = memory.hints(&pod, &pod.containers[0]);
        let list = hints.get("memory").cloned().flatten().unwrap_or_default();
        let all = list
            .iter()
            .map(|hint| (hint.affinity.unwrap(), hint.preferred));
        all.collect::<Vec<_>>()
    };
    let (one, other, both) = (Mask::of([0]), Mask::of([1]), Mask::of([0, 1]));
    assert_eq!(of(&memory, GI), [(one, true), (other, true), (both, false)]);
    assert_eq!(of(&memory, 7 * GI), [(other, true), (both, false)]);
    assert_eq!(of(&memory, 13 * GI), [(both, true)]);
    assert_eq!(of(&memory, 14 * GI), []);
    give(&mut memory, &simple("b", 2 * GI), Some(other)).unwrap();
    assert_eq!(of(&memory, 6 * GI), [(one, true)]);
}

#[test]
fn the_reservation_must_be_the_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |config: MemoryConfig| {
        let opened = Memory::open(config, &machine(2, 4), folder.path());
        opened.unwrap_err().to_string()
    };
    let unequal = MemoryConfig {
        reserved_in_all: Amounts::from([("memory".to_owned(), 2 * GI)]),
        ..config()
    };
    assert_eq!(
        refused(unequal),
        "the total amount \"1073741824\" of type \"memory\" is not equal to the value \
         \"2147483648\" determined by Node Allocatable feature"
    );
    let elsewhere = MemoryConfig {
        reserved: BTreeMap::from([(5, config().reserved_in_all)]),
        ..config()
    };
    assert!(refused(elsewhere).contains("NUMA node 5 that does not exist"));
    let nothing = MemoryConfig {
        exclusive: true,
        ..MemoryConfig::default()
    };
    assert!(refused(nothing).contains("you should specify the system reserved memory"));
}
