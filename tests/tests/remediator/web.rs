//! Who may speak to the remediator, what it answers to nonsense, and how it starts, reloads, stops.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::host::{Host, Post, TOKEN, notification};
use procstorm_tests::http::Http;

const SOON: Duration = Duration::from_secs(60);

fn host() -> Result<Host, Fault> {
    Host::start("core-w", "", "")
}

#[test]
fn nonsense_is_answered_in_one_line_and_nothing_panics() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = host()?;
    let deep = format!("{{\"version\":{}", "[".repeat(200_000));
    let bomb = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].to_vec();
    let good = notification(&[Post::storm(uid, "core-w")]).to_string();
    let twice = good.replacen("\"alertname\":", "\"alertname\":\"x\",\"alertname\":", 1);
    for body in [
        Vec::new(),
        b"null".to_vec(),
        b"{\"version\":\"4\",\"alerts\":[]}".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        deep.into_bytes(),
        bomb,
        twice.into_bytes(),
        good.replace("\"4\"", "\"5\"").into_bytes(),
        good.replace("firing", "fir\u{202e}ing").into_bytes(),
    ] {
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        let answer = host.post_body(body)?;
        assert_eq!(answer.status, 400, "{shown}");
        assert_eq!(answer.body.matches('\n').count(), 1, "{:?}", answer.body);
        assert!(answer.body.len() < 400, "{:?}", answer.body);
    }
    // It is refused as soon as its length is told, and who is still sending then may find the
    // connection closed before the answer is read: as Alertmanager, ask again.
    let over = || host.post_body(vec![b' '; (1 << 20) + 1]).ok();
    assert_eq!(wait::until("an answer to what is too long", SOON, over)?.status, 413);
    assert_eq!(host.get("/nowhere")?.status, 404);
    assert_eq!(host.get("/webhook")?.status, 405);
    assert_eq!(host.get("/remediations/99")?.status, 404);
    assert_eq!(host.get("/remediations/x")?.status, 404);
    assert_eq!(host.get("/api/v1/remediations?before=x&limit=-1")?.status, 200);
    assert!(!host.daemon.log().contains("panic"), "{}", host.daemon.log());
    Ok(())
}

#[test]
fn only_the_token_opens_the_webhook() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = host()?;
    let http = Http::new()?;
    let body = notification(&[Post::storm(uid, "core-w")]).to_string();
    let good = format!("Bearer {TOKEN}");
    for value in ["", "Bearer", "Bearer x", &good.replace('a', "b"), &format!("{good}x")] {
        let headers = [("authorization", value)];
        let answer = http.post(&host.url("/webhook"), &headers, body.clone())?;
        assert_eq!((answer.status, answer.body.as_str()), (401, "unauthorized\n"), "{value:?}");
    }
    assert_eq!(http.post(&host.url("/webhook"), &[], body)?.status, 401);
    let told = "a post with a wrong token, or without one, was refused\" peer=127.0.0.1:";
    wait::until("the log", Duration::from_secs(60), || {
        host.daemon.log().contains(told).then_some(())
    })?;
    assert!(host.remediations()?.is_empty());
    for page in ["/", "/metrics", "/-/ready", "/api/v1/remediations"] {
        assert!(!host.get(page)?.body.contains(TOKEN), "{page}");
    }
    assert!(!host.daemon.log().contains(TOKEN));
    Ok(())
}

/// The status and the text of the answer to these bytes.
fn answer(host: &Host, bytes: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(host.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut text = Vec::new();
    // A connection that is reset has said enough before.
    stream.read_to_end(&mut text).ok();
    let text = String::from_utf8_lossy(&text).into_owned();
    (text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default(), text)
}

/// A remediator on the loopback without a token, which takes what anybody here posts.
fn open_host() -> Result<Host, Fault> {
    let mut host = host()?;
    host.stop()?;
    let policy = host.dir().join("remediator.yml");
    let text = fs::read_to_string(&policy).unwrap();
    let open = text.lines().filter(|line| !line.starts_with("token_file")).collect::<Vec<_>>();
    fs::write(&policy, open.join("\n")).unwrap();
    host.restart()?;
    Ok(host)
}

#[test]
fn on_the_loopback_no_web_page_reads_or_posts() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = open_host()?;
    let ask = |line: &str, headers: &str| {
        let head = format!("{line} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        answer(&host, &head).0
    };
    for page in ["/", "/api/v1/remediations", "/metrics", "/-/ready", "/style.css"] {
        let get = format!("GET {page}");
        for own in ["localhost", "localhost:8080", "127.0.0.1:9958", "127.8.7.6", "[::1]:80"] {
            assert_eq!(ask(&get, &format!("Host: {own}\r\n")), 200, "{page} {own}");
        }
        for other in ["evil.example", "evil.example:9958", "localhost.evil.example", "0.0.0.0"] {
            assert_eq!(ask(&get, &format!("Host: {other}\r\n")), 403, "{page} {other}");
        }
        for headers in [
            "",
            "Host: localhost\r\nHost: localhost\r\n",
            "Host: localhost\r\nHost: evil.example\r\n",
            "Host: a b\r\n",
            "Host: \r\n",
        ] {
            assert_eq!(ask(&get, headers), 400, "{page} {headers}");
        }
        let own = "Host: localhost\r\n";
        assert_eq!(ask(&get, &format!("{own}Origin: http://evil.example\r\n")), 403, "{page}");
        assert_eq!(ask(&get, &format!("{own}Sec-Fetch-Site: cross-site\r\n")), 403, "{page}");
    }
    assert_eq!(ask("GET http://evil.example/", "Host: localhost\r\n"), 403);
    let link = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n\
                Sec-Fetch-Dest: document\r\n";
    assert_eq!(ask("GET /", link), 200, "a link in a mail leads here");

    let body = notification(&[Post::storm(uid, "core-w")]).to_string();
    let post = |headers: &str| {
        let length = body.len();
        answer(
            &host,
            &format!(
                "POST /webhook HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\
                 {headers}\r\n{body}"
            ),
        )
    };
    let json = "Content-Type: application/json\r\n";
    for kind in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: text/plain; application/json\r\n",
        "Content-Type: application/json-patch+json\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
    ] {
        assert_eq!(post(&format!("Host: localhost\r\n{kind}")).0, 415, "{kind}");
    }
    for foreign in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(post(&format!("{foreign}{json}")).0, 403, "{foreign}");
    }
    assert!(host.remediations()?.is_empty(), "nothing of all this was taken");
    let (status, text) =
        post("Host: localhost\r\nContent-Type: Application/JSON; charset=utf-8\r\n");
    assert!(status == 200 && text.ends_with("1 accepted, 0 coalesced, 0 refused\n"), "{text}");
    let log = host.daemon.log();
    assert_eq!(log.matches("refused a request").count(), 1, "told, but not each time: {log}");
    Ok(())
}

#[test]
fn a_renewed_certificate_elsewhere_is_read_in_the_sandbox() -> Result<(), Fault> {
    needs_root!();
    let mut host = host()?;
    host.stop()?;
    // As certbot lays them out: a link in one directory to what is in another.
    let (live, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let issue = |number: u8| {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (name, text) in
            [("crt", certified.cert.pem()), ("key", certified.signing_key.serialize_pem())]
        {
            let file = archive.path().join(format!("{number}.{name}"));
            fs::write(&file, text).unwrap();
            let (link, new) = (live.path().join(name), live.path().join("new"));
            std::os::unix::fs::symlink(&file, &new).unwrap();
            fs::rename(new, link).unwrap();
        }
    };
    issue(1);
    let file = host.dir().join("web.yml");
    let live_path = live.path().display();
    let text =
        format!("tls_server_config: {{cert_file: {live_path}/crt, key_file: {live_path}/key}}\n");
    fs::write(&file, text).unwrap();
    host.relaunch(&[&format!("--web.config.file={}", file.display())])?;
    let connect = || TcpStream::connect(host.address()).ok();
    wait::until("it listens", SOON, connect)?;
    issue(2);
    wait::until("the new certificate is read", SOON, || {
        connect()?.write_all(b"no handshake").ok();
        host.daemon.log().contains("web configuration reloaded").then_some(())
    })?;
    // Between the two renames the key is still the old one: then the old pair serves on.
    let log = host.daemon.log();
    let failed = |line: &&str| line.contains("reload failed") && !line.contains("KeyMismatch");
    assert_eq!(log.lines().find(failed), None, "{log}");
    Ok(())
}

#[test]
fn whoever_shows_the_token_may_call_the_host_as_it_likes() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = host()?;
    let body = notification(&[Post::storm(uid, "core-w")]).to_string();
    let post = |token: &str| {
        let length = body.len();
        let head = format!(
            "POST /webhook HTTP/1.1\r\nHost: moscow.behind-a-proxy.example\r\n\
             Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        answer(&host, &head).0
    };
    assert_eq!(post("a-token-of-somebody-else"), 403);
    assert_eq!(post(TOKEN), 200);
    Ok(())
}

#[test]
fn a_slow_client_is_dropped_and_holds_up_no_other() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = host()?;
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(host.address()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let answer = wait::until("a good alert gets through", SOON, || {
        host.post(&[Post::storm(uid, "core-w").with("host", "elsewhere")]).ok()
    })?;
    assert_eq!(answer.status, 200);
    let first = slow.first_mut().unwrap();
    first.set_read_timeout(Some(SOON)).unwrap();
    let mut end = String::new();
    first.read_to_string(&mut end).unwrap();
    assert!(end.starts_with("HTTP/1.1 408"), "{end}");
    Ok(())
}

/// The log of a start that must fail.
fn refused(host: &mut Host, further: &[&str]) -> Result<String, Fault> {
    host.stop()?;
    host.relaunch(further)?;
    let status = wait::until("refuses to start", SOON, || host.daemon.exited().ok().flatten())?;
    assert!(!status.success());
    Ok(host.daemon.log())
}

#[test]
fn what_would_let_others_in_does_not_start() -> Result<(), Fault> {
    needs_root!();
    let mut host = host()?;
    let token = host.dir().join("token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let log = refused(&mut host, &[])?;
    assert!(log.contains("0644") && !log.contains(TOKEN), "{log}");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();

    let policy = host.dir().join("remediator.yml");
    let text = fs::read_to_string(&policy).unwrap();
    let open = text.lines().filter(|line| !line.starts_with("token_file")).collect::<Vec<_>>();
    fs::write(&policy, open.join("\n")).unwrap();
    let log = refused(&mut host, &["--web.listen-address=0.0.0.0:0"])?;
    assert!(log.contains("set token_file"), "{log}");
    // On loopback it may, and says so.
    host.restart()?;
    assert!(host.daemon.log().contains("every local process can send alerts"));

    fs::write(&policy, "host: 7\nplaybooks: {}\nnonsense: true\n").unwrap();
    let log = refused(&mut host, &[])?;
    for key in ["host: must be text", "playbooks: must not be empty", "nonsense: unknown key"] {
        assert!(log.contains(key), "{key} in {log}");
    }
    Ok(())
}

#[test]
fn a_reload_takes_the_good_and_leaves_the_bad() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let mut host = host()?;
    let status = "procstorm_config_last_reload_successful";
    host.wait_for_metric(status, 1.0)?;
    host.change_policy("core-w", "    threshold: nonsense", "")?;
    host.reload()?;
    host.wait_for_metric(status, 0.0)?;
    // The old policy is still in force.
    assert_eq!(
        host.post(&[Post::storm(uid, "core-w")])?.body,
        "1 accepted, 0 coalesced, 0 refused\n"
    );
    host.change_policy("another", "", "")?;
    fs::write(host.dir().join("token"), "another-token-for-the-loopback").unwrap();
    host.reload()?;
    host.wait_for_metric(status, 1.0)?;
    assert_eq!(host.post(&[Post::storm(uid, "core-w")])?.status, 401, "the token was changed");
    fs::write(host.dir().join("token"), TOKEN).unwrap();
    host.reload()?;
    wait::until("the token is back", SOON, || {
        let answer = host.post(&[Post::storm(uid, "core-w")]).ok()?;
        (answer.body == "0 accepted, 0 coalesced, 1 refused\n").then_some(())
    })?;
    assert!(host.stop()?.success(), "SIGTERM ends it with 0");
    Ok(())
}

#[test]
fn pages_come_with_headers_and_names_cannot_break_them() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = host()?;
    let hostile = "<script>alert(1)</script>\u{1b}[2J\nts=now level=error message=forged";
    host.post(&[Post::storm(uid, "core-w").with("user", hostile).with("alertname", hostile)])?;
    host.post(&[Post::storm(uid, "core-w").with("extra", hostile)])?;
    host.wait_for_verdicts(&["no_longer_true"])?;
    for page in ["/", "/remediations/1"] {
        assert!(!host.get(page)?.body.contains("<script>"), "{page}");
    }
    let log = host.daemon.log();
    assert!(!log.contains('\u{1b}'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("ts=now")), "{log}");
    Ok(())
}
