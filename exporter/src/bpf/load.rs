//! Loads the program into the kernel, by the crate aya.

use std::os::fd::OwnedFd;

use aya::programs::{Iter, ProgramError};
use aya::{Btf, BtfError, EbpfError, EbpfLoader};

use super::syscall;

/// Built from `bpf/census.bpf.c` by `bpf/build.sh`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/census.bpf.o");

/// The program's name in there.
const PROGRAM: &str = "census";

/// Why the program cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot read the kernel's BTF (/sys/kernel/btf/vmlinux)")]
    Btf(#[from] BtfError),
    #[error("cannot fit the BPF program to this kernel")]
    Object(#[from] EbpfError),
    #[error("the kernel does not take the BPF program")]
    Program(#[from] ProgramError),
    #[error("cannot open a task iterator")]
    Link(#[from] std::io::Error),
}

/// A link of the loaded program. Takes some 50 MB for a moment, for the kernel's BTF.
pub(super) fn load() -> Result<OwnedFd, LoadError> {
    let btf = Btf::from_sys_fs()?;
    let mut object = EbpfLoader::new().btf(Some(&btf)).load(OBJECT)?;
    let program = object.program_mut(PROGRAM).ok_or_else(|| not_there(PROGRAM))?;
    let program: &mut Iter = program.try_into()?;
    program.load("task", &btf)?;
    Ok(syscall::link(program.fd()?)?)
}

fn not_there(name: &str) -> std::io::Error {
    std::io::Error::other(format!("the object has no program {name}"))
}
