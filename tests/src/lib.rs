//! The whole stack on real parts: for the demo, and for the end-to-end tests.
//!
//! What stands for the world outside:
//! - [`storm`]: real processes of a user and a command of our choice.
//! - [`crowd`]: thousands that only exist.
//! - [`world`]: a /proc that holds what the scenario says.
//! - [`opponent`]: real processes that are hard to end; [`ledger`] counts them without a scan,
//!   and [`forking`] is how they come to be.
//! - [`mail_server`]: Debian's Dovecot, and clients that rewrite their mailboxes.
//! - [`smtp`]: a mail server that keeps what it is sent.
//! - [`webhook`]: a service that keeps what Alertmanager posts to it.
//!
//! What runs in it:
//! - [`host`]: a remediator alone, and what stands for Alertmanager where a test needs it to fail.
//! - [`prometheus`], [`alertmanager`]: the real ones, on free ports.
//! - [`stack`]: those two, and our two daemons, wired as they are shipped.
//! - [`fleet`]: hosts in namespaces, each with our two daemons, a pair of Prometheus and a cluster.
//! - [`field`]: the packages, on a Debian booted with systemd.
//!
//! What the rules are compared with, and fed from:
//! - [`oracle`]: the original's scripts, read literally.
//! - [`dashboard`]: the shipped dashboard's queries.
//! - [`scrape_target`]: pages of numbers that a test writes.
//!
//! What is shown with it:
//! - [`demo`]: the time line of a storm.
//! - [`interrupt`]: Ctrl-C, so that the demo cleans up.
//!
//! What all of that is made with:
//! - [`daemon`]: a program that runs as long as its guard lives.
//! - [`http`]: a client that waits for its answer.
//! - [`browser`]: Chromium without a screen.
//! - [`exposition`]: reads what Prometheus scrapes.
//! - [`tmpfs`]: a file system that can be full or read-only.
//! - [`toll`]: what a running program takes of the machine.
//!
//! What must hold for any input: [`fuzzing`].

pub mod alertmanager;
pub mod browser;
pub mod crowd;
pub mod daemon;
pub mod dashboard;
pub mod demo;
pub mod exposition;
pub mod field;
pub mod fleet;
pub mod forking;
pub mod fuzzing;
pub mod host;
pub mod http;
pub mod interrupt;
pub mod journal;
pub mod ledger;
pub mod mail_server;
pub mod opponent;
pub mod oracle;
mod pages;
pub mod prometheus;
pub mod scrape_target;
pub mod smtp;
pub mod stack;
pub mod storm;
pub mod tmpfs;
pub mod toll;
pub mod webhook;
pub mod world;
