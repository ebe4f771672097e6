//! What the tests of all crates are made with. It depends on none of the programs under test.
//!
//! What a test needs of the machine, or does without, aloud:
//! - [`mod@skip`]: [`needs_root!`](crate::needs_root), [`skip!`](crate::skip!), and the line that says
//!   that a test did not run.
//! - [`apart`]: a test in a pid namespace of its own; another test of the same program in a process
//!   of its own.
//! - [`port`], [`uids`]: ports and users that no other test uses at the same time.
//! - [`programs`]: where the programs are.
//!
//! Worlds for the program under test:
//! - [`procfs`]: a /proc that holds what the test says.
//! - [`mounts`]: file systems and a view of mounts of the test's own.
//! - [`accounts`]: users who exist for one program only.
//!
//! Watching it:
//! - [`wait`]: waiting for an event, with a deadline.
//! - [`race`]: one thing that goes on while another happens.
//! - [`documents`]: what manual pages, units and other documents say.
//! - [`fault`]: what went wrong, in one sentence.

pub mod accounts;
pub mod apart;
mod claim;
pub mod documents;
pub mod fault;
pub mod forged;
pub mod mounts;
pub mod port;
pub mod procfs;
pub mod programs;
pub mod race;
pub mod skip;
pub mod uids;
pub mod wait;
