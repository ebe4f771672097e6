//! Landlock (`man 7 landlock`): which files the daemon may touch, whatever its capabilities say.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr,
};
use nix::sys::utsname::uname;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::{Layer, Places, refusal};

/// The newest rights that we ask for: those of Linux 6.10. An older kernel gives what it has.
const RIGHTS: ABI = ABI::V5;

/// The number of [`RIGHTS`].
pub const ABI_WANTED: u8 = 5;

/// The first kernel with any Landlock.
const FIRST: (u32, u32) = (5, 13);

/// How long a directory may take to be opened. A mail file system that does not answer must not
/// keep the daemon from starting.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the C library reads to turn a name into a uid: its databases, the modules that it loads
/// for them, and what those keep. Whole directories, since `useradd` and package upgrades replace
/// files by renaming, and a rule holds on to the file that it was made for.
const NAME_SERVICE: [&str; 11] = [
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/run",
    "/var/lib/sss",
    "/var/lib/extrausers",
    "/var/lib/misc",
    "/var/db",
    "/var/yp",
];

/// What the C library and the runtime read for themselves.
const RUNTIME: [&str; 3] = ["/usr/share/zoneinfo", "/dev/urandom", "/sys/fs/cgroup"];

/// Closes every file outside `places`, for this thread and those it starts. A place that cannot be
/// opened stays closed, which is a fault; the others hold all the same.
#[must_use]
pub fn restrict(places: &Places) -> Layer {
    let abi = match abi() {
        Ok(abi) => abi,
        Err(error) if error == Errno::NOSYS && is_older_than(FIRST) => return Layer::Older(0),
        Err(error) => return Layer::Off(refusal("Landlock", Some(error.raw_os_error()))),
    };
    let mut closed = Vec::new();
    let restricted = rules(places, &mut closed).and_then(|set| Ok(set.restrict_self()?));
    match restricted {
        Err(error) => off(error.as_ref()),
        Ok(_) if !closed.is_empty() => Layer::Faulty(closed.join("; ")),
        Ok(_) if abi < ABI_WANTED => Layer::Older(abi),
        Ok(_) => Layer::Enforced,
    }
}

/// The rules for all that can be opened; `closed` gets a sentence for each place that cannot.
fn rules(places: &Places, closed: &mut Vec<String>) -> Result<RulesetCreated, Box<dyn Error>> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // No running of files, no devices, sockets, pipes or symlinks: a directory of ours holds
    // plain files.
    let write: BitFlags<AccessFs> = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        // SQLite and the archive rename and link within one directory only; `Refer` is needed
        // all the same for linkat(2) from an unnamed file.
        | AccessFs::Refer;
    let mut set = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?.create()?;
    for path in NAME_SERVICE.into_iter().chain(RUNTIME) {
        // Not every machine has all of them.
        if let Ok(directory) = PathFd::new(path) {
            allow(&mut set, directory, read)?;
        }
    }
    if let Ok(null) = PathFd::new("/dev/null") {
        allow(&mut set, null, read | AccessFs::WriteFile)?;
    }
    let read = places.read.iter().map(|path| (path, read));
    for (path, access) in read.chain(places.write.iter().map(|path| (path, write))) {
        match open_in_time(path) {
            Ok(directory) => allow(&mut set, directory, access)?,
            Err(why) => closed.push(format!("{} stays closed: {why}", path.display())),
        }
    }
    Ok(set)
}

/// Adds one rule. A file has fewer rights than a directory, and the kernel refuses the others.
fn allow(
    set: &mut RulesetCreated,
    place: PathFd,
    access: BitFlags<AccessFs>,
) -> Result<(), Box<dyn Error>> {
    let is_directory = FileType::from_raw_mode(fstat(&place)?.st_mode) == FileType::Directory;
    let access = if is_directory { access } else { access & AccessFs::from_file(RIGHTS) };
    set.add_rule(PathBeneath::new(place, access))?;
    Ok(())
}

/// Opens `path` on a thread that may be lost: on a file system that hangs it stays behind, and ends
/// with its open(2).
fn open_in_time(path: &Path) -> Result<PathFd, String> {
    let (give, opened) = mpsc::channel();
    let own: PathBuf = path.to_owned();
    let thread = thread::Builder::new().name("open".to_owned()).spawn(move || {
        // Nobody may wait any more.
        give.send(PathFd::new(own)).ok();
    });
    thread.map_err(|error| format!("no thread could be started: {error}"))?;
    match opened.recv_timeout(PATIENCE) {
        Ok(opened) => opened.map_err(|error| cause(&error).to_string()),
        Err(_) => Err(format!("it does not answer within {PATIENCE:?}")),
    }
}

fn off(error: &(dyn Error + 'static)) -> Layer {
    let errno = cause(error).downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    match errno {
        Some(_) => Layer::Off(refusal("Landlock", errno)),
        None => Layer::Off(error.to_string()),
    }
}

/// The innermost cause of an error.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

fn is_older_than(first: (u32, u32)) -> bool {
    let Ok(system) = uname() else { return false };
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < first,
        _ => false,
    }
}

/// The kernel's Landlock, or why it has none. The `landlock` crate takes every error for a kernel
/// without it, also that of a filter.
#[expect(unsafe_code, reason = "no crate has this call with its error")]
fn abi() -> Result<u8, Errno> {
    /// `LANDLOCK_CREATE_RULESET_VERSION` of `linux/landlock.h`.
    const VERSION: libc::c_uint = 1;
    let (no_attributes, size): (*const libc::c_void, libc::size_t) = (std::ptr::null(), 0);
    // SAFETY: with this flag the kernel reads no memory of ours, and makes no descriptor.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, size, VERSION) };
    if abi < 0 {
        let error = io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::NOSYS));
    }
    Ok(u8::try_from(abi).unwrap_or(u8::MAX))
}
