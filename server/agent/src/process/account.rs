use std::io;

use forkyard_protocol::{ErrorBody, ErrorCode, Resource};

use crate::reply::internal;

/// A user as the guest's own files know it. The agent is a static program outside the guest's root file system, so it
/// reads the files itself rather than load the guest's name service modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

impl Account {
    /// Looks a user up by name or number.
    pub fn find(user: &str) -> Result<Self, ErrorBody> {
        let read = |path: &str| match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other.map_err(|error| internal(&format!("{path}: {error}"))),
        };
        Self::parse(user, &read("/etc/passwd")?, &read("/etc/group")?).ok_or_else(|| {
            ErrorBody::new(ErrorCode::NotFound, format!("there is no user '{user}' in the machine"))
                .about(Resource::User)
        })
    }

    fn parse(user: &str, passwd: &str, group: &str) -> Option<Self> {
        let mut found = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { return None };
            (*name == user || *uid == user).then_some(())?;
            Some(Self {
                name: (*name).to_owned(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                groups: Vec::new(),
                home: (*home).to_owned(),
                shell: if shell.is_empty() { "/bin/sh".to_owned() } else { (*shell).to_owned() },
            })
        })?;
        found.groups = group.lines().filter_map(|line| member_of(line, &found.name)).collect();
        found.groups.push(found.gid);
        Some(found)
    }
}

fn member_of(line: &str, name: &str) -> Option<u32> {
    let fields: Vec<&str> = line.split(':').collect();
    let [_, _, gid, members] = fields.as_slice() else { return None };
    members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n# broken\nagent:x:1000:1000::/home/agent:\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:agent,other\nagents:x:28:agent2\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let agent = Account::parse("agent", PASSWD, GROUP).unwrap();
        assert_eq!((agent.uid, agent.home.as_str(), agent.shell.as_str()), (1000, "/home/agent", "/bin/sh"));
        assert_eq!(agent.groups, [27, 1000]);
        assert_eq!(Account::parse("1000", PASSWD, GROUP), Some(agent));
        assert_eq!(Account::parse("nobody", PASSWD, GROUP), None);
    }
}
