//! One look at all processes, made ready to be shown: counted, named, folded.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procstorm_processes::name_service::NameService;
use procstorm_processes::visibility::Blindness;
use procstorm_toolkit::scarcity::{Descriptors, is_shortage};

use crate::census::Census;
use crate::fold::{self, Counts, Folded, Limits, fold};
use crate::names::Names;
use crate::slices::{Slice, slices};
use crate::source::{Origin, Source, Taken};

/// The descriptors that a scan holds open at once: the directory, a file in it, and one for the name
/// service.
pub(crate) const DESCRIPTORS: usize = 3;

/// What is looked at, and how much of it is shown.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where /proc is mounted.
    pub procfs: PathBuf,
    /// Where the control groups of version 2 are mounted.
    pub cgroupfs: PathBuf,
    /// Whether the kernel's own threads count.
    pub kernel_threads: bool,
    /// Which groups are shown, and how many.
    pub limits: Limits,
    /// The processes of the smallest user whose sum is shown.
    pub min_user_processes: u64,
}

/// The slice of each user, by the name that is shown.
pub type Slices = BTreeMap<Arc<str>, Slice>;

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Processes by user and command, as they are shown.
    pub counts: Counts,
    /// Processes by user alone, as they are shown.
    pub user_processes: BTreeMap<Arc<str>, u64>,
    /// How many processes there are: the sum of `counts`.
    pub processes: u64,
    /// How many processes could not be looked at.
    pub denied: u64,
    /// Where the counts are from.
    pub origin: Origin,
    /// How near each user who is logged in is to the limit of tasks.
    pub slices: Slices,
    /// How many users there are, those included who are not shown by their names.
    pub users: usize,
    /// The processes of the smallest group that is shown by its name.
    pub min_processes: u64,
    /// The processes of the smallest user whose sum is shown.
    pub min_user_processes: u64,
    /// What was folded to keep the number of series small.
    pub folded: Folded,
    /// What hides processes from us.
    pub blindness: Option<Blindness>,
    /// How many names the name service owes us.
    pub overdue_names: usize,
    /// How long it took.
    pub duration: Duration,
    /// What has happened since the program started, this scan included.
    pub totals: Totals,
}

/// What has happened since the program started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Scans.
    pub scans: u64,
    /// Processes that vanished while they were looked at.
    pub vanished: u64,
    /// Groups that were folded because they were beyond the limits.
    pub folded_groups: u64,
}

/// /proc cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", .path.display())]
pub struct ScanError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ScanError {
    /// Whether the system was short of descriptors or memory, which it may have again soon.
    #[must_use]
    pub fn passes(&self) -> bool {
        is_shortage(&self.source)
    }
}

/// Scans, and remembers what outlives a scan: names and totals.
#[derive(Debug)]
pub struct Scanner {
    settings: Settings,
    source: Source,
    names: Names,
    totals: Totals,
    was_blind: bool,
    had_no_slices: bool,
    /// Held between scans, and free during one.
    descriptors: Descriptors,
}

impl Scanner {
    /// A scanner that has not scanned yet.
    #[must_use]
    pub fn new(settings: Settings, source: Source, service: NameService) -> Self {
        let names = Names::new(service);
        let descriptors = Descriptors::hold(DESCRIPTORS);
        let totals = Totals::default();
        Self {
            settings,
            source,
            names,
            totals,
            was_blind: false,
            had_no_slices: false,
            descriptors,
        }
    }

    /// Looks at all processes. Fails if /proc is to be read and cannot.
    pub fn scan(&mut self) -> Result<Scan, ScanError> {
        self.descriptors.free();
        let scan = self.look_at_all();
        self.descriptors.take_back();
        scan
    }

    fn look_at_all(&mut self) -> Result<Scan, ScanError> {
        let start = Instant::now();
        let procfs = &self.settings.procfs;
        let taken = self.source.take(procfs, self.settings.kernel_threads);
        let Taken { census, hidden, origin } =
            taken.map_err(|source| ScanError { path: procfs.clone(), source })?;
        let (processes, vanished, denied) = (census.processes, census.vanished, census.denied);
        let slices = self.read_slices();
        let uids = census.groups.keys().map(|group| group.uid);
        let uids: BTreeSet<u32> = uids.chain(slices.iter().map(|slice| slice.uid)).collect();
        self.names.refresh(uids, start);
        let slices = self.name_slices(slices);
        let mut counts = self.name(census);
        let users = counts.len();
        let Settings { limits, min_user_processes, .. } = self.settings;
        let user_processes = fold::users(&counts, min_user_processes, limits.max_series);
        let folded = fold(&mut counts, limits);
        let blindness = hidden.or((denied > 0).then_some(Blindness::Denied(denied)));
        self.tell_of(blindness.as_ref());

        self.totals.scans += 1;
        self.totals.vanished += vanished;
        self.totals.folded_groups += u64::try_from(folded.groups).unwrap_or(u64::MAX);
        Ok(Scan {
            counts,
            user_processes,
            processes,
            denied,
            origin,
            slices,
            users,
            min_processes: limits.min_processes,
            min_user_processes,
            folded,
            blindness,
            overdue_names: self.names.overdue(Instant::now()),
            duration: start.elapsed(),
            totals: self.totals,
        })
    }

    /// Has the next scan ask for all names again.
    pub fn expire_names(&mut self) {
        self.names.expire();
    }

    /// The counts by texts. Groups whose names are the same as text (commands that are not UTF-8,
    /// two uids of one name) become one, as a series may be there only once.
    fn name(&self, census: Census) -> Counts {
        let mut counts = Counts::new();
        for (group, n) in census.groups {
            let commands = counts.entry(self.names.text(group.uid)).or_default();
            *commands.entry(group.command.to_text().into_owned()).or_default() += n;
        }
        counts
    }

    /// The slices of the users, of whom the first `max_series` are shown. Without them the counts are
    /// shown all the same.
    fn read_slices(&mut self) -> Vec<Slice> {
        let cgroupfs = &self.settings.cgroupfs;
        let read = slices(cgroupfs);
        match &read {
            Err(error) if !self.had_no_slices => {
                let cgroupfs = cgroupfs.display();
                tracing::error!(%cgroupfs, %error, "cannot read the slices of users; showing none");
            }
            Ok(_) if self.had_no_slices => tracing::info!("the slices of users can be read again"),
            _ => {}
        }
        self.had_no_slices = read.is_err();
        let mut slices = read.unwrap_or_default();
        slices.sort();
        slices.truncate(self.settings.limits.max_series);
        slices
    }

    /// The slices by names. Of two uids with one name, the one that is nearer to its limit is shown.
    fn name_slices(&self, slices: Vec<Slice>) -> Slices {
        let mut named = Slices::new();
        for slice in slices {
            let shown = named.entry(self.names.text(slice.uid)).or_insert(slice);
            if slice.is_nearer_to_its_limit(shown) {
                *shown = slice;
            }
        }
        named
    }

    /// Logs when we go blind, and when we see again; not at each scan.
    fn tell_of(&mut self, blindness: Option<&Blindness>) {
        let procfs = self.settings.procfs.display();
        match blindness {
            Some(reason) if !self.was_blind => {
                tracing::error!(%procfs, %reason, "blind: processes of other users are hidden");
            }
            None if self.was_blind => tracing::info!(%procfs, "no longer blind"),
            _ => {}
        }
        self.was_blind = blindness.is_some();
    }
}
