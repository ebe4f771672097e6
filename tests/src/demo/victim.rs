//! Whose processes the storm is made of: as root a user who exists for our daemons alone,
//! otherwise ourselves.

use std::path::Path;

use nix::unistd::{Uid, User, geteuid};
use procstorm_exporter::proc_dir::ProcDir;
use procstorm_exporter::process::Command;

use crate::fault::{Fault, OrFault as _};
use crate::stack::Person;

/// Where we look for a uid that nobody has.
const UIDS: std::ops::Range<u32> = 45_900..46_000;

/// Chooses a person who runs no process called `command`, so that only our own can be hit.
pub(super) fn choose(command: &str) -> Result<Person, Fault> {
    if geteuid().is_root() {
        let owners = owners(None)?;
        let free = |uid: &u32| {
            !owners.contains(uid) && matches!(User::from_uid(Uid::from_raw(*uid)), Ok(None))
        };
        let uid = UIDS.into_iter().find(free);
        let uid = uid.ok_or_else(|| Fault::new("no uid is free for the demo's user"))?;
        return Ok(Person::new("alice", uid));
    }
    let uid = geteuid().as_raw();
    let account = User::from_uid(geteuid()).or_fault("the name service fails")?;
    let account = account.ok_or_else(|| Fault::new(format!("uid {uid} has no user name")))?;
    if owners(Some(command))?.contains(&uid) {
        let name = account.name;
        return Err(Fault::new(format!(
            "{name} runs processes called {command}, which the demo would kill"
        )));
    }
    Ok(Person::new(&account.name, uid))
}

/// The effective uids of all processes, or of those called `command`.
fn owners(command: Option<&str>) -> Result<Vec<u32>, Fault> {
    let wanted = command.and_then(|name| Command::new(name.as_bytes()));
    let mut proc = ProcDir::open(Path::new("/proc")).or_fault("cannot open /proc")?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut owners = Vec::new();
    let walked: std::io::Result<()> = proc.pids(&mut buffer, |proc, pid| {
        let named = match wanted {
            None => true,
            Some(wanted) => proc.stat(pid)?.is_some_and(|stat| stat.command == wanted),
        };
        owners.extend(proc.owner(pid).filter(|_| named));
        Ok(())
    });
    walked.or_fault("cannot read /proc")?;
    Ok(owners)
}

/// A mail file of about `size` bytes.
pub(super) fn mailbox(person: &Person, size: usize) -> Vec<u8> {
    let name = &person.name;
    let mail = format!(
        "From {name}@example.org Fri Apr 28 09:00:00 2000\nTo: {name}@example.org\n\
         Subject: More imapd Storms\n\nIt's been another harrowing week.\n\n"
    );
    mail.as_bytes().repeat(size / mail.len())
}
