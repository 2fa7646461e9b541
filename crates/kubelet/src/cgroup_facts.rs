//! What the machine's control groups can do.

use std::path::Path;

use crate::machine;

/// Where control groups are mounted.
const MOUNTED: &str = "/sys/fs/cgroup";

/// What limits can be set, and what there is to share by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupFacts {
    /// Version 2 manages resources.
    pub unified: bool,
    /// Swap can be limited.
    pub limits_swap: bool,
    /// Bytes of swap of the machine.
    pub swap_bytes: i64,
}

impl CgroupFacts {
    /// Looks around.
    pub fn look() -> CgroupFacts {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        CgroupFacts {
            swap_bytes: machine::memory("SwapTotal:"),
            ..CgroupFacts::of(Path::new(MOUNTED), &own)
        }
    }

    /// The same of groups mounted at `root`; `own` is `/proc/self/cgroup`.
    fn of(root: &Path, own: &str) -> CgroupFacts {
        let unified = root.join("cgroup.controllers").exists();
        let limits_swap = match unified {
            false => root.join("memory/memory.memsw.limit_in_bytes").exists(),
            // The root itself has no limits, so another group tells.
            true => {
                let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
                let own = root.join(own.unwrap_or_default());
                let below = std::fs::read_dir(root).into_iter().flatten().flatten();
                let mut folders = below.map(|entry| entry.path()).chain([own]);
                folders.any(|folder| folder.join("memory.swap.max").exists())
            }
        };
        CgroupFacts {
            unified,
            limits_swap,
            swap_bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell() {
        let root = tempfile::tempdir().unwrap();
        let look = |own: &str| {
            let facts = CgroupFacts::of(root.path(), own);
            (facts.unified, facts.limits_swap)
        };
        let make = |file: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        make("memory/memory.limit_in_bytes");
        assert_eq!(look("4:memory:/a/b\n0::/\n"), (false, false));
        make("memory/memory.memsw.limit_in_bytes");
        assert_eq!(look("4:memory:/a/b\n0::/\n"), (false, true));
        make("cgroup.controllers");
        assert_eq!(look("0::/a/b\n"), (true, false));
        make("a/b/memory.swap.max");
        assert_eq!(look("0::/a/b\n"), (true, true));
        assert_eq!(look("0::/\n"), (true, false));
        make("other/memory.swap.max");
        assert_eq!(look("0::/\n"), (true, true));
    }
}
