//! An allocator with a reserve.
//!
//! Where a limit of address space (`RLIMIT_AS`) or of committed memory leaves nothing, Rust ends the
//! program at the first allocation that fails. So some address space is held from the start. It
//! costs no memory, as nothing is written to it. An allocation that fails has it given up and is
//! tried again; who serves asks [`is_short`] and takes no more work until it could be held again.
//!
//! It is of no use where the memory itself is at its end: there the kernel ends a program without
//! asking it.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait, and so is giving up memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// How much is held, in bytes: the memory of a scan of some ten thousand processes, each of a user
/// or command of its own.
const HELD: usize = 32 << 20;

/// Where it is; null while it is given up, or was never held.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Whether it was held: a program without [`WithReserve`] is never short.
static WANTED: AtomicBool = AtomicBool::new(false);

/// The system's allocator, which gives up the reserve before it fails: to be the program's
/// `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct WithReserve;

// SAFETY: each call is the system allocator's own, with the arguments of the caller, who keeps that
// allocator's contract. A call that failed has allocated nothing, so that it may be made again.
unsafe impl GlobalAlloc for WithReserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        or_with_reserve(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: see above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see above.
        or_with_reserve(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: see above; a realloc that fails leaves the old memory as it was.
        or_with_reserve(|| unsafe { System.realloc(memory, layout, size) })
    }
}

fn or_with_reserve(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = allocate();
    if !memory.is_null() {
        return memory;
    }
    give_up();
    // Also where another thread has just given it up.
    allocate()
}

/// Holds the reserve from now on. To be called once, at the start of a program whose allocator is
/// [`WithReserve`]. False if it cannot be had.
pub fn hold() -> bool {
    WANTED.store(true, Ordering::Relaxed);
    !is_short()
}

/// Whether the reserve was given up and cannot be had again: then there is no memory for anything
/// that is not begun yet.
#[must_use]
pub fn is_short() -> bool {
    WANTED.load(Ordering::Relaxed) && RESERVE.load(Ordering::Acquire).is_null() && !take()
}

/// Takes the reserve, which is not held.
fn take() -> bool {
    // SAFETY: it is a new mapping at an address of the kernel's choice.
    let mapped =
        unsafe { mmap_anonymous(ptr::null_mut(), HELD, ProtFlags::empty(), MapFlags::PRIVATE) };
    let Ok(new) = mapped else { return false };
    let null = ptr::null_mut();
    if RESERVE.compare_exchange(null, new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        // Another thread was faster.
        unmap(new);
    }
    true
}

fn give_up() {
    let reserve = RESERVE.swap(ptr::null_mut(), Ordering::AcqRel);
    if !reserve.is_null() {
        unmap(reserve);
    }
}

/// Gives up a mapping of [`HELD`] bytes that [`take`] has made.
fn unmap(mapping: *mut c_void) {
    // SAFETY: the caller has just made it, or taken it out of `RESERVE`, so that nothing else uses
    // it; nothing is ever in it. If it fails the mapping stays, which does no harm.
    unsafe { munmap(mapping, HELD) }.unwrap_or_default();
}
