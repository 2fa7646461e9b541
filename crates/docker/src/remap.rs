//! `--userns-remap`: whose subordinate ids the users of containers are on the node. What is on disk
//! keeps the ids that containers see, so images, changes and copies know nothing of this.

use std::io;
use std::path::{Path, PathBuf};

use node_api::{IdMapping, UserNamespace};

/// The user that `default` means, as in docker.
const DEFAULT_USER: &str = "dockremap";
/// What the kernel shows of ids that a user namespace does not have.
const NOBODY: u32 = 65_534;
/// What the lines that are asked for give.
const EXAMPLE_RANGE: &str = "100000:65536";

/// Why ids cannot be remapped so.
#[derive(Debug, thiserror::Error)]
pub enum RemapError {
    #[error("Invalid user/group specification in --userns-remap: {0:?}")]
    Form(String),
    #[error("--userns-remap: no user {0} in {1}")]
    NoUser(String, PathBuf),
    #[error("--userns-remap: no group {0} in {1}")]
    NoGroup(String, PathBuf),
    #[error(
        "--userns-remap: {file} gives no ids to {user}; add a line such as \"{user}:{EXAMPLE_RANGE}\""
    )]
    NoRange { user: String, file: PathBuf },
    #[error("--userns-remap: {file}: {line:?} is not of the form name:first:count")]
    Line { file: PathBuf, line: String },
    #[error("--userns-remap: the ranges of {user}: {fault}")]
    Ranges { user: String, fault: String },
    #[error("--userns-remap: {0}: {1}")]
    Read(PathBuf, io::Error),
}

/// Ids of the user namespaces of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remap {
    namespace: UserNamespace,
}

impl Remap {
    /// By the words of `--userns-remap` (`default`, or a user and perhaps a group, by name or number)
    /// and the files in `etc`, which is `/etc`. For root there is nothing to remap.
    pub fn find(wish: &str, etc: &Path) -> Result<Option<Remap>, RemapError> {
        let parts: Vec<&str> = wish.split(':').collect();
        let (user, group) = match parts.as_slice() {
            [user] => (*user, None),
            [user, group] => (*user, Some(*group)),
            _ => return Err(RemapError::Form(wish.to_owned())),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) {
            return Err(RemapError::Form(wish.to_owned()));
        }
        // Who has ranges may be nobody else.
        let (name, uid) = match user {
            "default" => (DEFAULT_USER.to_owned(), None),
            user => {
                let path = etc.join("passwd");
                let missing = || RemapError::NoUser(user.to_owned(), path.clone());
                let (name, uid) = account(&read(&path)?, user).ok_or_else(missing)?;
                (name, Some(uid))
            }
        };
        if let Some(group) = group {
            let path = etc.join("group");
            let missing = || RemapError::NoGroup(group.to_owned(), path.clone());
            account(&read(&path)?, group).ok_or_else(missing)?;
        }
        if uid == Some(0) {
            tracing::warn!("root cannot be remapped to itself; --userns-remap is ignored");
            return Ok(None);
        }
        let namespace = UserNamespace {
            uids: ranges(&etc.join("subuid"), &name, uid)?,
            gids: ranges(&etc.join("subgid"), &name, uid)?,
        };
        match namespace.check() {
            Ok(()) => Ok(Some(Remap { namespace })),
            Err(fault) => Err(RemapError::Ranges { user: name, fault }),
        }
    }

    /// The user namespace of containers.
    pub(crate) fn namespace(&self) -> &UserNamespace {
        &self.namespace
    }
}

/// Whose folders are that are made for containers; nobody's where they have no ids of their own.
pub(crate) fn root_of(ids: Option<&UserNamespace>) -> Option<(u32, u32)> {
    ids?.on_node((0, 0))
}

/// A user and a group of a container, as they are on the node.
pub(crate) fn on_node(ids: Option<&UserNamespace>, owner: (u32, u32)) -> io::Result<(u32, u32)> {
    let Some(ids) = ids else {
        return Ok(owner);
    };
    ids.on_node(owner).ok_or_else(|| {
        let (uid, gid) = owner;
        let message =
            format!("user {uid} and group {gid} are not both in the range of --userns-remap");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// A user and a group of the node, as a container sees them.
pub(crate) fn inside(ids: Option<&UserNamespace>, (uid, gid): (u32, u32)) -> (u32, u32) {
    let Some(ids) = ids else {
        return (uid, gid);
    };
    let seen = |mappings: &[IdMapping], id| IdMapping::inside(mappings, id).unwrap_or(NOBODY);
    (seen(&ids.uids, uid), seen(&ids.gids, gid))
}

fn read(path: &Path) -> Result<String, RemapError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(RemapError::Read(path.to_owned(), error)),
    }
}

/// Name and number of a line of `passwd` or `group`, by either.
fn account(text: &str, wanted: &str) -> Option<(String, u32)> {
    let number: Option<u32> = wanted.parse().ok();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        let is_it = match number {
            Some(number) => id == number,
            None => name == wanted,
        };
        is_it.then(|| (name.to_owned(), id))
    })
}

/// The ids that a file such as `subuid` gives to a user, one range after the other from 0 on.
fn ranges(path: &Path, user: &str, uid: Option<u32>) -> Result<Vec<IdMapping>, RemapError> {
    let number = uid.map(|uid| uid.to_string());
    let mut found = Vec::new();
    let mut next: u32 = 0;
    for line in read(path)?.lines().map(str::trim) {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        if name != user && Some(name) != number.as_deref() {
            continue;
        }
        let wrong = || RemapError::Line {
            file: path.to_owned(),
            line: line.to_owned(),
        };
        let rest: Vec<u32> = fields
            .map(|field| field.trim().parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        let [host_id, length] = rest[..] else {
            return Err(wrong());
        };
        found.push(IdMapping {
            host_id,
            container_id: next,
            length,
        });
        next = next.checked_add(length).ok_or_else(wrong)?;
    }
    match found.is_empty() {
        false => Ok(found),
        true => Err(RemapError::NoRange {
            user: user.to_owned(),
            file: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:\n";

    fn etc(subuid: &str, subgid: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("passwd", PASSWD),
            ("group", GROUP),
            ("subuid", subuid),
            ("subgid", subgid),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn found(wish: &str, subuid: &str) -> Result<Option<Remap>, String> {
        let etc = etc(subuid, subuid);
        Remap::find(wish, etc.path()).map_err(|error| {
            let folder = format!("{}/", etc.path().display());
            error.to_string().replace(&folder, "")
        })
    }

    fn mapped(wish: &str, subuid: &str) -> Vec<(u32, u32, u32)> {
        let remap = found(wish, subuid).unwrap().unwrap();
        assert_eq!(remap.namespace.uids, remap.namespace.gids);
        let plain = |one: &IdMapping| (one.container_id, one.host_id, one.length);
        remap.namespace.uids.iter().map(plain).collect()
    }

    #[test]
    fn ranges_of_users_by_name_and_number() {
        let text = "# comment\nbob:1:2\n\ndockremap:100000:65536\nann:200000:10\n1000:300000:5\n";
        assert_eq!(mapped("default", text), [(0, 100_000, 65_536)]);
        let anns = [(0, 200_000, 10), (10, 300_000, 5)];
        for wish in ["ann", "1000", "ann:staff", "1000:50"] {
            assert_eq!(mapped(wish, text), anns, "{wish}");
        }
        assert_eq!(found("root", text), Ok(None));
    }

    #[test]
    fn users_and_groups_have_ranges_of_their_own() {
        let etc = etc("ann:1000:5\n", "ann:2000:6\n");
        let remap = Remap::find("ann", etc.path()).unwrap().unwrap();
        let ids = Some(remap.namespace());
        assert_eq!(root_of(ids), Some((1000, 2000)));
        assert_eq!(on_node(ids, (4, 5)).unwrap(), (1004, 2005));
        assert!(on_node(ids, (5, 5)).is_err());
        assert_eq!(inside(ids, (1004, 2005)), (4, 5));
        assert_eq!(inside(ids, (0, 2006)), (NOBODY, NOBODY));
        assert_eq!(on_node(None, (7, 8)).unwrap(), (7, 8));
        assert_eq!(inside(None, (7, 8)), (7, 8));
    }

    #[test]
    fn faults_say_what_to_do() {
        let none = "--userns-remap: subuid gives no ids to dockremap; add a line such as \
                    \"dockremap:100000:65536\"";
        for (wish, text, expect) in [
            ("default", "", none),
            ("default", "ann:100000:65536\n", none),
            ("bob", "", "--userns-remap: no user bob in passwd"),
            ("7", "", "--userns-remap: no user 7 in passwd"),
            ("ann:crew", "", "--userns-remap: no group crew in group"),
            (
                "a:b:c",
                "",
                "Invalid user/group specification in --userns-remap: \"a:b:c\"",
            ),
            (
                "ann:",
                "",
                "Invalid user/group specification in --userns-remap: \"ann:\"",
            ),
            (
                "ann",
                "ann:100000\n",
                "--userns-remap: subuid: \"ann:100000\" is not of the form name:first:count",
            ),
            (
                "ann",
                "ann:many:1\n",
                "--userns-remap: subuid: \"ann:many:1\" is not of the form name:first:count",
            ),
            (
                "ann",
                "ann:5:0\n",
                "--userns-remap: the ranges of ann: user namespace: the uid mapping is empty",
            ),
            (
                "ann",
                "ann:5:10\nann:14:3\n",
                "--userns-remap: the ranges of ann: user namespace: the uid mapping gives an id of \
                 the node twice",
            ),
        ] {
            assert_eq!(found(wish, text), Err(expect.to_owned()), "{wish} {text:?}");
        }
    }
}
