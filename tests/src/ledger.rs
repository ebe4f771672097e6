//! Memory that a test and its opponents share: the judge of who was there, and no scan.
#![expect(unsafe_code, reason = "shared memory is mapped by mmap(2) alone")]

use std::fs::OpenOptions;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use procstorm_testkit::fault::{Fault, OrFault as _};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// How many pids fit.
const PIDS_MAX: usize = 256;

/// A number that processes share.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::SeqCst);
    }

    /// Takes from it.
    pub fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::SeqCst);
    }
}

/// A pid that processes share; 0 is none.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct PidSlot(AtomicI32);

impl PidSlot {
    /// The pid.
    #[must_use]
    pub fn get(&self) -> i32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Notes a pid.
    pub fn set(&self, pid: i32) {
        self.0.store(pid, Ordering::SeqCst);
    }

    /// Notes `new` if it holds `old`; false if it does not.
    #[must_use]
    pub fn replace(&self, old: i32, new: i32) -> bool {
        self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// What they share.
#[derive(Debug)]
#[repr(C)]
pub struct Page {
    /// How many processes were ever forked, counted before each fork.
    pub forks: Counter,
    /// How many have come up, or what else a role counts.
    pub up: Counter,
    /// Not 0 once all are to end.
    pub over: Counter,
    /// The pids of a hydra's heads.
    pub pids: [PidSlot; PIDS_MAX],
}

/// The page, mapped. It stays mapped as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct Ledger(&'static Page);

impl Ledger {
    /// Maps the file at `path`, which is made or made larger if need be.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let what = || format!("cannot share {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .or_fault(what())?;
        let size = size_of::<Page>();
        file.set_len(u64::try_from(size).or_fault(what())?).or_fault(what())?;
        let (rights, share) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let page = unsafe { mmap(std::ptr::null_mut(), size, rights, share, &file, 0) };
        let page = NonNull::new(page.or_fault(what())?.cast::<Page>());
        let page = page.ok_or_else(|| Fault::new(what()))?;
        // SAFETY: page-aligned, as long as a Page, never unmapped; the file is never shortened;
        // a Page is atomics alone, for which every bit pattern is valid.
        Ok(Self(unsafe { page.as_ref() }))
    }
}

impl std::ops::Deref for Ledger {
    type Target = Page;

    fn deref(&self) -> &Page {
        self.0
    }
}
