//! A name service that does not answer, or that the sandbox keeps from its files, holds up nobody but
//! those whom only it knows, and never in silence.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use procstorm_testkit::accounts::Accounts;
use procstorm_testkit::fault::{Beside as _, Fault};
use procstorm_testkit::uids::{claim_uid, claim_uids};
use procstorm_testkit::{needs_root, programs, wait};
use procstorm_tests::host::{Host, Post, notification};
use procstorm_tests::storm::Storm;

const SOON: Duration = Duration::from_secs(60);

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../exporter/tests/program");

/// Builds the module `name` from `name.c` into `directory`, with these definitions. Returns its path.
fn build(name: &str, directory: &Path, definitions: &[String]) -> PathBuf {
    let library = format!("libnss_{name}.so.2");
    let module = directory.join(&library);
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall"])
        .arg(format!("-Wl,-soname,{library}"))
        .args(definitions.iter().map(|definition| format!("-D{definition}")))
        .arg("-o")
        .args([module.as_path(), &Path::new(SOURCES).join(format!("{name}.c"))])
        .status();
    assert!(status.unwrap().success());
    module
}

/// The module that does not answer as long as `hang` exists.
fn build_hanging(directory: &Path, hang: &Path) -> PathBuf {
    build("hang", directory, &[format!("HANG_FILE=\"{}\"", hang.display())])
}

/// The module that reads the file `users` in `directory`, and behaves as `further` says.
fn build_far(directory: &Path, further: &[&str]) -> PathBuf {
    let file = format!("FAR_FILE=\"{}\"", directory.join("users").display());
    let further = further.iter().map(|definition| (*definition).to_owned());
    let definitions: Vec<_> = [file].into_iter().chain(further).collect();
    build("far", directory, &definitions)
}

/// Waits until `/-/ready` says each of `parts`.
fn wait_until_ready_says(host: &Host, parts: &[&str]) -> Result<(), Fault> {
    let said = || host.get("/-/ready").map(|answer| answer.body).unwrap_or_default();
    wait::until("/-/ready says it", SOON, || {
        parts.iter().all(|part| said().contains(part)).then_some(())
    })
    .map_err(|fault| Fault::new(format!("{}: {:?}\n{}", fault.whole(), said(), host.daemon.log())))
}

#[test]
fn a_name_service_that_hangs_delays_no_answer_and_nobody_else() -> Result<(), Fault> {
    needs_root!();
    let [known, unknown, quick] = claim_uids();
    let directory = tempfile::tempdir().unwrap();
    let hang = directory.path().join("hang");
    let module = build_hanging(directory.path(), &hang);
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let service = Some(("hang", module.as_path()));
    let host = Host::start_served(&[("quick", quick)], service, "core-n", playbook, "")?;
    let alert = |user: &str| Post::storm(0, "core-n").with("user", user);

    // The name service answers, and the journal learns a uid.
    let first = Storm::raise(known, b"core-n", 6)?;
    host.post(&[alert(&format!("nss{known}"))])?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(first.living()?, 0);

    fs::write(&hang, "").unwrap();
    let again = Storm::raise(known, b"core-n", 6)?;
    let stuck = Storm::raise(unknown, b"core-n", 6)?;
    let other = Storm::raise(quick, b"core-n", 6)?;
    let answer = host.post(&[
        alert(&format!("nss{unknown}")),
        alert(&format!("nss{known}")),
        alert("quick"),
    ])?;
    assert_eq!(answer.body, "3 accepted, 0 coalesced, 0 refused\n");
    for storm in [&other, &again] {
        host.wait_until_dead(storm)?;
    }
    // Whom nobody knows is left alone, waits, and is not forgotten.
    assert_eq!(stuck.living()?, 6);
    assert!(host.daemon.log().contains("using the uid recorded"), "{}", host.daemon.log());
    let answer = host.post(&[alert(&format!("nss{unknown}"))])?;
    assert_eq!(answer.body, "0 accepted, 1 coalesced, 0 refused\n");

    fs::remove_file(&hang).unwrap();
    host.wait_until_dead(&stuck)?;
    host.wait_for_verdicts(&["none_seen"; 4])
}

#[test]
fn whoever_may_be_protected_is_left_alone_until_the_name_service_says() -> Result<(), Fault> {
    needs_root!();
    let [protected, other] = claim_uids();
    let directory = tempfile::tempdir().unwrap();
    let hang = directory.path().join("hang");
    let module = build_hanging(directory.path(), &hang);
    fs::write(&hang, "").unwrap();
    let users = [("alice", protected), ("bob", other)];
    let service = Some(("hang", module.as_path()));
    // Only the service that hangs knows that this is another name of alice's uid.
    let playbook = "    settle: 0s\n    cooldown: 0s";
    let top =
        format!("accounts: {{min_uid: 1000, allow_nameless: true, protected: [nss{protected}]}}");
    let host = Host::start_served(&users, service, "core-p", playbook, &top)?;
    let alices = Storm::raise(protected, b"core-p", 6)?;
    let bobs = Storm::raise(other, b"core-p", 6)?;
    let alert = |user: &str| Post::storm(0, "core-p").with("user", user);
    host.post(&[alert("alice"), alert("bob")])?;
    wait::until("it says that it cannot tell", SOON, || {
        let log = host.daemon.log();
        (log.matches("cannot tell whether the policy protects the account").count() >= 2)
            .then_some(())
    })?;
    assert_eq!((alices.living()?, bobs.living()?), (6, 6));

    fs::remove_file(&hang).unwrap();
    host.wait_until_dead(&bobs)?;
    wait::until("alice is refused", SOON, || {
        host.daemon.log().contains("protected_user").then_some(())
    })?;
    assert_eq!(alices.living()?, 6);
    Ok(())
}

#[test]
fn a_group_that_cannot_be_read_at_the_moment_holds_every_kill_back() -> Result<(), Fault> {
    needs_root!();
    let [member, other] = claim_uids();
    let directory = tempfile::tempdir().unwrap();
    let hang = directory.path().join("hang");
    let module = build_hanging(directory.path(), &hang);
    let service = Some(("hang", module.as_path()));
    // Only the service that hangs knows who the group's member is.
    let group = format!("@crew:nss{member}");
    let users = [("bob", other), (group.as_str(), 59_991)];
    let top = "accounts: {protected: [\"@crew\"]}";
    let host =
        Host::start_served(&users, service, "core-c", "    settle: 0s\n    cooldown: 0s", top)?;
    let alert = |user: &str| Post::storm(0, "core-c").with("user", user);
    let bobs = Storm::raise(other, b"core-c", 6)?;
    let members = Storm::raise(member, b"core-c", 6)?;
    host.post(&[alert("bob"), alert(&format!("nss{member}"))])?;
    host.wait_until_dead(&bobs)?;
    wait::until("the member is refused", SOON, || {
        host.daemon.log().contains("protected_user").then_some(())
    })?;

    // What was answered holds for a moment only.
    fs::write(&hang, "").unwrap();
    wait::until("the answer is too old", SOON, {
        let begun = Instant::now();
        move || (begun.elapsed() > Duration::from_secs(6)).then_some(())
    })?;
    let bobs = Storm::raise(other, b"core-c", 6)?;
    host.post(&[alert("bob")])?;
    wait::until("it says that it cannot tell", SOON, || {
        let told = "does not say who group \\\"crew\\\" is";
        (host.daemon.log().matches(told).count() >= 2).then_some(())
    })
    .beside(|| host.daemon.log())?;
    assert_eq!(bobs.living()?, 6, "bob may be a member by now");

    fs::remove_file(&hang).unwrap();
    host.wait_until_dead(&bobs)?;
    assert_eq!(members.living()?, 6);
    Ok(())
}

/// The module that knows alice's groups as long as neither of the files `away` and `refused` is in
/// `directory`.
fn build_half(directory: &Path, [half, far]: [u32; 2]) -> PathBuf {
    let definitions = [
        format!("HALF_DIR=\"{}\"", directory.display()),
        "MEMBER=\"alice\"".to_owned(),
        format!("HALF_GID={half}"),
        format!("FAR_GID={far}"),
    ];
    build("half", directory, &definitions)
}

#[test]
fn who_is_in_a_protected_group_by_a_directory_alone_stays_protected_while_it_is_away()
-> Result<(), Fault> {
    needs_root!();
    let [alice, bob, half, far] = claim_uids();
    // A group that the local files have as well, without her; and one that only the directory has.
    for (group, told) in [("half", "does not say so now"), ("far", "does not say who group")] {
        let directory = tempfile::tempdir().unwrap();
        let module = build_half(directory.path(), [half, far]);
        let users = [("alice", alice), ("bob", bob), ("@half:", half)];
        let top = format!("accounts: {{protected: [\"@{group}\"]}}");
        let playbook = "    settle: 0s\n    cooldown: 0s";
        let service = Some(("half", module.as_path()));
        let mut host = Host::start_served(&users, service, "core-2", playbook, &top)?;
        let alert = |user: &str| Post::storm(0, "core-2").with("user", user);
        let alices = Storm::raise(alice, b"core-2", 6)?;
        host.post(&[alert("alice")])?;
        host.wait_for_verdicts(&["protected_user"])?;

        // After a restart nothing but the journal knows it.
        host.stop()?;
        fs::write(directory.path().join("away"), "").unwrap();
        host.restart()?;
        host.post(&[alert("alice")])?;
        wait::until("it says that it cannot tell", SOON, || {
            host.daemon.log().contains(told).then_some(())
        })
        .beside(|| host.daemon.log())?;
        assert_eq!(alices.living()?, 6, "{group}");
        fs::remove_file(directory.path().join("away")).unwrap();
        host.wait_for_verdicts(&["protected_user"; 2])?;
        let bobs = Storm::raise(bob, b"core-2", 6)?;
        host.post(&[alert("bob")])?;
        host.wait_until_dead(&bobs)?;
        assert_eq!(alices.living()?, 6, "{group}");
    }
    Ok(())
}

#[test]
fn a_source_of_groups_that_says_that_it_is_away_makes_nobody_unprotected() -> Result<(), Fault> {
    needs_root!();
    let [alice, half, far] = claim_uids();
    let directory = tempfile::tempdir().unwrap();
    let module = build_half(directory.path(), [half, far]);
    let refused = directory.path().join("refused");
    fs::write(&refused, "").unwrap();
    let users = [("alice", alice), ("@half:", half)];
    let top = "accounts: {protected: [\"@half\"]}";
    let service = Some(("half", module.as_path()));
    // Nothing is remembered: this is the first question of a new journal.
    let host = Host::start_served(&users, service, "core-3", "    settle: 0s", top)?;
    let alices = Storm::raise(alice, b"core-3", 6)?;
    host.post(&[Post::storm(0, "core-3").with("user", "alice")])?;
    wait::until("it says that it cannot tell", SOON, || {
        host.daemon.log().contains("does not say in which groups alice is").then_some(())
    })
    .beside(|| host.daemon.log())?;
    assert_eq!(alices.living()?, 6);
    fs::remove_file(&refused).unwrap();
    host.wait_for_verdicts(&["protected_user"])?;
    assert_eq!(alices.living()?, 6);
    Ok(())
}

#[test]
fn accounts_that_the_sandbox_hides_are_named_and_not_called_unknown() -> Result<(), Fault> {
    needs_root!();
    let playbook = "    settle: 0s\n    cooldown: 0s";
    // Whether the module lists its accounts, fails, or says that there is none.
    for (further, told) in [
        (["FAR_LISTS", "FAR_SILENT"].as_slice(), "account \"USER\": not found"),
        (&["FAR_LISTS"], "account \"USER\": Permission denied"),
        (&[], "account \"procstorm-no-such-account\": Permission denied"),
    ] {
        let ([uid, near], away) = (claim_uids(), tempfile::tempdir().unwrap());
        let user = format!("far{uid}");
        let told = told.replace("USER", &user);
        fs::write(away.path().join("users"), format!("{user} {uid}\n")).unwrap();
        let module = build_far(away.path(), further);
        let service = Some(("far", module.as_path()));
        let mut host = Host::start_served(&[("near", near)], service, "core-f", playbook, "")?;
        wait_until_ready_says(&host, &[&told, "libnss_far.so.2", "sandbox.read"])?;
        let storm = Storm::raise(uid, b"core-f", 6)?;
        let alert = Post::storm(0, "core-f").with("user", &user);
        host.post(std::slice::from_ref(&alert))?;
        wait::until("the user is not found", SOON, || {
            host.daemon.log().contains("in the sandbox the name service").then_some(())
        })?;
        host.wait_for_verdicts(&["running"])?;
        assert_eq!(storm.living()?, 6, "{}", host.daemon.log());

        // As it says what to do, that is done.
        let read = format!("sandbox: {{read: [{}]}}", away.path().display());
        host.change_policy("core-f", playbook, &read)?;
        host.stop()?;
        host.restart()?;
        host.wait_until_ready()?;
        host.wait_until_dead(&storm)?;
        host.wait_for_verdicts(&["none_seen"])?;
    }
    Ok(())
}

#[test]
fn a_service_that_shows_nobody_at_the_start_makes_no_user_unknown() -> Result<(), Fault> {
    needs_root!();
    let away = tempfile::tempdir().unwrap();
    let users = away.path().join("users");
    let [uid, near] = claim_uids();
    let user = format!("far{uid}");
    fs::write(&users, format!("{user} {uid}\n")).unwrap();
    // Neither a list nor an error betrays that it cannot read.
    let module = build_far(away.path(), &["FAR_SILENT"]);
    let service = Some(("far", module.as_path()));
    let host = Host::start_served(&[("near", near)], service, "core-g", "", "")?;
    let storm = Storm::raise(uid, b"core-g", 6)?;
    host.post(&[Post::storm(0, "core-g").with("user", &user)])?;
    let told = "asks far (libnss_far.so.2), and whether it can answer in the sandbox is not known";
    wait::until("the user is not found", SOON, || host.daemon.log().contains(told).then_some(()))?;
    host.wait_for_verdicts(&["running"])?;
    assert_eq!(storm.living()?, 6);
    Ok(())
}

#[test]
fn a_name_service_that_hangs_does_not_delay_the_start() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let directory = tempfile::tempdir().unwrap();
    let hang = directory.path().join("hang");
    let module = build_hanging(directory.path(), &hang);
    fs::write(&hang, "").unwrap();
    let service = Some(("hang", module.as_path()));
    let host = Host::start_served(&[("quick", uid)], service, "core-h", "    settle: 0s", "")?;
    assert!(host.daemon.log().contains("the name service does not answer within 1s"));
    let storm = Storm::raise(uid, b"core-h", 6)?;
    host.post(&[Post::storm(0, "core-h").with("user", "quick")])?;
    host.wait_until_dead(&storm)?;
    fs::remove_file(&hang).unwrap();
    host.wait_until_ready()
}

#[test]
fn explain_says_what_the_daemon_would_find_in_its_sandbox() -> Result<(), Fault> {
    needs_root!();
    let away = tempfile::tempdir().unwrap();
    fs::write(away.path().join("users"), "far47190 47190\n").unwrap();
    let module = build_far(away.path(), &["FAR_SILENT"]);
    let host = Host::start("core-x", "", "")?;
    let accounts = Accounts::only(&[("near", 47_191)], away.path())?.served_by("far", &module)?;
    let payload = away.path().join("payload.json");
    let alert = Post::storm(0, "core-x").with("user", "far47190");
    fs::write(&payload, notification(&[alert]).to_string()).unwrap();
    let said = |further: &[&str]| -> Result<String, Fault> {
        let mut command = accounts.command(&programs::ours("procstorm-remediator")?)?;
        command.arg("explain").arg("--payload").arg(&payload).args(further);
        command.arg("--config.file").arg(host.dir().join("remediator.yml"));
        let output = command.output().unwrap();
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let confined = said(&[])?;
    let why =
        "in the daemon's sandbox the name service knows no such account, though outside of it";
    assert!(confined.contains(why) && confined.contains("sandbox.read"), "{confined}");
    // It is known outside, and to a daemon that may read there.
    let below = "0 processes live, below the threshold";
    let free = said(&["--no-sandbox"])?;
    assert!(free.contains(below), "{free}");
    let read = format!("sandbox: {{read: [{}]}}", away.path().display());
    host.change_policy("core-x", "", &read)?;
    let confined = said(&[])?;
    assert!(confined.contains(below), "{confined}");
    Ok(())
}
