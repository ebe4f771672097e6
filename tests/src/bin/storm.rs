//! `storm UID COUNT COMMAND`: holds COUNT sleeping processes of that uid and command name until
//! its standard input ends, or it dies.
//!
//! Three generations, so that nothing is left behind whatever happens:
//! - the *keeper* is what was started. It waits for its standard input to end, kills the nursery,
//!   and reaps, as a subreaper, what that leaves.
//! - the *nursery* starts the sleepers, and when all bear their name it prints one line: when it
//!   told them to (milliseconds since 1970), and their pids. It reaps each that dies, as init would.
//! - a *sleeper* says that it is there, takes its uid and its name at a word of the nursery, and sleeps.
//!
//! None takes its uid and name before all are there: an exporter sees none or all of the storm, as
//! nearly as can be, and not one that rises for as long as a busy machine takes to start programs.
//! A remediator may kill them at once, so a sleeper that is gone is not waited for.
//!
//! Each dies with its parent (PR_SET_PDEATHSIG). No signal is ever sent by pid.

use std::env;
use std::ffi::{CString, OsString};
use std::io::{self, PipeReader, Read as _, Write as _, pipe};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use procstorm_testkit::fault::{Fault, OrFault as _};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, set_child_subreaper, set_parent_process_death_signal,
};

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let done = match args.as_slice() {
        [uid, count, command] => keeper(uid, count, command),
        [role, uid, count, command] if role == "nursery" => nursery(uid, count, command),
        [role, uid, _, command] if role == "sleeper" => sleeper(uid, command),
        _ => Err(Fault::new("usage: storm UID COUNT COMMAND")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nothing can be done about a standard error that is closed.
            drop(writeln!(io::stderr(), "storm: {}", fault.whole()));
            ExitCode::FAILURE
        }
    }
}

/// This program again, in another role.
fn again(role: &str, args: &[&OsString]) -> Result<Command, Fault> {
    let mut command = Command::new(env::current_exe().or_fault("cannot tell who I am")?);
    command.arg(role).args(args).stdin(Stdio::null());
    Ok(command)
}

fn die_with_parent() -> Result<(), Fault> {
    set_parent_process_death_signal(Some(Signal::KILL)).or_fault("cannot die with my parent")
}

fn keeper(uid: &OsString, count: &OsString, command: &OsString) -> Result<(), Fault> {
    die_with_parent()?;
    set_child_subreaper(Some(rustix::process::getpid())).or_fault("cannot reap for others")?;
    let mut nursery = again("nursery", &[uid, count, command])?.spawn().or_fault("no nursery")?;
    // Whoever started us says "enough" by closing this.
    let mut rest = Vec::new();
    io::stdin().read_to_end(&mut rest).or_fault("cannot read the standard input")?;
    nursery.kill().or_fault("cannot kill the nursery")?;
    reap_all()
}

fn nursery(uid: &OsString, text: &OsString, command: &OsString) -> Result<(), Fault> {
    die_with_parent()?;
    let count: usize =
        text.to_str().and_then(|n| n.parse().ok()).ok_or_else(|| Fault::new("no count"))?;
    let (there, say_there) = pipe().or_fault("no pipe")?;
    let (tell, told) = UnixStream::pair().or_fault("no sockets")?;
    let mut pids = Vec::with_capacity(count);
    for _ in 0..count {
        let stdout = say_there.try_clone().or_fault("no pipe")?;
        let stdin = OwnedFd::from(told.try_clone().or_fault("no socket")?);
        let mut sleeper = again("sleeper", &[uid, text, command])?;
        let sleeper = sleeper.stdin(stdin).stdout(stdout).spawn();
        pids.push(sleeper.or_fault("cannot start a sleeper")?.id().to_string());
    }
    drop((say_there, told));
    all_there(there, count)?;
    let onset = SystemTime::now().duration_since(UNIX_EPOCH).or_fault("the clock is wrong")?;
    all_named(tell)?;
    let onset = onset.as_millis();
    writeln!(io::stdout(), "{onset} {}", pids.join(" ")).or_fault("nobody listens")?;
    reap_all()?;
    // Stay until the keeper says so: its standard input, not the storm's end, ends it.
    loop {
        thread::park();
    }
}

/// Waits until each sleeper has written its byte, and let go of the pipe.
fn all_there(mut there: PipeReader, count: usize) -> Result<(), Fault> {
    let mut bytes = Vec::with_capacity(count);
    there.read_to_end(&mut bytes).or_fault("cannot hear the sleepers")?;
    match bytes.len() {
        up if up == count => Ok(()),
        up => Err(Fault::new(format!("{up} of {count} sleepers came up"))),
    }
}

/// Tells all sleepers to take their uid and name, and waits until each has, or is dead already: then
/// nobody holds the other end any more. One that cannot writes a byte.
fn all_named(mut tell: UnixStream) -> Result<(), Fault> {
    tell.shutdown(Shutdown::Write).or_fault("cannot tell the sleepers")?;
    let mut failures = Vec::new();
    tell.read_to_end(&mut failures).or_fault("cannot hear the sleepers")?;
    match failures.len() {
        0 => Ok(()),
        some => Err(Fault::new(format!("{some} sleepers could not take their uid and name"))),
    }
}

/// Waits for every child, until none is left.
fn reap_all() -> Result<(), Fault> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error).or_fault("cannot wait for children"),
        }
    }
}

fn become_user(uid: u32, nursery: Option<Pid>) -> Result<(), Fault> {
    if geteuid().as_raw() != uid {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setgroups(&[]).or_fault("cannot leave my groups")?;
        setresgid(group, group, group).or_fault(format!("cannot become group {uid}"))?;
        setresuid(user, user, user).or_fault(format!("cannot become user {uid}"))?;
    }
    // The change of uid undoes this. If the nursery died between the two, nobody else ends us.
    die_with_parent()?;
    if rustix::process::getppid() == nursery {
        Ok(())
    } else {
        Err(Fault::new("the nursery is gone"))
    }
}

fn sleeper(uid: &OsString, command: &OsString) -> Result<(), Fault> {
    let uid: u32 = uid.to_str().and_then(|n| n.parse().ok()).ok_or_else(|| Fault::new("no uid"))?;
    let nursery = rustix::process::getppid();
    die_with_parent()?;
    let name = CString::new(command.as_bytes()).or_fault("a command has no NUL")?;
    // Fails where the nursery died before we were to die with it.
    io::stdout().write_all(b".").and_then(|()| io::stdout().flush()).or_fault("nobody listens")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).or_fault("no null")?;
    rustix::stdio::dup2_stdout(&null).or_fault("cannot leave my output")?;
    io::stdin().read_to_end(&mut Vec::new()).or_fault("nobody tells me")?;
    let become_it = || {
        become_user(uid, nursery)?;
        rustix::thread::set_name(&name).or_fault("cannot take the command's name")
    };
    if let Err(fault) = become_it() {
        // The nursery reads at the other end. If it is gone, nobody is to know.
        rustix::io::write(rustix::stdio::stdin(), b"!").ok();
        return Err(fault);
    }
    rustix::stdio::dup2_stdin(&null).or_fault("cannot leave my input")?;
    loop {
        thread::park();
    }
}
