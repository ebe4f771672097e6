//! What is to end, and within which bounds.

use std::time::Duration;

use procstorm_processes::process::Command;

/// The processes of one storm: all of one effective uid that bear one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose they are: the effective uid, as the exporter counts and `ps -o user` shows.
    pub uid: u32,
    /// Their name, compared byte for byte.
    pub command: Command,
}

/// How far [`end_storm`](super::end_storm) goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long those that are sent SIGTERM have to exit by themselves; zero sends SIGKILL at once.
    /// It begins once, when all that were found first have been sent it. What comes before it ends
    /// is sent SIGTERM as well.
    pub grace: Duration,
    /// No process is taken on after `grace` and this time; the end of those that are held, and the
    /// last count, may take three seconds longer.
    pub deadline: Duration,
    /// How many rounds of signals at most.
    pub rounds: u32,
    /// How many signals at most; each process takes two (SIGSTOP and SIGKILL), or five where it is
    /// sent SIGTERM first (SIGSTOP, SIGTERM, SIGCONT and then the two).
    pub signals: u64,
    /// How many scans in a row must find none.
    pub confirmations: u32,
    /// The time between two of these scans.
    pub confirm_pause: Duration,
    /// How long one round waits for the processes it killed to exit.
    pub poll: Duration,
    /// The count from which on it is a storm; 0 where that is not known. Three rounds in a row that
    /// leave fewer alive, and no more each time, are enough; and it is how much it matters who
    /// got away.
    pub threshold: u64,
    /// Whether processes of pid namespaces that are not the user's own (containers) are targets
    /// too.
    pub nested_namespaces: bool,
    /// Whether the daemon's own uid may be a target: for a demonstration by an ordinary user.
    /// The daemon itself and its ancestors are never touched anyway.
    pub allow_own_uid: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            grace: Duration::ZERO,
            deadline: Duration::from_secs(5),
            rounds: 50,
            signals: 500_000,
            confirmations: 5,
            confirm_pause: Duration::from_millis(20),
            poll: Duration::from_millis(200),
            threshold: 0,
            nested_namespaces: false,
            allow_own_uid: false,
        }
    }
}
