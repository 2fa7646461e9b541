//! Processes that the kernel killed because the whole machine, and no cgroup, ran out of memory.

use std::time::Duration;

use crate::monitor::Finding;

/// A kill of so long ago is told still: it may have been ours.
pub(crate) const LOOKBACK: Duration = Duration::from_secs(300);

/// Follows what the kernel says from "invoked oom-killer" until it names the victim.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    /// The cgroup whose limit was reached, as far as it is known; `None`: nobody is being killed.
    limit: Option<String>,
}

/// All of the machine.
const MACHINE: &str = "/";

impl Kills {
    /// Takes in a line; the one that names the victim of the machine's want of memory is told.
    pub(crate) fn hear(&mut self, line: &str) -> Option<Finding> {
        if line.contains("invoked oom-killer:") {
            self.limit = Some(MACHINE.to_owned());
            return None;
        }
        self.limit.as_ref()?;
        if let Some(limit) = limit_before_5_0(line) {
            self.limit = Some(limit);
            return None;
        }
        let (process, pid) = match by_cgroup(line) {
            Some((limit, process, pid)) => {
                self.limit = Some(limit.to_owned());
                (process, pid)
            }
            None => killed(line)?,
        };
        // More lines may follow of processes that go along with this one.
        let limit = self.limit.take()?;
        (limit == MACHINE).then(|| Finding::Event {
            reason: "SystemOOM".to_owned(),
            message: format!("System OOM encountered, victim process: {process}, pid: {pid}"),
        })
    }

    /// Lines were lost: whose limit it was is not known any more.
    pub(crate) fn lose(&mut self) {
        self.limit = None;
    }
}

/// `Task in CGROUP killed as a result of limit of CGROUP`
fn limit_before_5_0(line: &str) -> Option<String> {
    let (_, task) = line.split_once("Task in ")?;
    let (_, limit) = task.split_once(" killed as a result of limit of ")?;
    Some(format!("/{}", limit.trim().trim_matches('/')))
}

/// `oom-kill:constraint=…,oom_memcg=CGROUP,task_memcg=CGROUP,task=NAME,pid=NUMBER,uid=NUMBER`;
/// of the machine itself it says `global_oom` instead of the first cgroup.
fn by_cgroup(line: &str) -> Option<(&str, &str, u32)> {
    let (_, facts) = line.split_once("oom-kill:constraint=")?;
    let (_, facts) = facts.split_once(",oom_memcg=")?;
    let (limit, facts) = facts.split_once(",task_memcg=")?;
    // A process may have any name.
    let (_, facts) = facts.split_once(",task=")?;
    let (facts, _uid) = facts.rsplit_once(",uid=")?;
    let (process, pid) = facts.rsplit_once(",pid=")?;
    Some((limit, process, pid.parse().ok()?))
}

/// `Killed process NUMBER (NAME) total-vm:…`
fn killed(line: &str) -> Option<(&str, u32)> {
    let (_, victim) = line.split_once("Killed process ")?;
    let (pid, victim) = victim.split_once(" (")?;
    let (process, _) = victim.rsplit_once(')')?;
    Some((process, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of the lines of a kernel's log.
    fn told(lines: &str) -> Vec<String> {
        let mut kills = Kills::default();
        let found = lines.lines().filter_map(|line| kills.hear(line));
        let messages = found.map(|finding| match finding {
            Finding::Event { reason, message } => {
                assert_eq!(reason, "SystemOOM");
                message
            }
            other => panic!("{other:?}"),
        });
        messages.collect()
    }

    #[test]
    fn the_machines_own_want_of_memory_is_told() {
        let since_5_0 = "\
stress invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0
CPU: 1 PID: 4312 Comm: stress Not tainted 6.1.0-18-amd64 #1  Debian 6.1.76-1
Mem-Info:
active_anon:151 inactive_anon:488193 isolated_anon:0
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[   4312]     0  4312   487103   485923  3952640        0             0 stress
oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/user.slice/user-0.slice/session-1.scope,task=stress,pid=4312,uid=0
Out of memory: Killed process 4312 (stress) total-vm:1948412kB, anon-rss:1943564kB, file-rss:128kB, shmem-rss:0kB, UID:0 pgtables:3860kB oom_score_adj:0
oom_reaper: reaped process 4312 (stress), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB";
        assert_eq!(
            told(since_5_0),
            ["System OOM encountered, victim process: stress, pid: 4312"]
        );
        let before = "\
ruby invoked oom-killer: gfp_mask=0x201da, order=0, oom_score_adj=0
ruby cpuset=/ mems_allowed=0
[13536]  1000 13536     4232      560      14        0             0 (sd-pam)
Out of memory: Kill process 19667 (evil-program2) score 890 or sacrifice child
Killed process 19667 (evil (program) 2) total-vm:1460016kB, anon-rss:1414008kB, file-rss:4kB";
        assert_eq!(
            told(before),
            ["System OOM encountered, victim process: evil (program) 2, pid: 19667"]
        );
    }

    #[test]
    fn the_limit_of_a_cgroup_is_its_own_matter() {
        let since_5_0 = "\
python invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=937
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0,oom_memcg=/kubepods/burstable/pod6a/c1,task_memcg=/kubepods/burstable/pod6a/c1,task=python,pid=8337,uid=0
Memory cgroup out of memory: Killed process 8337 (python) total-vm:13692kB, anon-rss:9100kB, file-rss:5484kB, shmem-rss:0kB, UID:0 pgtables:64kB oom_score_adj:937
Memory cgroup out of memory: Killed process 8338 (python) total-vm:13692kB, anon-rss:9100kB, file-rss:5484kB, shmem-rss:0kB, UID:0 pgtables:64kB oom_score_adj:937";
        assert!(told(since_5_0).is_empty());
        let before = "\
memorymonster invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0
Task in /mem2 killed as a result of limit of /mem3
memory: usage 980kB, limit 980kB, failcnt 4152239
Memory cgroup out of memory: Kill process 13536 (memorymonster) score 972 or sacrifice child
Killed process 13536 (memorymonster) total-vm:13888kB, anon-rss:980kB, file-rss:4kB";
        assert!(told(before).is_empty());
        let of_all = before.replace("limit of /mem3", "limit of /");
        assert_eq!(
            told(&of_all),
            ["System OOM encountered, victim process: memorymonster, pid: 13536"]
        );
        // By hand (SysRq f) and by others nothing is said before.
        assert!(told("Killed process 1 (a) total-vm:1kB, anon-rss:1kB, file-rss:1kB").is_empty());
    }

    #[test]
    fn lost_lines_tell_nothing_wrong() {
        let mut kills = Kills::default();
        assert_eq!(kills.hear("a invoked oom-killer: order=0"), None);
        kills.lose();
        assert_eq!(kills.hear("Killed process 1 (a) total-vm:1kB"), None);
    }
}
