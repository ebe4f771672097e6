//! Real servers on a booted Debian, with the policies of `rules/RECIPES.md`: a storm of one user is
//! ended, and neither mail nor anybody else comes to harm.
//!
//! - `mail`: Dovecot and Courier, with Postfix and procmail.
//! - `web`: php-fpm and Apache.
//! - `login`: sshd and Python.

mod login;
mod mail;
mod web;

use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_tests::field::machine::{Machine, Switch};
use procstorm_tests::field::servers;

use crate::packages;

/// How long anything may take on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(300);

/// Ends the test that this stands in unless machines with servers can be booted here.
macro_rules! needs_servers {
    () => {
        if let Some(why) = procstorm_tests::field::machine::hindrance("servers") {
            procstorm_testkit::skip!("{why}");
        }
    };
}
use needs_servers;

/// A machine of that name, on which the remediator runs with a recipe's policy, and alice and bob
/// have accounts.
fn machine(name: &str, policy: &str) -> Result<Machine, Fault> {
    let switch = Switch::new()?;
    let hosts = format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n");
    let mut machine = Machine::new("servers", name, &switch, "192.0.2.11", &hosts)?;
    machine.boot()?;
    servers::mail::users(&machine, &["alice", "bob"])?;
    servers::remediator(&machine, packages(), policy)?;
    Ok(machine)
}

/// How many processes of that name a user has.
fn count(machine: &Machine, user: &str, command: &str) -> Option<usize> {
    servers::pids(machine, user, command).ok().map(|pids| pids.len())
}
