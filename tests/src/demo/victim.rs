//! Whose processes the storm is made of: as root a user who exists for our daemons alone,
//! otherwise ourselves, since the kernel lets our remediator signal nobody else's.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::unistd::{Uid, User, geteuid};
use procstorm_processes::proc_dir::ProcDir;
use procstorm_processes::process::Command;
use procstorm_testkit::fault::{Fault, OrFault as _};

use crate::stack::Person;

/// Where we look for a uid that nobody has.
const UIDS: std::ops::Range<u32> = 45_900..46_000;

/// A person whom no other demo acts upon as long as this lives.
pub(super) struct Victim {
    pub(super) person: Person,
    _claim: UnixListener,
}

/// Chooses a person who runs no process called `command`, so that only our own can be hit.
pub(super) fn choose(command: &str) -> Result<Victim, Fault> {
    if geteuid().is_root() { a_stranger_to_all() } else { ourselves(command) }
}

/// A uid that has neither a process nor a name.
fn a_stranger_to_all() -> Result<Victim, Fault> {
    let owners = owners(None)?;
    let free = |uid: &u32| {
        !owners.contains(uid) && matches!(User::from_uid(Uid::from_raw(*uid)), Ok(None))
    };
    UIDS.filter(free)
        .find_map(|uid| Some(Victim { person: Person::new("alice", uid), _claim: claim(uid)? }))
        .ok_or_else(|| Fault::new("no uid is free for the demo's user"))
}

fn ourselves(command: &str) -> Result<Victim, Fault> {
    let uid = geteuid().as_raw();
    let account = User::from_uid(geteuid()).or_fault("the name service fails")?;
    let name = account.ok_or_else(|| Fault::new(format!("uid {uid} has no user name")))?.name;
    let other = || Fault::new(format!("{name} runs another demo, which would kill this one's"));
    let claim = claim(uid).ok_or_else(other)?;
    if owners(Some(command))?.contains(&uid) {
        return Err(Fault::new(format!(
            "{name} runs processes called {command}, which the demo would kill"
        )));
    }
    Ok(Victim { person: Person::new(&name, uid), _claim: claim })
}

/// Claims a uid, unless another demo has: one that is up would take our storm for its own. The
/// claim is a socket in the abstract name space, and ends with the process that holds it.
fn claim(uid: u32) -> Option<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("procstorm-demo-uid-{uid}"));
    address.and_then(|address| UnixListener::bind_addr(&address)).ok()
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

/// A mail file of about `size` bytes, another for each number.
pub(super) fn mailbox(person: &Person, size: usize, number: usize) -> Vec<u8> {
    let name = &person.name;
    let mail = format!(
        "From {name}@example.org Fri Apr 28 09:00:00 2000\nTo: {name}@example.org\n\
         Subject: More imapd Storms\n\nIt's been another harrowing week ({number}).\n\n"
    );
    mail.as_bytes().repeat(size / mail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_demos_act_upon_different_users() {
        // Nobody's, so that no demo that is up has it, nor this test where it runs beside itself.
        let uid = u32::MAX - std::process::id();
        let first = claim(uid).expect("nobody has it");
        assert!(claim(uid).is_none());
        drop(first);
        assert!(claim(uid).is_some());
    }
}
