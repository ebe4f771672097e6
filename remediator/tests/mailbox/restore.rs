//! The way back: an archive's messages that a mailbox lacks are appended to it, and nothing else
//! changes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use procstorm_remediator::account::UserName;
use procstorm_remediator::steps::archive::{Archiver, RestoreError, Restored, Settings};
use procstorm_testkit::needs_root;

struct Mail {
    root: tempfile::TempDir,
    uid: u32,
    user: UserName,
}

impl Mail {
    /// A mailbox that was archived as `archived` and is `mailbox` now.
    fn new(archived: &str, mailbox: Option<&str>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let uid = if rustix::process::geteuid().is_root() {
            40_321
        } else {
            rustix::process::geteuid().as_raw()
        };
        let mail = Self { root, uid, user: UserName::new("alice").unwrap() };
        fs::create_dir(mail.root.path().join("spool")).unwrap();
        mail.write(archived);
        let archiver = mail.archiver();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let saved = archiver.archive(&mail.user, uid, 1_700_000_000, &stop);
        assert!(saved.iter().all(|report| report.result.is_ok()), "{saved:?}");
        fs::remove_file(mail.mailbox()).unwrap();
        mailbox.into_iter().for_each(|text| mail.write(text));
        mail
    }

    fn write(&self, text: &str) {
        fs::write(self.mailbox(), text).unwrap();
        fs::set_permissions(self.mailbox(), fs::Permissions::from_mode(0o640)).unwrap();
        chown(self.mailbox(), Some(self.uid), None).unwrap();
    }

    fn archiver(&self) -> Archiver {
        let (spool, archive) = (self.root.path().join("spool"), self.root.path().join("arc"));
        Archiver::open(Settings { spool, archive, ..Settings::default() }).unwrap()
    }

    fn mailbox(&self) -> PathBuf {
        self.root.path().join("spool/alice")
    }

    fn lock(&self) -> PathBuf {
        self.root.path().join("spool/alice.lock")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.mailbox()).unwrap()
    }

    /// Restores while a lock is held: nothing is written until `release` lets it go.
    fn restore_once(&self, release: impl FnOnce()) -> Restored {
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            scope.spawn(move || tell.send(self.restore(true)).unwrap());
            assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
            assert_eq!(self.text(), "");
            release();
            told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap()
        })
    }

    fn restore(&self, apply: bool) -> Result<Restored, RestoreError> {
        self.archiver().restore(&self.user, self.uid, None, apply)
    }
}

fn message(number: u32) -> String {
    format!(
        "From x@example.org Sat Nov 28 16:00:00 2026\nSubject: {number}\nX-UID: {number}\n\n\
         body of {number}\n\n"
    )
}

fn mbox(numbers: &[u32]) -> String {
    numbers.iter().map(|&number| message(number)).collect()
}

#[test]
fn messages_that_a_torn_mailbox_lacks_come_back_and_newer_mail_stays() {
    // The second message was cut in the middle, the third went, the fourth came after the archive.
    let torn = format!("{}{}", mbox(&[1]), &message(2)[..60]);
    let now = format!("{torn}\n\n{}", message(4));
    let mail = Mail::new(&mbox(&[1, 2, 3]), Some(&now));

    let found = mail.restore(false).unwrap();
    assert_eq!((found.archived, found.missing, found.appended), (3, 2, 0));
    assert_eq!(mail.text(), now);

    let restored = mail.restore(true).unwrap();
    assert_eq!(restored.missing, 2);
    let text = mail.text();
    assert_eq!(restored.appended, u64::try_from(text.len() - now.len()).unwrap());
    let appended = text.strip_prefix(&now).unwrap();
    // Their old numbers would contradict those that the mailbox has given meanwhile.
    assert_eq!(appended, mbox(&[2, 3]).replace("X-UID: 2\n", "").replace("X-UID: 3\n", ""));
    assert!(!mail.lock().exists());

    let again = mail.restore(true).unwrap();
    assert_eq!((again.missing, again.appended), (0, 0));
    assert_eq!(mail.text(), text);
}

#[test]
fn a_mailbox_that_ends_in_the_middle_of_a_line_is_closed_first() {
    let mail = Mail::new(&mbox(&[7]), Some("From x@example.org Sat Nov 28 16:00:00 2026\nSubj"));
    mail.restore(true).unwrap();
    assert!(mail.text().contains("\nSubj\n\nFrom x@example.org"), "{}", mail.text());
    assert_eq!(mail.restore(false).unwrap().missing, 0);
}

#[test]
fn a_mailbox_that_is_gone_is_made_with_its_owner_and_mode() {
    let mail = Mail::new(&mbox(&[1, 2]), None);
    assert_eq!(mail.restore(true).unwrap().missing, 2);
    let meta = fs::metadata(mail.mailbox()).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (mail.uid, 0o640));
    assert_eq!(mail.text(), mbox(&[1, 2]).replace("X-UID: 1\n", "").replace("X-UID: 2\n", ""));
}

#[test]
fn a_lock_that_another_program_holds_is_respected() {
    let mail = Mail::new(&mbox(&[1]), Some(""));
    fs::write(mail.lock(), "4242\n").unwrap();
    let restored = mail.restore_once(|| fs::remove_file(mail.lock()).unwrap());
    assert_eq!(restored.missing, 1);

    let mail = Mail::new(&mbox(&[1]), Some(""));
    let held = fs::OpenOptions::new().write(true).open(mail.mailbox()).unwrap();
    let kind = i16::try_from(libc::F_WRLCK).unwrap();
    let whole = libc::flock { l_type: kind, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&held, FcntlArg::F_OFD_SETLK(&whole)).unwrap();
    let restored = mail.restore_once(|| {
        assert!(mail.lock().exists());
        drop(held);
    });
    assert_eq!(restored.missing, 1);
    assert!(!mail.lock().exists());
}

#[test]
fn nothing_is_written_where_the_mailbox_leads_elsewhere() {
    let mail = Mail::new(&mbox(&[1]), None);
    let target = mail.root.path().join("target");
    fs::write(&target, "not mail\n").unwrap();
    symlink(&target, mail.mailbox()).unwrap();
    assert!(matches!(mail.restore(true), Err(RestoreError::Failure(_))));
    assert_eq!(fs::read_to_string(&target).unwrap(), "not mail\n");
    assert!(!mail.lock().exists());
}

#[test]
fn only_an_archive_of_this_user_is_taken() {
    let mail = Mail::new(&mbox(&[1]), Some(""));
    fs::write(mail.root.path().join("arc/alice.b.1700000000"), mbox(&[9])).unwrap();
    for name in ["alice.b.1700000000", "../spool/alice", "alice", "/etc/passwd"] {
        let refused = mail.archiver().restore(&mail.user, mail.uid, Some(name), true);
        assert!(matches!(refused, Err(RestoreError::NotAnArchive { .. })), "{name}");
    }
    assert_eq!(mail.text(), "");
    let bob = UserName::new("bob").unwrap();
    let none = mail.archiver().restore(&bob, mail.uid, None, true);
    assert!(matches!(none, Err(RestoreError::NoArchive { .. })));
}

#[test]
fn a_lock_that_stays_is_named_with_its_pid_and_nothing_is_written() {
    let mail = Mail::new(&mbox(&[1]), Some(""));
    fs::write(mail.lock(), "2147483647\n").unwrap();
    let refused = mail.restore(true).unwrap_err().to_string();
    for part in ["spool/alice.lock", "s old", "holds pid 2147483647, which no longer runs"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    assert_eq!(mail.text(), "");
    assert!(mail.lock().exists());
}

fn try_to_lock(file: &fs::File) -> nix::Result<i32> {
    let kind = i16::try_from(libc::F_WRLCK).unwrap();
    let whole = libc::flock { l_type: kind, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole))
}

#[test]
fn a_mailbox_that_is_made_is_locked_while_it_is_filled() {
    // Large enough to be seen in between.
    let mail = Mail::new(&mbox(&(0..50_000).collect::<Vec<_>>()), None);
    std::thread::scope(|scope| {
        let restored = scope.spawn(|| mail.restore(true).unwrap());
        let begun = std::time::Instant::now();
        let file = loop {
            assert!(begun.elapsed() < Duration::from_secs(60) && !restored.is_finished());
            let file = fs::OpenOptions::new().write(true).open(mail.mailbox());
            match file {
                Ok(file) if file.metadata().unwrap().len() > 0 => break file,
                Ok(_) | Err(_) => std::thread::yield_now(),
            }
        };
        let locked = try_to_lock(&file);
        assert!(!restored.is_finished(), "too small to be seen in between");
        assert_eq!(locked, Err(nix::errno::Errno::EAGAIN));
        assert_eq!(restored.join().unwrap().missing, 50_000);
        try_to_lock(&file).unwrap();
    });
}

#[test]
fn who_interrupts_it_leaves_no_lock_and_no_half_of_a_message() {
    needs_root!();
    let mut mail = Mail::new(&mbox(&[1]), Some("kept\n"));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    (mail.uid, mail.user) = (nobody.uid.as_raw(), UserName::new("nobody").unwrap());
    let at = |name: &str| mail.root.path().join(name);
    for name in ["spool/nobody", "arc/nobody.1700000000"] {
        let like_alices = at(&name.replace("nobody", "alice"));
        fs::rename(like_alices, at(name)).unwrap();
        chown(at(name), Some(mail.uid), None).unwrap();
    }
    let policy = at("policy.yml");
    let text = include_str!("../../remediator.yml")
        .replace("/var/mail/arc", at("arc").to_str().unwrap())
        .replace("/var/mail", at("spool").to_str().unwrap());
    fs::write(&policy, text).unwrap();
    let held = fs::OpenOptions::new().write(true).open(at("spool/nobody")).unwrap();
    try_to_lock(&held).unwrap();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_procstorm-remediator"))
        .args(["restore", "--user", "nobody", "--apply", "--config.file"])
        .arg(&policy)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = std::time::Instant::now();
    while !at("spool/nobody.lock").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no lock");
        if program.try_wait().unwrap().is_some() {
            panic!("it ended: {:?}", program.wait_with_output());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&program);
    let pinned = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&pinned, rustix::process::Signal::INT).unwrap();
    let ended = program.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && said.contains("aborted"), "{ended:?}");
    assert!(!at("spool/nobody.lock").exists());
    assert_eq!(fs::read_to_string(at("spool/nobody")).unwrap(), "kept\n");
}
