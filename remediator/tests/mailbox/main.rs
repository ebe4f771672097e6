//! Mail files are archived and restored, whatever happens meanwhile.
//!
//! - `archive`: forms, attributes, names, retention.
//! - `disks`: full disks, shared blocks, two file systems.
//! - `hostile`: what a user may put in the mail file's place.
//! - `mounts`: mounts that never answer, or come late.
//! - `restore`: the way back.
//! - `world`: a spool and an archive of a test's own.
//! - `writers`: mail programs at work during the copy.

mod archive;
mod disks;
mod hostile;
mod mounts;
mod restore;
mod world;
mod writers;
