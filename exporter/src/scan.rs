//! One look at all processes, made ready to be shown: counted, named, folded.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procstorm_processes::name_service::NameService;
use procstorm_processes::visibility::Blindness;
use procstorm_toolkit::scarcity::{Descriptors, is_shortage};

use crate::census::Census;
use crate::fold::{Counts, Folded, Limits, fold};
use crate::names::Names;
use crate::source::{Origin, Source, Taken};

/// The descriptors that a scan holds open at once: the directory, a file in it, and one for the name
/// service.
pub(crate) const DESCRIPTORS: usize = 3;

/// What is looked at, and how much of it is shown.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where /proc is mounted.
    pub procfs: PathBuf,
    /// Whether the kernel's own threads count.
    pub kernel_threads: bool,
    /// How many groups are shown.
    pub limits: Limits,
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Processes by user and command, as they are shown.
    pub counts: Counts,
    /// How many processes there are: the sum of `counts`.
    pub processes: u64,
    /// How many processes could not be looked at.
    pub denied: u64,
    /// Where the counts are from.
    pub origin: Origin,
    /// What was folded to keep the number of series bounded.
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
    /// Groups that were folded.
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
        Self { settings, source, names, totals, was_blind: false, descriptors }
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
        let mut counts = self.name(census, start);
        let folded = fold(&mut counts, self.settings.limits);
        let blindness = hidden.or((denied > 0).then_some(Blindness::Denied(denied)));
        self.tell_of(blindness.as_ref());

        self.totals.scans += 1;
        self.totals.vanished += vanished;
        self.totals.folded_groups += u64::try_from(folded.groups).unwrap_or(u64::MAX);
        Ok(Scan {
            counts,
            processes,
            denied,
            origin,
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
    fn name(&mut self, census: Census, now: Instant) -> Counts {
        let uids: BTreeSet<u32> = census.groups.keys().map(|group| group.uid).collect();
        self.names.refresh(uids, now);
        let mut counts = Counts::new();
        for (group, n) in census.groups {
            let commands = counts.entry(self.names.text(group.uid)).or_default();
            *commands.entry(group.command.to_text().into_owned()).or_default() += n;
        }
        counts
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
