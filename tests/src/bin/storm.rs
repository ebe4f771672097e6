//! `storm UID COUNT COMMAND`: holds COUNT sleeping processes of that uid and command name until
//! its standard input ends, or it dies.
//!
//! Three generations, so that nothing is left behind whatever happens:
//! - the *keeper* is what was started. It waits for its standard input to end, kills the nursery,
//!   and reaps, as a subreaper, what that leaves.
//! - the *nursery* starts the sleepers, prints their pids in one line when all bear their name,
//!   and reaps each that dies, as init would.
//! - a *sleeper* takes its uid, says that it is there, takes its name when it is told to, and sleeps.
//!
//! None takes its name before all are there: who watches for storms sees none or all of it, as
//! nearly as can be, and not one that rises for as long as a busy machine takes to start programs.
//! Whoever watches may also kill them at once, so that a sleeper that is gone is not waited for.
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

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use procstorm_testkit::fault::{Fault, OrFault as _};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, set_child_subreaper, set_parent_process_death_signal};

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
    all_named(tell)?;
    writeln!(io::stdout(), "{}", pids.join(" ")).or_fault("nobody listens")?;
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

/// Tells all sleepers to take their name, and waits until each has, or is dead already: then
/// nobody holds the other end any more.
fn all_named(mut tell: UnixStream) -> Result<(), Fault> {
    tell.shutdown(Shutdown::Write).or_fault("cannot tell the sleepers")?;
    tell.read_to_end(&mut Vec::new()).or_fault("cannot hear the sleepers").map(drop)
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

fn sleeper(uid: &OsString, command: &OsString) -> Result<(), Fault> {
    let uid: u32 = uid.to_str().and_then(|n| n.parse().ok()).ok_or_else(|| Fault::new("no uid"))?;
    if geteuid().as_raw() != uid {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setgroups(&[]).or_fault("cannot leave my groups")?;
        setresgid(group, group, group).or_fault(format!("cannot become group {uid}"))?;
        setresuid(user, user, user).or_fault(format!("cannot become user {uid}"))?;
    }
    // After the change of uid, which undoes it.
    die_with_parent()?;
    let name = CString::new(command.as_bytes()).or_fault("a command has no NUL")?;
    // Fails where the nursery died before we were to die with it.
    io::stdout().write_all(b".").and_then(|()| io::stdout().flush()).or_fault("nobody listens")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).or_fault("no null")?;
    rustix::stdio::dup2_stdout(&null).or_fault("cannot leave my output")?;
    io::stdin().read_to_end(&mut Vec::new()).or_fault("nobody tells me")?;
    rustix::thread::set_name(&name).or_fault("cannot take the command's name")?;
    rustix::stdio::dup2_stdin(&null).or_fault("cannot leave my input")?;
    loop {
        thread::park();
    }
}
