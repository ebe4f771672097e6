//! A login node: a storm that a user has started by ssh is ended, and the login lives on.

use std::collections::BTreeSet;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::wait;
use procstorm_tests::field::machine::Machine;
use procstorm_tests::field::servers;
use procstorm_tests::field::servers::login::{self, Shell};

use super::{SOON, count, machine, needs_servers};

const LOGIN: &str = "A login node";

/// A program that forks 79 of itself.
const FORKS: &str = "import os, time
for _ in range(79):
    if os.fork() == 0:
        break
time.sleep(3600)
";

/// Seventy loops, each of which starts a program as often as it ends.
const LOOPS: &str = "for i in $(seq 70); do
    (while :; do python3 -c 'import time; time.sleep(3600)'; done) >/dev/null 2>&1 &
done";

/// The pids of what keeps a user logged in.
fn login_of(machine: &Machine, user: &str) -> Result<Vec<i64>, Fault> {
    let mut pids = servers::pids(machine, user, "sshd")?;
    pids.extend(servers::pids(machine, user, "bash")?);
    assert!(pids.len() >= 2, "{user}: {pids:?}");
    Ok(pids.into_iter().collect())
}

#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn a_users_storm_of_python_is_ended_and_the_logins_live() -> Result<(), Fault> {
    needs_servers!();
    let policy = servers::policy(LOGIN)?;
    assert!(policy.contains("threshold: 400"), "{policy}");
    // Four hundred interpreters would need more memory than a test machine has.
    let machine = machine("oslo", &policy.replace("threshold: 400", "threshold: 60"))?;
    login::sshd(&machine, &["alice", "bob"])?;
    let mut alice = Shell::open(&machine, "alice", "alice")?;
    let mut bob = Shell::open(&machine, "bob", "bob")?;
    machine.write("home/alice/storm.py", FORKS)?;
    alice.run("python3 storm.py >/dev/null 2>&1 &")?;
    bob.run("python3 -c 'import time; time.sleep(3600)' >/dev/null 2>&1 &")?;
    wait::until("the storm is up", SOON, || {
        let all = (count(&machine, "alice", "python3")?, count(&machine, "bob", "python3")?);
        (all == (80, 1)).then_some(())
    })?;
    let masters = servers::pids(&machine, "root", "sshd")?;
    let logins = (login_of(&machine, "alice")?, login_of(&machine, "bob")?);
    let of_alice = servers::pids(&machine, "alice", "python3")?;
    let of_bob = servers::pids(&machine, "bob", "python3")?;

    servers::post(&machine, "alice", "python3", "compute_storm")?;
    assert_eq!(servers::ended(&machine)?, "none_seen");
    assert_eq!(servers::signalled(&machine)?, of_alice);
    assert_eq!(servers::pids(&machine, "bob", "python3")?, of_bob, "bob's program runs on");
    let now = (login_of(&machine, "alice")?, login_of(&machine, "bob")?);
    assert_eq!(now, logins, "the logins");
    assert_eq!(servers::pids(&machine, "root", "sshd")?, masters, "sshd");
    alice.run("echo after the storm")?;
    bob.run("echo after the storm")?;

    a_loop_of_the_users_own_is_named(&machine, &mut bob)?;
    a_locked_account_is_out(&machine, &bob)?;
    alice.run("echo after it all")?;
    nproc_holds(&machine)
}

/// Programs that a shell starts again and again: the shell is named, and never hit.
fn a_loop_of_the_users_own_is_named(machine: &Machine, bob: &mut Shell<'_>) -> Result<(), Fault> {
    bob.run(LOOPS)?;
    wait::until("the loops run", SOON, || (count(machine, "bob", "python3")? > 70).then_some(()))?;
    // Not those that are about to become a program: they are gone a moment later.
    let shells = || servers::pids(machine, "bob", "bash");
    let first = shells()?;
    wait::until("each loop waits", SOON, || {
        let lasting = shells().ok()?;
        (lasting.is_subset(&first) && lasting.len() == 71).then_some(())
    })?;
    servers::post(machine, "bob", "python3", "compute_storm")?;
    wait::until("the shell is named", SOON, || {
        let told = servers::outcomes(machine).ok()?;
        let line = "(bash) is the user's own process and starts them: end it first";
        told.contains(line).then_some(())
    })?;
    let lasting: BTreeSet<i64> = first.intersection(&shells()?).copied().collect();
    assert_eq!(lasting.len(), 71, "a shell was hit: of {first:?} there are {lasting:?}");
    Ok(())
}

/// What the recipe says to do about a client that reconnects without end.
fn a_locked_account_is_out(machine: &Machine, bob: &Shell<'_>) -> Result<(), Fault> {
    machine.run("usermod --expiredate 1 bob; pkill -TERM -u bob -x sshd")?;
    wait::until("bob is out", SOON, || bob.is_over().ok().filter(|over| *over))?;
    let again = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no bob@localhost true";
    assert!(!machine.try_run(again)?.status.success(), "bob is in again");
    machine.run("pkill -KILL -u bob").map(drop)
}

/// What the recipe says to prevent the next storm with.
fn nproc_holds(machine: &Machine) -> Result<(), Fault> {
    machine.run("echo 'alice hard nproc 50' >>/etc/security/limits.conf")?;
    let mut limited = Shell::open(machine, "alice", "limited")?;
    let said = limited.run("python3 storm.py >/dev/null 2>refused; tail -n 1 refused")?;
    assert!(said.contains("BlockingIOError"), "{said}");
    assert!(count(machine, "alice", "python3").is_some_and(|count| count < 50));
    Ok(())
}
