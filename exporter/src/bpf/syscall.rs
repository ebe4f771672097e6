//! The two calls of bpf(2) that the crate aya makes only for a program which it has loaded itself, in
//! the same process.
#![expect(unsafe_code, reason = "neither std nor rustix has bpf(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libc::{SYS_bpf, c_long, syscall};

/// Commands and an attach type of the kernel's `include/uapi/linux/bpf.h`.
const BPF_LINK_CREATE: c_long = 28;
const BPF_ITER_CREATE: c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// A link of an iterator's program, which keeps the program loaded.
pub(super) fn link(program: impl AsFd) -> io::Result<OwnedFd> {
    // prog_fd, target_fd, attach_type, flags
    bpf(BPF_LINK_CREATE, [number(program)?, 0, BPF_TRACE_ITER, 0])
}

/// A file that shows what is there now. Its reader's pid namespace is the caller's.
pub(super) fn iterate(link: impl AsFd) -> io::Result<OwnedFd> {
    // link_fd, flags
    bpf(BPF_ITER_CREATE, [number(link)?, 0])
}

fn number(descriptor: impl AsFd) -> io::Result<u32> {
    u32::try_from(descriptor.as_fd().as_raw_fd()).map_err(io::Error::other)
}

/// A command that returns a descriptor, with its attributes; the kernel takes all others for 0.
fn bpf<const N: usize>(command: c_long, attributes: [u32; N]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads so many bytes of the attributes, which live until it returns, and
    // writes none.
    let result =
        unsafe { syscall(SYS_bpf, command, &raw const attributes, size_of_val(&attributes)) };
    match i32::try_from(result) {
        // SAFETY: both commands return a new descriptor, which nobody else owns.
        Ok(descriptor @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
