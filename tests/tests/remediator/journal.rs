//! A journal that cannot be written: a clear word, not ready, 503 to Alertmanager, archives
//! untouched; and all is well again once the disk is. An archive that cannot be written: not ready,
//! and why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post};
use procstorm_tests::storm::Storm;
use procstorm_tests::tmpfs::Tmpfs;

const SOON: Duration = Duration::from_secs(60);

fn is_out_of_order(host: &Host, word: &str) -> Result<(), Fault> {
    refuses(host, word)?;
    assert_eq!(host.get("/-/healthy")?.status, 200);
    assert_eq!(host.get("/")?.status, 200, "the page tells of it");
    Ok(())
}

/// Whether it takes nothing, is not ready, and says why; else the fault is what it says.
fn refuses(host: &Host, word: &str) -> Result<(), Fault> {
    let answer = host.post(&[Post::storm(44_310, "core-j")])?;
    let ready = host.get("/-/ready")?;
    let seen = (answer.status, ready.status, host.metric("procstorm_journal_up")? > 0.0);
    let is_told = ready.body.contains("journal") && ready.body.contains(word);
    if seen == (503, 503, false) && answer.body == "the journal does not work\n" && is_told {
        return Ok(());
    }
    Err(Fault::new(format!("{seen:?}: {}, {}", answer.body, ready.body)))
}

fn is_in_order(host: &Host) -> Result<(), Fault> {
    host.wait_until_ready()?;
    let answer = host.post(&[Post::storm(44_310, "core-j")])?;
    assert_eq!(answer.status, 200);
    Ok(())
}

/// Fills what is left of a file system.
fn fill(at: &Path) {
    let mut file = File::options().create(true).append(true).open(at.join("filler")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn a_full_disk_is_told_and_survived() -> Result<(), Fault> {
    needs_root!();
    let place = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(&place.path().join("state"), "1m")?;
    let host =
        Host::start("core-j", "    settle: 0s", &format!("state: {}", disk.path().display()))?;
    is_in_order(&host)?;
    fs::write(host.dir().join("arc/44310.1"), "an archive").unwrap();
    // The journal makes room for a while: its log becomes shorter when it is opened anew, which the
    // engine may do meanwhile for what was accepted before.
    let mut last = Ok(());
    wait::until("the journal is full", SOON, || {
        fill(disk.path());
        last = is_out_of_order(&host, "full");
        last.is_ok().then_some(())
    })
    .map_err(|fault| Fault::new(format!("{}: {last:?}", fault.whole())))?;
    fs::remove_file(disk.path().join("filler")).unwrap();
    is_in_order(&host)?;
    assert_eq!(fs::read_to_string(host.dir().join("arc/44310.1")).unwrap(), "an archive");
    Ok(())
}

#[test]
fn a_read_only_disk_is_told_and_survived() -> Result<(), Fault> {
    needs_root!();
    let place = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(&place.path().join("state"), "8m")?;
    let top = format!("state: {}", disk.path().display());
    let mut host = Host::start("core-j", "    settle: 0s", &top)?;
    is_in_order(&host)?;
    host.stop()?;
    disk.remount("ro")?;
    host.restart()?;
    is_out_of_order(&host, "Read-only")?;
    disk.remount("rw")?;
    is_in_order(&host)
}

#[test]
fn a_damaged_journal_is_told_and_a_new_one_begun_when_it_is_moved_away() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("core-j", "    settle: 0s", "")?;
    is_in_order(&host)?;
    host.stop()?;
    let journal = host.dir().join("state/journal.sqlite");
    let whole = fs::read(&journal).unwrap();
    for damage in [vec![b'x'; whole.len()], {
        let mut torn = whole.clone();
        torn.iter_mut().skip(4096).for_each(|byte| *byte = 0xa5);
        torn
    }] {
        fs::write(&journal, &damage).unwrap();
        host.restart()?;
        is_out_of_order(&host, "journal.sqlite: ")?;
        assert_eq!(fs::read(&journal).unwrap(), damage, "nothing is written into it");
        host.stop()?;
    }
    fs::rename(&journal, host.dir().join("state/damaged")).unwrap();
    host.restart()?;
    is_in_order(&host)?;
    let storm = Storm::raise(uid, b"core-j", 6)?;
    host.post(&[Post::storm(uid, "core-j")])?;
    host.wait_until_dead(&storm)
}

#[test]
fn two_daemons_do_not_share_a_journal() -> Result<(), Fault> {
    needs_root!();
    let mut first = Host::start("core-j", "", "")?;
    // Now the journal is its own.
    first.wait_until_ready()?;
    let top = format!("state: {}", first.dir().join("state").display());
    let second = Host::start("core-j", "", &top)?;
    is_out_of_order(&second, "another process")?;
    first.stop()?;
    is_in_order(&second)
}

#[test]
fn an_archive_that_cannot_be_used_is_told_at_the_start() -> Result<(), Fault> {
    needs_root!();
    let mut host = Host::start("core-arc", "", "")?;
    let archive = host.dir().join("arc");
    assert!(host.stop()?.success());
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o755)).unwrap();
    host.restart()?;
    let told = || {
        let log = host.daemon.log();
        let line = log.lines().find(|line| line.contains("message=\"not ready\""))?.to_owned();
        Some(line)
    };
    let line = wait::until("it says so in its log", SOON, told)?;
    assert!(line.contains("level=error") && line.contains("/arc"), "{line}");
    assert_eq!(host.get("/-/ready")?.status, 503);
    Ok(())
}

/// Whether it says everywhere that it cannot save mail files, with these words.
fn saves_nothing(host: &Host, words: &[&str]) -> Result<(), Fault> {
    let ready = host.get("/-/ready")?;
    assert_eq!(ready.status, 503, "{}", ready.body);
    let archive = host.dir().join("arc").display().to_string();
    for word in words.iter().chain([&archive.as_str()]) {
        assert!(ready.body.contains(word), "{word} is not in {}", ready.body);
    }
    assert_eq!(host.metric("procstorm_archive_up")?, 0.0);
    let page = host.get("/")?.body;
    assert!(page.contains("no mail file is saved until it can"), "{page}");
    let told = || host.daemon.log().contains("message=\"not ready\"").then_some(());
    wait::until("it says so in its log", SOON, told)
}

/// Whether it is ready and archives.
fn saves(host: &Host, uid: u32) -> Result<(), Fault> {
    host.wait_until_ready()?;
    assert_eq!(host.metric("procstorm_archive_up")?, 1.0);
    assert!(host.archived()?.is_empty(), "whether it can is tried without a trace");
    host.put_mail(uid, b"mail")?;
    let _storm = Storm::raise(uid, b"core-arc", 6)?;
    host.post(&[Post::storm(uid, "core-arc")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(host.archived()?.len(), 1, "{}", host.daemon.log());
    Ok(())
}

#[test]
fn an_archive_of_roots_is_no_use_to_an_ordinary_user() -> Result<(), Fault> {
    needs_root!();
    let [daemon, user] = claim_uids();
    let mut host = Host::start("core-arc", "    settle: 0s", "")?;
    host.stop()?;
    host.restart_as(daemon)?;
    saves_nothing(
        &host,
        &[&format!("belongs to uid 0, the daemon is uid {daemon}"), "Permission denied"],
    )?;
    chown(host.dir().join("arc"), Some(daemon), Some(daemon)).unwrap();
    saves(&host, user)
}

#[test]
fn an_archive_on_a_read_only_disk_is_told() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("core-arc", "    settle: 0s", "")?;
    host.stop()?;
    let disk = Tmpfs::mount(&host.dir().join("arc"), "8m")?;
    disk.remount("ro")?;
    host.restart()?;
    saves_nothing(&host, &["Read-only file system"])?;
    disk.remount("rw")?;
    saves(&host, uid)
}
