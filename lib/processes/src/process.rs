//! What a process is: the one definition that the exporter counts by and the remediator kills by.
//!
//! - [`Command`]: the kernel's name of a process, raw bytes.
//! - [`Stat`]: the fields of `/proc/PID/stat` that anybody here needs.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

/// `PF_KTHREAD` of the kernel's `include/linux/sched.h`: a thread of the kernel, no user's process.
const PF_KTHREAD: u32 = 0x0020_0000;

/// The longest name that `/proc/PID/stat` shows: 15 bytes for a process, up to 63 for a kernel
/// worker (`proc_task_name` in the kernel's `fs/proc/array.c`).
const COMMAND_MAX: usize = 63;

/// The kernel's name of a process (`comm`), as bytes: a process may give itself any, so it is
/// neither UTF-8 nor free of blanks, quotes, newlines and parentheses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Command {
    bytes: [u8; COMMAND_MAX],
    len: u8,
}

impl Command {
    /// The command of that name, or `None` where it is longer than the kernel can show (63 bytes).
    #[must_use]
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; COMMAND_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self { bytes, len: u8::try_from(name.len()).ok()? })
    }

    /// The name as the kernel gives it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The name as text; what is not UTF-8 becomes U+FFFD, so two commands can share one text.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl From<[u8; 16]> for Command {
    /// The name as the kernel keeps it (`TASK_COMM_LEN`): what stands before the first NUL.
    fn from(comm: [u8; 16]) -> Self {
        let mut command = Self { bytes: [0; COMMAND_MAX], len: 0 };
        let name = comm.into_iter().take_while(|&byte| byte != 0);
        for (place, byte) in command.bytes.iter_mut().zip(name) {
            *place = byte;
            command.len += 1;
        }
        command
    }
}

/// By the name alone: the empty rest would make up most of what is hashed, for each process of a scan.
impl Hash for Command {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// One process, as its line in `/proc/PID/stat` shows it (`man 5 proc_pid_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its pid: a name for now, not an identity.
    pub pid: i32,
    /// Its name.
    pub command: Command,
    /// Its state's letter: `R`, `S`, `D`, `Z`, `T`, …
    pub state: u8,
    /// Its parent's pid.
    pub parent: i32,
    /// The kernel's `PF_*` flags.
    pub flags: u32,
    /// How many threads it has; 0 for one that is being taken down.
    pub threads: i64,
    /// When it started, in clock ticks since boot: with the pid, an identity.
    pub start_time: u64,
}

impl Stat {
    /// Reads a line of `/proc/PID/stat`. The command stands between the first `(` and the LAST
    /// `)`, since it may itself hold `) S 1 (`. `None` if the line is not one of the kernel's.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&b| b == b'(')?;
        let close = line.iter().rposition(|&b| b == b')')?;
        let pid = number(line.get(..open)?.trim_ascii())?;
        let command = Command::new(line.get(open.checked_add(1)?..close)?)?;
        let mut rest = line.get(close.checked_add(1)?..)?.trim_ascii().split(|&b| b == b' ');
        // The numbers are those of the manual page, in which the state is field 3.
        let state = *rest.next()?.first()?;
        let parent = number(rest.next()?)?;
        let flags = number(rest.nth(4)?)?; // 9
        let threads = number(rest.nth(10)?)?; // 20
        let start_time = number(rest.nth(1)?)?; // 22
        Some(Self { pid, command, state, parent, flags, threads, start_time })
    }

    /// Whether it is a thread of the kernel.
    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Whether it is stopped, by a signal (`T`) or by a debugger (`t`).
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Whether it runs, or waits for a processor (`R`).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == b'R'
    }

    /// Whether it sleeps in a way that a signal ends (`S`).
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.state == b'S'
    }

    /// Whether it is dead and merely not reaped. A process whose first thread has exited while
    /// others run shows state `Z` too, but lives.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &[u8], state: char, threads: u32) -> Vec<u8> {
        let tail = format!(
            ") {state} 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 9876 1000 2 3\n"
        );
        [b"42 (", command, tail.as_bytes()].concat()
    }

    #[test]
    fn hostile_commands_are_read_whole() {
        for command in [b"imapd".as_slice(), b"im apd) S 1 (", b"a\nb", b"", b"\xff\xfe", b"((("] {
            let stat = Stat::parse(&line(command, 'S', 1)).expect("a line of the kernel's");
            assert_eq!(stat.command.as_bytes(), command);
            assert_eq!((stat.pid, stat.parent, stat.threads, stat.start_time), (42, 7, 1, 9876));
        }
    }

    #[test]
    fn a_name_of_the_kernel_s_ends_before_its_first_nul() {
        assert_eq!(Some(Command::from(*b"imapd\0old name\0\0")), Command::new(b"imapd"));
        assert_eq!(Some(Command::from(*b"sixteen bytes !!")), Command::new(b"sixteen bytes !!"));
        assert_eq!(Some(Command::from([0; 16])), Command::new(b""));
    }

    #[test]
    fn a_zombie_leader_with_a_live_thread_lives() {
        assert!(Stat::parse(&line(b"a", 'Z', 1)).expect("parsed").is_dead());
        assert!(!Stat::parse(&line(b"a", 'Z', 2)).expect("parsed").is_dead());
    }

    #[test]
    fn what_is_no_stat_line_is_none() {
        for text in [b"".as_slice(), b"1", b"1 (a", b"1 a) S", b"1 )a( S 1", b"x (a) S 1 2 3"] {
            assert_eq!(Stat::parse(text), None, "{}", text.escape_ascii());
        }
    }
}
