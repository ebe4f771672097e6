//! What a process is, as /proc shows it: the definitions that the exporter counts by and the
//! remediator acts by.
//!
//! - [`process`]: the fields of a process, and the kernel's name of it.
//! - [`proc_dir`]: a /proc directory and the pids in it.
//! - [`pidfd`]: what the kernel says of a process that a pidfd holds.
//! - [`namespaces`]: what /proc says of namespaces, and of the caller.
//! - [`mounts`]: what `mountinfo` says of mounts.
//! - [`visibility`]: whether other users' processes can be seen at all.
//! - [`name_service`]: account names and uids, from a name service that may hang.
//! - [`folded`]: what the exporter calls the processes that it adds together.
//!
//! # What counts as a process
//!
//! To both programs, a process is what has a directory `/proc/PID`. Threads are not processes. A
//! process belongs to its effective uid (the owner of its directory), and its name is the kernel's
//! (`comm`). The programs differ in three points:
//!
//! | | exporter (counts) | remediator (kills) |
//! |---|---|---|
//! | zombies | counted: each holds a pid, and `ps` shows it | not counted: nothing is left to kill ([`Stat::is_dead`](process::Stat::is_dead)) |
//! | processes of nested pid namespaces (containers) | counted | counted if the user created the namespace; otherwise only where the policy says so (`nested_namespaces: kill`) |
//! | kernel threads | only with `--collector.kernel-threads` | never ([`Stat::is_kernel_thread`](process::Stat::is_kernel_thread)) |

pub mod folded;
pub mod mounts;
pub mod name_service;
pub mod namespaces;
pub mod pidfd;
pub mod proc_dir;
pub mod process;
pub mod visibility;
