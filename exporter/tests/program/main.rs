//! The exporter's real binary, over HTTP, in worlds made for the purpose.
//!
//! - `world`: the running program, processes of our own.
//! - `golden`: its exposition, byte for byte.
//! - `scrapes`: many at once, late, too many; healthy, ready; signals.
//! - `handshakes`: what the log says of TLS clients that are refused; a faulty reload.
//! - `hidepid`: what it says when processes are hidden from it.
//! - `name_service`: names from a real NSS module that hangs.
//! - `scarcity`: no pid, no descriptor, no memory.
//! - `truth`: the sum holds whatever processes do; `ps` counts the same.
//! - `prometheus`: the real one scrapes over mutual TLS with a password.
//! - `source`: whether the kernel counts or /proc is read, and what is said of it.
//! - `property`: any names, read back by a parser of our own.
//! - `documents`: manual page and unit agree with the program.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a test fails by panicking, and says what it skips"
)]

mod documents;
mod golden;
mod handshakes;
mod hidepid;
mod name_service;
mod prometheus;
mod property;
mod scarcity;
mod scrapes;
mod source;
mod truth;
mod world;
