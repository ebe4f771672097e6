//! The token: where it must never be seen, who may replace it and when that counts, what is not
//! taken for it; and that nobody beyond this machine is served without it.
//!
//! Uids 46200-46299.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::port::free_port;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, TOKEN, notification};
use procstorm_tests::http::{Answer, Http};

const SOON: Duration = Duration::from_secs(60);

/// The token after a rotation.
const SECOND: &str = "the-second-token-for-the-loopback";

/// Nobody's token, but somebody's secret all the same: a slip of the hand sends it.
const SLIP: &str = "a-password-for-something-else";

fn host() -> Result<Host, Fault> {
    Host::start("gate-none", "", "")
}

/// Posts an alert that is refused whatever the token, so that nothing is done.
fn post_with(host: &Host, http: &Http, token: &str) -> Result<Answer, Fault> {
    let body = notification(&[Post::storm(46_200, "gate-none").with("host", "elsewhere")]);
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", &*authorization), ("content-type", "application/json")];
    http.post(&host.url("/webhook"), &headers, body.to_string())
}

/// Puts a token into a file as a deployment does: beside the old one, then over it.
fn put(path: &Path, token: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, token).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

/// The log of a start that must fail.
fn refused(host: &mut Host, further: &[&str]) -> Result<String, Fault> {
    host.relaunch(further)?;
    let status = wait::until("refuses to start", SOON, || host.daemon.exited().ok().flatten())?;
    assert!(!status.success());
    Ok(host.daemon.log())
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, mut all): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    all.extend(directories.iter().flat_map(|directory| files(directory)));
    all
}

#[test]
fn the_token_is_seen_nowhere() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = host()?;
    host.stop()?;
    host.relaunch(&["--log.level=debug"])?;
    let http = Http::new()?;
    wait::until("it is up", SOON, || host.get("/-/healthy").ok())?;
    assert_eq!(host.post(&[Post::storm(uid, "gate-none")])?.status, 200);
    host.wait_for_verdicts(&["no_longer_true"])?;
    // What is no HTTP is told at the level of debug.
    let mut stream = TcpStream::connect(host.address()).unwrap();
    stream.write_all(format!("Bearer {TOKEN} {SLIP}\r\n\r\n").as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let mut answers = vec![post_with(&host, &http, SLIP)?, post_with(&host, &http, TOKEN)?];
    answers.push(host.post_body(b"{\"version\":".to_vec())?);
    put(&host.dir().join("token"), &format!("{SLIP} {TOKEN}"), 0o600);
    host.reload()?;
    host.wait_for_metric("procstorm_config_last_reload_successful", 0.0)?;
    for page in ["/", "/remediations/1", "/api/v1/remediations", "/metrics", "/-/ready", "/x"] {
        answers.push(host.get(page)?);
    }
    let process = format!("/proc/{}", host.daemon.pid());
    let mut seen: Vec<(String, Vec<u8>)> = ["cmdline", "environ"]
        .map(|name| (name.to_owned(), fs::read(format!("{process}/{name}")).unwrap()))
        .into();
    seen.extend(answers.into_iter().map(|answer| (answer.body.clone(), answer.body.into())));
    assert!(host.stop()?.success());
    fs::remove_file(host.dir().join("token")).unwrap();
    let kept = files(host.dir());
    assert!(kept.iter().any(|path| path.ends_with("journal.sqlite")), "{kept:?}");
    assert!(host.daemon.log().contains("level=debug"), "{}", host.daemon.log());
    seen.extend(kept.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())));
    for (place, bytes) in seen {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(TOKEN) && !text.contains(SLIP), "in {place}");
    }
    Ok(())
}

#[test]
fn what_is_not_the_token_alone_is_refused() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = host()?;
    let http = Http::new()?;
    let padded = format!("{TOKEN}{}", "x".repeat(50));
    for length in (0..padded.len()).filter(|&length| length != TOKEN.len()) {
        let (start, _) = padded.split_at(length);
        for wrong in [start, &"x".repeat(length)] {
            assert_eq!(post_with(&host, &http, wrong)?.status, 401, "{wrong:?}");
        }
    }
    assert_eq!(post_with(&host, &http, &"x".repeat(TOKEN.len()))?.status, 401);
    let body = notification(&[Post::storm(uid, "gate-none")]).to_string();
    let raw = |target: &str, headers: &str| {
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n"
        );
        let mut stream = TcpStream::connect(host.address()).unwrap();
        stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let wrong = "Authorization: Bearer x\r\n";
    for headers in [
        format!("{right}{wrong}"),
        format!("{wrong}{right}"),
        format!("{right}{right}"),
        right.replace("\r\n", ", Bearer x\r\n"),
        right.replace("Bearer ", "Bearer  "),
        right.replace("Bearer ", "Bearer\t"),
        right.replace("Bearer ", "Basic "),
        right.replace("Bearer ", ""),
        right.replace("Authorization", "Proxy-Authorization"),
        right.replace("Authorization", "X-Authorization"),
        format!("Cookie: Authorization=Bearer {TOKEN}\r\n"),
    ] {
        let answer = raw("/webhook", &headers);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{headers:?}: {answer}");
        assert!(answer.ends_with("\r\n\r\nunauthorized\n"), "{headers:?}: {answer}");
    }
    let answer = raw(&format!("/webhook?token={TOKEN}&access_token={TOKEN}"), "");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(host.remediations()?.is_empty());
    let answer = raw("/webhook", &right);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

#[test]
fn a_rotation_leaves_no_gap_and_no_way_back() -> Result<(), Fault> {
    needs_root!();
    let host = host()?;
    let (http, file) = (Http::new()?, host.dir().join("token"));
    let takes = |token: &str| post_with(&host, &http, token).map(|answer| answer.status == 200);
    for (old, new) in [(TOKEN, SECOND), (SECOND, TOKEN), (TOKEN, SECOND)] {
        assert!(takes(old)? && !takes(new)?);
        put(&file, new, 0o600);
        assert!(takes(old)?, "the file alone changes nothing");
        host.reload()?;
        let mut asked = 0;
        wait::until("the new one counts", SOON, || {
            asked += 1;
            // Asked in this order, one of the two must be taken at any moment.
            let old_counts = takes(old).unwrap();
            let new_counts = takes(new).unwrap();
            assert!(old_counts || new_counts, "a gap, at question {asked}");
            new_counts.then_some(())
        })?;
        for _ in 0..20 {
            assert!(!takes(old)? && takes(new)?);
        }
    }
    // What is no good replaces nothing.
    let reload = "procstorm_config_last_reload_successful";
    for (token, mode) in [(TOKEN, 0o644), (TOKEN, 0o640), ("short", 0o600), ("", 0o600)] {
        put(&file, SECOND, 0o600);
        host.reload()?;
        host.wait_for_metric(reload, 1.0)?;
        put(&file, token, mode);
        host.reload()?;
        host.wait_for_metric(reload, 0.0)?;
        assert!(takes(SECOND)? && !takes(TOKEN)?, "{token} {mode:o}");
    }
    fs::remove_file(&file).unwrap();
    host.reload()?;
    wait::until("the loss is told", SOON, || {
        host.daemon.log().contains("No such file").then_some(())
    })?;
    assert!(takes(SECOND)? && !takes("")?);
    Ok(())
}

/// A symlink is followed, since deployments use them; what counts is the file at its end.
#[test]
fn a_token_file_that_others_can_reach_or_own_is_refused() -> Result<(), Fault> {
    needs_root!();
    let mut host = host()?;
    host.stop()?;
    let (file, real) = (host.dir().join("token"), host.dir().join("real"));
    fs::rename(&file, &real).unwrap();
    symlink("real", &file).unwrap();
    for mode in [0o644, 0o640, 0o660, 0o604, 0o610] {
        fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
        let log = refused(&mut host, &[])?;
        assert!(log.contains(&format!("{mode:04o}")) && !log.contains(TOKEN), "{log}");
    }
    fs::set_permissions(&real, fs::Permissions::from_mode(0o400)).unwrap();
    chown(&real, Some(46_220), Some(46_220)).unwrap();
    let log = refused(&mut host, &[])?;
    assert!(log.contains("46220") && !log.contains(TOKEN), "{log}");
    chown(&real, Some(0), Some(0)).unwrap();
    for dangling in ["nowhere", "token", ".", "/dev/zero"] {
        fs::remove_file(&file).unwrap();
        symlink(dangling, &file).unwrap();
        refused(&mut host, &[])?;
    }
    fs::remove_file(&file).unwrap();
    symlink("real", &file).unwrap();
    host.restart()?;
    assert_eq!(host.post(&[Post::storm(46_221, "gate-none")])?.status, 200);
    Ok(())
}

#[test]
fn nobody_from_elsewhere_is_served_without_a_guard() -> Result<(), Fault> {
    needs_root!();
    let mut host = host()?;
    host.stop()?;
    let policy = host.dir().join("remediator.yml");
    let guarded = fs::read_to_string(&policy).unwrap();
    let open: Vec<_> = guarded.lines().filter(|line| !line.starts_with("token_file")).collect();
    fs::write(&policy, open.join("\n")).unwrap();
    let empty = host.dir().join("web.yml");
    fs::write(&empty, "").unwrap();
    let empty = format!("--web.config.file={}", empty.display());
    for address in ["0.0.0.0:0", "[::]:0", ":0", "[::ffff:0.0.0.0]:0"] {
        let listen = format!("--web.listen-address={address}");
        for further in [
            vec![listen.as_str()],
            vec![&listen, &empty],
            vec!["--web.listen-address=127.0.0.1:0", &listen],
        ] {
            let log = refused(&mut host, &further)?;
            assert!(log.contains("can be reached from elsewhere"), "{further:?}: {log}");
        }
    }
    // What is the loopback in whatever way may be served.
    let http = Http::new()?;
    for address in ["127.0.0.1", "127.8.9.10", "[::1]", "[::ffff:127.0.0.1]"] {
        let port = free_port()?;
        host.relaunch(&[&format!("--web.listen-address={address}:{port}")])?;
        let asked = if address.contains("ffff") { "127.0.0.1" } else { address };
        let url = format!("http://{asked}:{port}");
        wait::until(address, SOON, || http.is_ok(&format!("{url}/-/healthy")).then_some(()))?;
        assert_eq!(http.get(&url)?.status, 200, "{address}");
        assert!(host.stop()?.success());
    }
    // With the token it serves everybody, and shows its pages only to who has it.
    fs::write(&policy, guarded).unwrap();
    let port = free_port()?;
    host.relaunch(&[&format!("--web.listen-address=0.0.0.0:{port}")])?;
    let url = format!("http://127.0.0.1:{port}");
    wait::until("it is up", SOON, || http.is_ok(&format!("{url}/-/healthy")).then_some(()))?;
    for page in ["/", "/remediations/1", "/api/v1/remediations", "/webhook"] {
        let wanted = if page == "/webhook" { 405 } else { 401 };
        assert_eq!(http.get(&format!("{url}{page}"))?.status, wanted, "{page}");
    }
    assert_eq!(http.get(&format!("{url}/metrics"))?.status, 200);
    Ok(())
}
