//! Whether the state of a mail file is certain: whether any later change of its content shows in
//! what its inode says. Only then a copy is one of exactly that state, and "unchanged" is true.
//!
//! Three things hide a change:
//! - A program that writes through a memory map shows when the kernel lets it write to a page that
//!   was clean, and not again while that page is dirty. fsync(2) makes all pages clean, whoever
//!   dirtied them, so that the next store shows.
//! - Two changes within one tick of the clock that a file system takes its times from look alike:
//!   up to 10 ms (ext4 before Linux 6.13, ext3 always), a second (ext3 with small inodes), two
//!   (vfat). A state whose last change is not clearly older than our fsync is not certain.
//! - Times of another machine's clock tell nothing of ours, and those of a file system in memory
//!   nothing of its maps.

use std::fs::{File, Metadata};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{fstatfs, fsync};

use super::failure::Failure;
use super::pace::pause;
use super::pulse::Pulse;
use super::spool::Mailbox;
use super::version::Version;

/// Longer than a tick of the kernel's clock.
const TICK: Duration = Duration::from_millis(20);
/// Longer than the steps of file systems that keep no parts of seconds.
const WHOLE_SECONDS: Duration = Duration::from_millis(2_100);
/// More than the clocks of two machines of one site differ.
const TWO_CLOCKS: Duration = Duration::from_secs(600);
/// How often the clock's next tick is waited for.
const TRIES: u32 = 4;

/// What an inode said, and whether later changes will show.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) meta: Metadata,
    pub(super) is_certain: bool,
    /// Whether that is so because its file system never shows what is written through a map.
    pub(super) is_blind_to_maps: bool,
}

/// Where the times of a file system come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// This machine's.
    Ours,
    /// Perhaps another machine's.
    Foreign,
    /// This machine's; but what is written through a map never shows.
    BlindToMaps,
}

/// The state of the mail file, certain if it can be had within some ticks.
pub(super) fn state_of(mailbox: &Mailbox, pulse: &Pulse) -> Result<State, Failure> {
    let clock = clock_of(&mailbox.file);
    let is_blind_to_maps = clock == Clock::BlindToMaps;
    let mut tries = 0;
    loop {
        tries += 1;
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let synced = sync(&mailbox.file, pulse);
        let meta = mailbox.metadata()?;
        let changed = ctime(&meta);
        let is_certain = synced && is_settled(clock, changed, begun);
        // What another tick does not make certain is not waited for.
        let soon = clock == Clock::Ours && changed.checked_add(TICK * 2).is_some_and(|t| t > begun);
        if is_certain || tries >= TRIES || !synced || !soon || changed > begun + TICK {
            return Ok(State { meta, is_certain, is_blind_to_maps });
        }
        pause(TICK);
    }
}

/// What the inode says after the copy.
pub(super) fn metadata_after(mailbox: &Mailbox, pulse: &Pulse) -> Result<Metadata, Failure> {
    if clock_of(&mailbox.file) == Clock::Foreign {
        // What was written through a map of this machine shows there when it is sent there.
        sync(&mailbox.file, pulse);
    }
    mailbox.metadata()
}

/// Whether all pages are clean now.
fn sync(file: &File, pulse: &Pulse) -> bool {
    pulse.beat_before_sync();
    let synced = fsync(file);
    pulse.beat();
    if let Err(error) = &synced {
        tracing::debug!(%error, "could not sync the mail file");
    }
    synced.is_ok()
}

/// Whether a file that was last changed at `changed` has not been changed since `synced`, and every
/// later change will have another time.
fn is_settled(clock: Clock, changed: Duration, synced: Duration) -> bool {
    let step = match clock {
        Clock::BlindToMaps => return false,
        Clock::Foreign => TWO_CLOCKS,
        // One in a thousand million of the others looks like this, too.
        Clock::Ours if changed.subsec_nanos() == 0 => WHOLE_SECONDS,
        Clock::Ours => TICK,
    };
    // A time to come is of a clock that was set back: it may be met again.
    synced.checked_sub(changed).is_some_and(|age| age > step)
}

fn ctime(meta: &Metadata) -> Duration {
    let (seconds, nanos) = Version::of(meta).ctime;
    Duration::new(
        u64::try_from(seconds).unwrap_or_default(),
        u32::try_from(nanos).unwrap_or_default(),
    )
}

fn clock_of(file: &File) -> Clock {
    // As they stand in linux/magic.h and in the file systems' own sources.
    match fstatfs(file).map(|stat| stat.f_type) {
        // tmpfs, ramfs.
        Ok(0x0102_1994 | 0x8584_58F6) => Clock::BlindToMaps,
        // ext2 to 4, xfs, btrfs, f2fs, jfs, reiserfs, bcachefs, zfs, vfat, overlayfs of such.
        Ok(
            0xEF53 | 0x5846_5342 | 0x9123_683E | 0xF2F5_2010 | 0x3153_464A | 0x5265_4973
            | 0xCA45_1A4E | 0x2FC1_2FC1 | 0x4D44 | 0x794C_7630,
        ) => Clock::Ours,
        // nfs, cifs, ceph, FUSE, and what is not known.
        Ok(_) | Err(_) => Clock::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_older_than_the_sync_is_settled() {
        let ms = Duration::from_millis;
        for (clock, changed, synced, settled) in [
            (Clock::Ours, ms(1_000_001), ms(1_000_001), false),
            (Clock::Ours, ms(1_000_001), ms(1_000_011), false),
            (Clock::Ours, ms(1_000_001), ms(1_000_031), true),
            // Whole seconds.
            (Clock::Ours, ms(1_000_000), ms(1_000_999), false),
            (Clock::Ours, ms(1_000_000), ms(1_002_000), false),
            (Clock::Ours, ms(1_000_000), ms(1_002_200), true),
            // A clock that was set back.
            (Clock::Ours, ms(2_000_001), ms(1_000_000), false),
            (Clock::Foreign, ms(1_000_001), ms(1_005_000), false),
            (Clock::Foreign, ms(1_000_001), ms(1_700_000), true),
            (Clock::BlindToMaps, ms(1), ms(1_700_000), false),
        ] {
            assert_eq!(is_settled(clock, changed, synced), settled, "{clock:?} {changed:?}");
        }
    }
}
