//! The product as it is installed, beside other people's software.
//!
//! - `ansible`: the Ansible roles, run against booted Debians.
//! - `debian`: the packages on a Debian that is booted with systemd.
//! - `kernel`: the product on the kernel that runs.
//! - `mail_server`: Debian's Dovecot in a storm.
//! - `servers`: Dovecot, Courier, Postfix, procmail, php-fpm, Apache and sshd on a booted Debian.

mod ansible;
mod debian;
mod kernel;
mod mail_server;
mod servers;

use std::sync::OnceLock;

use procstorm_testkit::fault::OrFail as _;
use procstorm_tests::field::packages::Packages;

/// The packages, made once for all tests here.
fn packages() -> &'static Packages {
    static PACKAGES: OnceLock<Packages> = OnceLock::new();
    PACKAGES.get_or_init(|| Packages::make().or_fail())
}
