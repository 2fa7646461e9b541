//! Who a process runs as, by the container's own `/etc/passwd` and `/etc/group`.

use std::io::Read;
use std::path::Path;

use crate::spec::UserSpec;

/// More of these files is not read.
const FILE_LIMIT: u64 = 4 << 20;

/// The outcome of the lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Looks the user up below the current root.
pub(crate) fn find(spec: &UserSpec) -> Result<User, String> {
    resolve(spec, &read("/etc/passwd"), &read("/etc/group"))
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(Path::new(path)) {
        // A file that cannot be read to its end is used as far as it goes.
        let _ = file.take(FILE_LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn resolve(spec: &UserSpec, passwd: &str, groups: &str) -> Result<User, String> {
    let (name, group) = match spec.uid {
        Some(uid) => (uid.to_string(), ""),
        None => {
            let (name, group) = spec.name.split_once(':').unwrap_or((&spec.name, ""));
            (if name.is_empty() { "0" } else { name }.to_owned(), group)
        }
    };
    let number = name.parse::<u32>().ok();
    let fits = |account: &Account<'_>| match number {
        Some(uid) => account.uid == uid,
        None => account.name == name,
    };
    let account = passwd.lines().filter_map(account).find(fits);
    let uid = match (&account, number) {
        (Some(account), _) => account.uid,
        (None, Some(uid)) => uid,
        (None, None) => {
            return Err(format!(
                "unable to find user {name}: no matching entries in passwd file"
            ));
        }
    };
    let gid = match (spec.gid, group) {
        (Some(gid), _) => id(gid)?,
        (None, "") => account.as_ref().map_or(0, |account| account.gid),
        (None, group) => group_id(group, groups)?,
    };
    let mut member_of = Vec::new();
    if let (Some(account), false) = (&account, spec.strict || !group.is_empty()) {
        member_of.extend(
            groups
                .lines()
                .filter_map(|line| membership(line, account.name)),
        );
    }
    for extra in &spec.supplemental {
        member_of.push(id(*extra)?);
    }
    for group in &spec.groups {
        let gid = group_id(group, groups);
        member_of.push(gid.map_err(|_| format!("Unable to find group {group}"))?);
    }
    member_of.push(gid);
    member_of.sort_unstable();
    member_of.dedup();
    let home = account
        .map(|account| account.home)
        .filter(|home| !home.is_empty());
    Ok(User {
        uid,
        gid,
        groups: member_of,
        home: home.unwrap_or("/").to_owned(),
    })
}

fn id(number: i64) -> Result<u32, String> {
    u32::try_from(number).map_err(|_| format!("id {number} is out of range"))
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or("");
    Some(Account {
        name,
        uid,
        gid,
        home,
    })
}

fn group_id(group: &str, groups: &str) -> Result<u32, String> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == group).then_some(())?;
        fields.nth(1)?.parse().ok()
    });
    found.ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))
}

/// The group of this line, if `name` is a member.
fn membership(line: &str, name: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let gid = fields.nth(2)?.parse().ok()?;
    let is_member = fields
        .next()?
        .split(',')
        .any(|member| member.trim() == name);
    is_member.then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nstaff:x:50:web,other\nlogs:x:4:web\n";

    fn found(spec: UserSpec) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve(&spec, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups, u.home))
    }

    fn named(name: &str) -> UserSpec {
        UserSpec {
            name: name.to_owned(),
            ..UserSpec::default()
        }
    }

    #[test]
    fn by_name_and_number() {
        assert_eq!(
            found(named("")).unwrap(),
            (0, 0, vec![0], "/root".to_owned())
        );
        assert_eq!(
            found(named("web")).unwrap(),
            (33, 33, vec![4, 33, 50], "/var/www".to_owned())
        );
        assert_eq!(
            found(named("web:staff")).unwrap(),
            (33, 50, vec![50], "/var/www".to_owned())
        );
        assert_eq!(
            found(named("1000:7")).unwrap(),
            (1000, 7, vec![7], "/".to_owned())
        );
        assert!(
            found(named("ghost"))
                .unwrap_err()
                .contains("unable to find user ghost")
        );
        assert!(found(named("web:ghosts")).is_err());
    }

    #[test]
    fn the_pod_has_the_last_word() {
        let spec = UserSpec {
            uid: Some(33),
            gid: Some(5),
            supplemental: vec![9],
            ..named("root")
        };
        assert_eq!(found(spec.clone()).unwrap().2, [4, 5, 9, 50]);
        let strict = UserSpec {
            strict: true,
            ..spec
        };
        assert_eq!(found(strict).unwrap().2, [5, 9]);
    }
}
