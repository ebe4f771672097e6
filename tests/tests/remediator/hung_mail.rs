//! Mail file systems that hang, and that are mounted while the daemon runs; mail files that are not
//! there, and archives that grow old.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Beside as _, Fault};
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{in_a_world_apart, needs_root, wait};
use procstorm_tests::host::{Host, Post};
use procstorm_tests::storm::Storm;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// How long the storms of five users may live while their mail file system hangs.
const HUNG: Duration = Duration::from_secs(75);

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

/// An ext4 file system that holds spool and archive of a host. What waits for it goes on when this
/// is dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Mounts it below `dir`, and its directories over those of the host.
    fn mount_over(dir: &Path) -> Self {
        let (image, place) = (dir.join("disk.img"), dir.join("disk"));
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        fs::create_dir(&place).unwrap();
        run("mount", &[Path::new("-oloop"), &image, &place]);
        for name in ["mail", "arc"] {
            let inner = place.join(name);
            fs::create_dir(&inner).unwrap();
            fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
            run("mount", &[Path::new("--bind"), &inner, &dir.join(name)]);
        }
        Self { place }
    }

    fn freeze(&self) {
        run("fsfreeze", &[Path::new("-f"), &self.place]);
    }

    fn thaw(&self) {
        run("fsfreeze", &[Path::new("-u"), &self.place]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be thawed already.
        drop(Command::new("fsfreeze").arg("-u").arg(&self.place).output());
    }
}

fn texts(remediation: &Value, key: &str) -> Vec<String> {
    let list = remediation.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[test]
fn storms_end_while_the_mail_file_system_hangs() -> Result<(), Fault> {
    in_a_world_apart!();
    let mut host = Host::start("frozen", "    settle: 0s", "parallel: 4")?;
    host.stop()?;
    let disk = Disk::mount_over(host.dir());
    host.restart()?;
    host.wait_until_ready()?;
    let uids: [u32; 5] = claim_uids();
    let storms: Vec<Storm> =
        uids.iter().map(|&uid| Storm::raise(uid, b"frozen", 8)).collect::<Result<_, _>>()?;
    for uid in uids {
        host.put_mail(uid, b"mail")?;
    }
    disk.freeze();
    let begun = Instant::now();
    host.post(&uids.map(|uid| Post::storm(uid, "frozen")))?;
    let gone = || storms.iter().all(|storm| storm.living().unwrap() == 0).then_some(());
    wait::until("all five storms are dead", HUNG, gone).beside(|| host.daemon.log())?;
    eprintln!("five storms ended in {:?} with the mail file system frozen", begun.elapsed());
    host.wait_for_verdicts(&["none_seen"; 5])?;
    assert!(begun.elapsed() < HUNG, "{:?}", begun.elapsed());
    for remediation in host.remediations()? {
        let failures = texts(&remediation, "archive_failures");
        assert!(failures.iter().any(|text| text.contains("does not answer")), "{remediation}");
        assert!(texts(&remediation, "archives").is_empty(), "{remediation}");
    }
    // It says so, and does not wait for the file system to do so.
    let asked = Instant::now();
    let ready = host.get("/-/ready")?;
    assert!(ready.status == 503 && ready.body.contains("does not answer"), "{}", ready.body);
    assert!(host.metric("procstorm_mailbox_lost_threads")? >= 1.0);
    assert_eq!(host.metric("procstorm_archive_up")?, 0.0);
    let page = host.get("/")?.body;
    assert!(page.contains("does not answer"), "{page}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());

    // Once it answers, all is as before, and nothing of the failed attempts is in the archive.
    disk.thaw();
    host.wait_until_ready()?;
    host.wait_for_metric("procstorm_mailbox_lost_threads", 0.0)?;
    assert!(host.archived()?.iter().all(|path| path.ends_with("lost+found")));
    let [mailed, late] = claim_uids();
    host.put_mail(mailed, b"mail")?;
    let _storm = Storm::raise(mailed, b"frozen", 8)?;
    host.post(&[Post::storm(mailed, "frozen")])?;
    host.wait_for_verdicts(&["none_seen"; 6])?;
    assert_eq!(host.archived()?.len(), 1);

    // A daemon that is started meanwhile listens, kills, and says what is in its way.
    host.stop()?;
    disk.freeze();
    host.restart()?;
    let silent = || host.get("/-/ready").is_ok_and(|ready| ready.status == 503).then_some(());
    wait::until("it says that it is not ready", SOON, silent)?;
    let storm = Storm::raise(late, b"frozen", 8)?;
    host.post(&[Post::storm(late, "frozen")])?;
    host.wait_until_dead(&storm)?;
    disk.thaw();
    host.wait_until_ready()
}

#[test]
fn a_failed_archive_stops_the_kill_where_the_policy_says_so() -> Result<(), Fault> {
    in_a_world_apart!();
    let uid = claim_uid();
    let playbook = "    settle: 0s\n    on_archive_failure: stop";
    let mut host = Host::start("frozen-s", playbook, "")?;
    host.stop()?;
    let disk = Disk::mount_over(host.dir());
    host.restart()?;
    host.put_mail(uid, b"mail")?;
    let storm = Storm::raise(uid, b"frozen-s", 8)?;
    disk.freeze();
    host.post(&[Post::storm(uid, "frozen-s")])?;
    host.wait_for_verdicts(&["archive_failed"])?;
    assert_eq!(storm.living()?, 8);
    Ok(())
}

/// In the sandbox, and without it: what is at SPOOL/USER when it acts is what is saved.
#[test]
fn a_spool_that_is_mounted_while_the_daemon_runs_is_the_one_that_is_saved() -> Result<(), Fault> {
    in_a_world_apart!();
    let uid = claim_uid();
    for sandbox in [true, false] {
        let mut host = Host::start("late", "    settle: 0s\n    cooldown: 0s", "")?;
        if !sandbox {
            host.stop()?;
            host.relaunch(&["--no-sandbox"])?;
            wait::until("healthy", SOON, || host.get("/-/healthy").ok().map(drop))?;
        }
        // The daemon sees what is mounted here: both are in the mount namespace of this test.
        let spool = host.dir().join("mail");
        for round in 1..=3_usize {
            if round > 1 {
                run("mount", &[Path::new("-ttmpfs"), Path::new("none"), &spool]);
            }
            host.put_mail(uid, format!("mail of {round}").as_bytes())?;
            let storm = Storm::raise(uid, b"late", 8)?;
            host.post(&[Post::storm(uid, "late")])?;
            host.wait_for_verdicts(&vec!["none_seen"; round])?;
            drop(storm);
            let archived = host.archived()?;
            let last = archived.last().map(|path| fs::read_to_string(path).unwrap());
            assert_eq!(last, Some(format!("mail of {round}")), "{}", host.daemon.log());
            assert_eq!(archived.len(), round, "{archived:?}");
            if round > 1 {
                // Whoever held something open there would be in the way.
                run("umount", &[&spool]);
            }
        }
    }
    Ok(())
}

#[test]
fn a_mail_file_that_is_not_there_is_named_and_counted_and_a_maildir_needs_none() -> Result<(), Fault>
{
    needs_root!();
    let playbook = "    settle: 0s\n    on_archive_failure: stop";
    let host = Host::start("absent", playbook, "")?;
    let uids: [u32; 2] = claim_uids();
    let missing = host.dir().join("mail").join(uids[0].to_string()).display().to_string();
    let maildir = host.dir().join("mail").join(uids[1].to_string());
    fs::create_dir(&maildir).unwrap();
    for (number, uid) in (1..).zip(uids) {
        let storm = Storm::raise(uid, b"absent", 8)?;
        host.post(&[Post::storm(uid, "absent")])?;
        host.wait_for_verdicts(&vec!["none_seen"; number])?;
        assert_eq!(storm.living()?, 0);
    }
    let log = host.daemon.log();
    assert!(log.contains(&missing) && log.contains("no mail file saved"), "{log}");
    assert!(log.contains("a message is a file") || log.contains("each message is a file"), "{log}");
    let counted =
        |result| host.metric(&format!("procstorm_mailbox_archives_total{{result=\"{result}\"}}"));
    assert_eq!((counted("no_mail_file")?, counted("maildir_unsupported")?), (1.0, 1.0));
    let page = host.get("/remediations/1")?.body;
    assert!(page.contains(&missing), "{page}");
    Ok(())
}

/// Archives of users who have no storm any more, too.
#[test]
fn old_archives_of_all_users_are_removed_at_the_start() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = Host::start("prune", "    settle: 0s\n    cooldown: 0s", "")?;
    for (number, content) in [(1, "old"), (2, "new")] {
        host.put_mail(uid, content.as_bytes())?;
        let _storm = Storm::raise(uid, b"prune", 8)?;
        host.post(&[Post::storm(uid, "prune")])?;
        host.wait_for_verdicts(&vec!["none_seen"; number])?;
    }
    host.stop()?;
    let archived = host.archived()?;
    assert_eq!(archived.len(), 2, "{archived:?}");
    // As if they had been made long ago.
    for (path, second) in archived.iter().zip([1_000_000_000, 1_000_000_001]) {
        fs::rename(path, path.with_file_name(format!("{uid}.{second}"))).unwrap();
    }
    let policy = host.dir().join("remediator.yml");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replace("reserve: 0%", "reserve: 0%, max_age: 30d")).unwrap();
    host.restart()?;
    wait::until("the older one is removed", SOON, || {
        let names = host.archived().ok()?;
        // The newest is never removed.
        (names.len() == 1 && names.first()?.ends_with(format!("{uid}.1000000001"))).then_some(())
    })
}
