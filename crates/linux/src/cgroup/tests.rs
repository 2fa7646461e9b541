//! Control groups by the kernel of this machine, and by texts of other ones.

use super::*;

const MIXED: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 30 0:28 / /elsewhere/memory rw - cgroup cgroup rw,memory
";

#[test]
fn the_mount_table_tells_which_controller_is_where() {
    let found = Hierarchies::from_mountinfo(MIXED);
    let folders: Vec<_> = found
        .0
        .iter()
        .map(|h| h.folder.display().to_string())
        .collect();
    assert_eq!(
        folders,
        [
            "/sys/fs/cgroup/cpu,cpuacct",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/unified"
        ]
    );
    let group = found.group("/a/b").unwrap();
    assert_eq!(
        group.v1("cpuacct").unwrap(),
        Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b")
    );
    assert!(group.v1("pids").is_none());
}

#[test]
fn paths_that_climb_are_refused() {
    for wrong in ["", "/", "/a/../b", "..", "a//b", "/a/./b"] {
        assert!(Hierarchies::default().group(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn without_version_2_the_freezer_stops_processes() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let old: Vec<&str> = table
        .lines()
        .filter(|line| !line.contains(" - cgroup2 "))
        .collect();
    let all = Hierarchies::from_mountinfo(&old.join("\n"));
    let group = all.group(&format!("/sampan-test-freezer-{}", std::process::id()));
    let group = group.unwrap();
    let Some(folder) = group.v1(FREEZER) else {
        // A machine of version 2 alone.
        return;
    };
    group.create().unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    group
        .join(Pid::from_raw(i32::try_from(child.id()).unwrap()))
        .unwrap();
    group.freeze(true).unwrap();
    let state = fs::read_to_string(folder.join("freezer.state")).unwrap();
    assert!(state.starts_with("FR"), "{state}");
    // Killing lets them go on, to their end.
    group.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    group.remove().unwrap();
}

#[test]
fn version_2_parents_hand_controllers_down() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cgroup.controllers"), "cpu io memory").unwrap();
    fs::write(folder.path().join("cgroup.subtree_control"), "cpu").unwrap();
    let all = Hierarchies(vec![Hierarchy {
        controllers: Vec::new(),
        folder: folder.path().into(),
        unified: true,
    }]);
    all.group("/pods/x").unwrap().create().unwrap();
    assert!(folder.path().join("pods/x").is_dir());
    let control = fs::read_to_string(folder.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(
        control, "+memory",
        "the last one wanted and missing was enabled"
    );
}

#[test]
fn version_2_hands_nothing_down_beside_version_1() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(second.path().join("cgroup.controllers"), "hugetlb").unwrap();
    let hierarchy = |folder: &tempfile::TempDir, unified| Hierarchy {
        controllers: Vec::new(),
        folder: folder.path().into(),
        unified,
    };
    let all = Hierarchies(vec![hierarchy(&first, false), hierarchy(&second, true)]);
    all.group("/pods/x").unwrap().create().unwrap();
    assert!(second.path().join("pods/x").is_dir());
    assert!(!second.path().join("cgroup.subtree_control").exists());
}

#[test]
fn what_is_empty_dissolves_and_what_is_not_stays() {
    let all = Hierarchies::of_this_machine().unwrap();
    let top = format!("/sampan-test-dissolve-{}", std::process::id());
    let (group, below) = (all.group(&top), all.group(&format!("{top}/a/b")));
    let (group, below) = (group.unwrap(), below.unwrap());
    below.create().unwrap();
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    below.join(pid).unwrap();
    assert!(!group.dissolve().unwrap());
    assert_eq!(below.processes(), [pid]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(group.dissolve().unwrap() && !group.exists());
    assert!(group.dissolve().unwrap(), "what is not there is gone");
}

#[test]
fn groups_made_side_by_side_below_a_new_parent_take_processes() {
    let all = Hierarchies::of_this_machine().unwrap();
    let top = format!("/sampan-test-side-by-side-{}", std::process::id());
    for round in 0..50 {
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (all, top) = (&all, &top);
                scope.spawn(move || {
                    let path = format!("{top}/{round}/pods/{number}");
                    let group = all.group(&path).unwrap();
                    group.create().unwrap();
                    if let Some(folder) = group.v1("cpuset") {
                        let cpus = fs::read_to_string(folder.join("cpuset.cpus")).unwrap();
                        assert_ne!(cpus.trim(), "", "no processor in {path}");
                    }
                    // As the last pod of a class does when it ends.
                    group.remove().unwrap();
                    all.group(&format!("{top}/{round}/pods"))
                        .unwrap()
                        .remove_if_empty();
                });
            }
        });
    }
    all.group(&top).unwrap().remove().unwrap();
    assert!(!all.group(&top).unwrap().exists());
}
