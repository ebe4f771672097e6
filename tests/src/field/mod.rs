//! A Debian of its own, booted with systemd as pid 1, in which the packages are installed as the
//! README says and used as an operator uses them.
//!
//! - [`machine`]: one booted machine: its files, its network, commands in it.
//! - [`packages`]: the Debian packages to install, and the same with a higher version.
//! - [`readme`]: the commands that the README prints.
//! - [`servers`]: other people's servers, and a remediator with a recipe's policy.
//! - [`storms`]: accounts with mail files, storms of theirs, and what became of both.

pub mod machine;
pub mod packages;
pub mod readme;
pub mod servers;
pub mod storms;
