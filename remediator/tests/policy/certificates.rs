//! The certificates of a fleet: good for what they are for and for nothing else, renewed in time, and
//! never at the cost of a file that is not this command's.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use procstorm_remediator::args::Certificates;
use procstorm_remediator::commands::certificates::write;
use procstorm_testkit::programs;
use tempfile::TempDir;

const HOSTS: &str = "- labels: {role: mail}
  targets: ['moscow:9957', '[2001:db8::1]:9957', 'Kiev.example.org.']
- labels: {role: mail, host: am}
  targets: ['192.0.2.7:9957']
";

const DAY: i64 = 24 * 60 * 60;

/// 2026-01-01.
const BEGIN: i64 = 1_767_225_600;

/// A directory with a list of hosts, and what is made of it.
struct World {
    directory: TempDir,
    order: Certificates,
}

impl World {
    fn of(hosts: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let targets = directory.path().join("targets.yml");
        fs::write(&targets, hosts).expect("written");
        let output = directory.path().join("pki");
        let order =
            Certificates { targets, output, days: 365, ca_days: 3650, server: vec!["am1".into()] };
        Self { directory, order }
    }

    fn made() -> Self {
        let world = Self::of(HOSTS);
        world.run(0).expect("made");
        world
    }

    /// Runs on that day.
    fn run(&self, day: i64) -> Result<String, String> {
        let now = Timestamp::from_second(BEGIN + day * DAY).expect("a time");
        let short =
            |text: String| text.replace(&format!("{}/", self.directory.path().display()), "");
        write(&self.order, now).map(short).map_err(|error| short(error.to_string()))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.order.output.join(name)
    }

    /// All files with what is in them.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for directory in ["", "hosts", "clients", "servers"] {
            let Ok(entries) = fs::read_dir(self.at(directory)) else { continue };
            for entry in entries.map(|entry| entry.expect("an entry")) {
                if entry.file_type().expect("a type").is_file() {
                    let name = entry.file_name().into_string().expect("a name");
                    let name = Path::new(directory).join(name).display().to_string();
                    files.insert(name, fs::read(entry.path()).expect("read"));
                }
            }
        }
        files
    }

    /// What is refused; nothing has changed then.
    fn refusal(&self, day: i64) -> String {
        let before = self.files();
        let said = self.run(day).expect_err("refused");
        assert!(self.files() == before, "something was written: {said}");
        said
    }
}

/// What `openssl verify` says of a certificate on that day, by what is in this ca.crt.
fn verified(authorities: &Path, certificate: &Path, day: f64, more: &[&str]) -> Result<(), String> {
    #[expect(clippy::as_conversions, reason = "a day of a test")]
    let time = BEGIN + (day * 86_400.0) as i64;
    let output = Command::new(programs::other("openssl").expect("openssl"))
        .args(["verify", "-x509_strict", "-attime", &time.to_string(), "-CAfile"])
        .arg(authorities)
        .args(more)
        .arg(certificate)
        .output()
        .expect("openssl runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn each_certificate_is_good_for_its_purpose_and_its_names_alone() {
    let world = World::made();
    let of = |name: &str, more: &[&str]| {
        verified(&world.at("ca.crt"), &world.at(name), 1.0, more).is_ok()
    };
    for (name, purpose, other) in [
        ("hosts/moscow.crt", "sslserver", "sslclient"),
        ("hosts/am.crt", "sslserver", "sslclient"),
        ("servers/am1.crt", "sslserver", "sslclient"),
        ("client.crt", "sslclient", "sslserver"),
        ("prometheus.crt", "sslclient", "sslserver"),
        ("clients/am.crt", "sslclient", "sslserver"),
    ] {
        assert!(of(name, &["-purpose", purpose]), "{name} as {purpose}");
        assert!(!of(name, &["-purpose", other]), "{name} as {other}");
    }
    for (name, flag, is, is_not) in [
        ("hosts/moscow.crt", "-verify_hostname", "moscow", "kiev"),
        ("hosts/Kiev.example.org..crt", "-verify_hostname", "kiev.example.org", "example.org"),
        ("hosts/2001:db8::1.crt", "-verify_ip", "2001:db8::1", "2001:db8::2"),
        ("hosts/am.crt", "-verify_ip", "192.0.2.7", "192.0.2.8"),
        ("hosts/am.crt", "-verify_hostname", "am", "am1"),
        ("client.crt", "-verify_hostname", "am", "prometheus"),
        ("prometheus.crt", "-verify_hostname", "prometheus", "am"),
    ] {
        assert!(of(name, &[flag, is]), "{name} is {is}");
        assert!(!of(name, &[flag, is_not]), "{name} is not {is_not}");
    }
    // A host that is called as Alertmanager is known to the hosts does not pass as it.
    assert!(!of("clients/am.crt", &["-verify_hostname", "am"]));
    // The authority signs no other authority, and is none of a server.
    assert!(!of("ca.crt", &["-purpose", "sslserver", "-verify_hostname", "moscow"]));
}

#[test]
fn a_host_whose_clock_is_a_day_late_accepts_them_and_none_does_after_their_end() {
    let world = World::made();
    let on = |day| verified(&world.at("ca.crt"), &world.at("hosts/moscow.crt"), day, &[]).is_ok();
    for (day, is_good) in
        [(-1.01, false), (-0.99, true), (0.0, true), (364.9, true), (365.1, false)]
    {
        assert_eq!(on(day), is_good, "on day {day}");
    }
}

#[test]
fn keys_are_their_owners_alone_and_certificates_are_readable() {
    let world = World::made();
    let mode = |name: &str| {
        let data = fs::metadata(world.at(name)).expect("there");
        format!("{:04o}", data.permissions().mode() & 0o7777)
    };
    let files = world.files();
    assert_eq!(files.len(), 2 + 2 * (2 + 2 * 4 + 1) + 1, "{:?}", files.keys());
    for (name, _) in files.iter().filter(|(name, _)| *name != ".lock") {
        assert_eq!(mode(name), if name.ends_with(".key") { "0600" } else { "0644" }, "{name}");
    }
    for directory in ["", "hosts", "clients", "servers"] {
        assert_eq!(mode(directory), "0700", "{directory}");
    }
}

#[test]
fn what_is_good_stays_byte_for_byte_and_what_is_due_is_renewed_with_the_same_key() {
    let world = World::made();
    let first = world.files();
    let said = world.run(242).expect("again");
    assert!(said.starts_with("pki: 0 certificates are new, 0 renewed, 11 unchanged.\n"), "{said}");
    assert!(said.contains("by 2026-09-01 00:00 UTC: then the first"), "{said}");
    assert!(world.files() == first);

    let said = world.run(243).expect("again");
    assert!(said.starts_with("pki: 0 certificates are new, 11 renewed, 0 unchanged.\n"), "{said}");
    let second = world.files();
    for (name, bytes) in &first {
        let changes = name.ends_with(".crt") && name != "ca.crt";
        assert_eq!(second.get(name) != Some(bytes), changes, "{name}");
    }
    verified(&world.at("ca.crt"), &world.at("hosts/moscow.crt"), 600.0, &[]).expect("good");
    let serial = |bytes: &[u8]| {
        let file = world.directory.path().join("one.crt");
        fs::write(&file, bytes).expect("written");
        let args = ["x509", "-noout", "-serial", "-in"];
        let openssl = programs::other("openssl").expect("openssl");
        Command::new(openssl).args(args).arg(&file).output().expect("openssl runs").stdout
    };
    let moscow = "hosts/moscow.crt";
    assert_ne!(serial(&first[moscow]), serial(&second[moscow]), "two numbers");
}

#[test]
fn a_host_that_comes_leaves_or_moves_has_its_certificate_alone_changed() {
    let world = World::made();
    let first = world.files();
    let list = HOSTS.replace("'moscow:9957'", "'riga:9957'").replace("192.0.2.7", "192.0.2.8");
    fs::write(&world.order.targets, list).expect("written");
    let said = world.run(1).expect("again");
    assert!(said.contains("New: hosts/riga, clients/riga.\nRenewed: hosts/am.\n"), "{said}");
    assert!(
        said.contains("neither renewed nor deleted: pki/clients/moscow, pki/hosts/moscow."),
        "{said}"
    );
    let second = world.files();
    let changed: Vec<_> =
        first.iter().filter(|(name, was)| second.get(*name) != Some(*was)).collect();
    let changed: Vec<_> = changed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(changed, ["hosts/am.crt"]);
    let at = ["-verify_ip", "192.0.2.8"];
    verified(&world.at("ca.crt"), &world.at("hosts/am.crt"), 2.0, &at).expect("moved");

    // Without further servers, the hosts need no certificates as clients.
    let world = World { order: Certificates { server: Vec::new(), ..world.order }, ..world };
    let said = world.run(1).expect("again");
    assert!(said.contains("pki/clients/2001:db8::1, "), "{said}");
    assert!(said.contains("pki/servers/am1."), "{said}");
}

#[test]
fn an_authority_is_followed_by_another_while_every_machine_trusts_both() {
    let mut world = World::of("- targets: [moscow]\n");
    world.order = Certificates { days: 30, ca_days: 90, server: Vec::new(), ..world.order };
    let old = world.directory.path().join("old");
    fs::create_dir(&old).expect("a directory");
    let mut authorities = std::collections::BTreeSet::new();
    let mut said = String::new();
    // A run each eight days, and each machine is a run behind with either file.
    for day in (0..400).step_by(8) {
        let told = world.run(day).expect("renewed");
        if told.contains("now also holds the next one") || told.contains("the next authority signs")
        {
            said.push_str(&format!("{day} {}\n", told.lines().nth(1).expect("a line")));
        }
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a small number")]
        let now = day as f64;
        let (ca, leaf) = (world.at("ca.crt"), world.at("hosts/moscow.crt"));
        verified(&ca, &leaf, now, &[]).expect("now");
        verified(&ca, &leaf, now + 7.9, &[]).expect("until the next run");
        if day > 0 {
            verified(&old.join("ca.crt"), &leaf, now, &[]).expect("with the old ca.crt");
            verified(&ca, &old.join("leaf.crt"), now, &[]).expect("the old certificate");
        }
        let text = fs::read_to_string(&ca).expect("read");
        assert!(text.matches("BEGIN").count() <= 2, "day {day}: {text}");
        authorities.insert(fs::read(world.at("ca.key")).expect("read"));
        fs::copy(ca, old.join("ca.crt")).expect("copied");
        fs::copy(leaf, old.join("leaf.crt")).expect("copied");
    }
    assert!((5..=8).contains(&authorities.len()), "{} authorities\n{said}", authorities.len());
    assert!(!world.at("ca.next.key").exists() || said.trim_end().ends_with("now."), "{said}");
}

#[test]
fn an_authority_that_ends_soon_or_has_ended_is_followed_at_once() {
    for (day, word) in [(3640, "at once"), (3700, "at once")] {
        let world = World::made();
        let said = world.run(day).expect("renewed");
        assert!(said.contains(word) && said.contains("11 renewed"), "day {day}: {said}");
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a small number")]
        let after = day as f64 + 200.0;
        verified(&world.at("ca.crt"), &world.at("hosts/moscow.crt"), after, &[]).expect("good");
        let count = fs::read_to_string(world.at("ca.crt")).expect("read").matches("BEGIN").count();
        assert_eq!(count, if day < 3650 { 2 } else { 1 }, "what has ended is trusted no more");
        let said = world.run(day).expect("again");
        assert!(said.contains("0 new, ") || said.contains("0 renewed, 11 unchanged"), "{said}");
    }
}

#[test]
fn a_run_that_was_killed_at_any_point_is_mended_by_the_next() {
    // What is there after each file that the first run writes.
    let whole = World::made();
    let order = ["ca.key", "ca.crt", "client.key", "client.crt", "hosts/moscow.key"];
    for count in 0..=order.len() {
        let world = World::of(HOSTS);
        fs::create_dir(world.at("")).expect("a directory");
        fs::set_permissions(world.at(""), fs::Permissions::from_mode(0o700)).expect("a mode");
        fs::create_dir(world.at("hosts")).expect("a directory");
        fs::set_permissions(world.at("hosts"), fs::Permissions::from_mode(0o700)).expect("a mode");
        for name in order.iter().take(count) {
            fs::copy(whole.at(name), world.at(name)).expect("copied");
        }
        fs::write(world.at(".client.key.new"), "half of a k").expect("written");
        world.run(0).expect("mended");
        verified(&world.at("ca.crt"), &world.at("hosts/moscow.crt"), 1.0, &[]).expect("good");
        assert!(!world.at(".client.key.new").exists() || count >= 3, "after {count}");
        for name in order.iter().take(count) {
            // A certificate of an authority that has none yet is the only one that changes.
            let same = fs::read(world.at(name)).ok() == fs::read(whole.at(name)).ok();
            assert!(same, "after {count}: {name}");
        }
    }

    // The next authority is the first in ca.crt, and its key has not its place yet; or has it, and is
    // still in ca.next.key too.
    for later in ["ca.key", "ca.crt"] {
        let world = World::of(HOSTS);
        let world = World { order: Certificates { ca_days: 1095, ..world.order }, ..world };
        world.run(0).expect("made");
        world.run(800).expect("announced");
        let before = world.files();
        assert!(before.contains_key("ca.next.key"), "{:?}", before.keys());
        let said = world.run(930).expect("followed");
        assert!(said.contains("From now on the next authority signs"), "{said}");
        for name in [later, "ca.next.key"] {
            fs::write(world.at(name), &before[name]).expect("written");
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(world.at(name), private).expect("a mode");
        }
        let said = world.run(931).expect("mended");
        assert!(!world.at("ca.next.key").exists(), "{said}");
        let after = world.files();
        assert_eq!(after["ca.key"], before["ca.next.key"], "{later}");
        verified(&world.at("ca.crt"), &world.at("hosts/moscow.crt"), 932.0, &[]).expect("good");
    }
}

#[test]
fn files_that_are_damaged_or_not_of_this_command_are_named_and_kept() {
    let other = World::made();
    let foreign = |name: &str| fs::read(other.at(name)).expect("read");
    let cases: Vec<(&str, Option<Vec<u8>>, &str)> = vec![
        ("ca.crt", Some(b"nonsense".to_vec()), "pki/ca.crt: has no certificate in it"),
        (
            "ca.crt",
            Some(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_vec()),
            "pki/ca.crt: is not PEM",
        ),
        ("ca.crt", Some(Vec::new()), "pki/ca.crt: has no certificate in it"),
        ("ca.crt", Some(foreign("ca.crt")), "pki/ca.key: is not the key of an authority in ca.crt"),
        (
            "ca.crt",
            Some(foreign("client.crt")),
            "pki/ca.crt: holds a certificate of \"CN=Alertmanager\"",
        ),
        ("ca.key", Some(foreign("ca.key")), "pki/ca.key: is not the key of an authority in ca.crt"),
        ("ca.key", Some(b"nonsense".to_vec()), "pki/ca.key: is not a private key in PEM"),
        ("ca.key", None, "pki/ca.key: is missing, and ca.crt or ca.next.key is there"),
        (
            "hosts/moscow.crt",
            Some(foreign("hosts/moscow.crt")),
            "pki/hosts/moscow.crt is not for the key in .key",
        ),
        (
            "hosts/moscow.crt",
            Some(b"nonsense".to_vec()),
            "pki/hosts/moscow.crt: has no certificate in it",
        ),
        (
            "hosts/moscow.crt",
            Some(foreign("hosts/am.crt").repeat(2)),
            "pki/hosts/moscow.crt: has more than one",
        ),
        (
            "hosts/moscow.crt",
            Some(vec![b'x'; 2 << 20]),
            "pki/hosts/moscow.crt: is larger than 1 MiB",
        ),
        (
            "hosts/moscow.key",
            Some(foreign("hosts/moscow.key")),
            "pki/hosts/moscow.crt is not for the key in .key",
        ),
        ("hosts/moscow.key", None, "pki/hosts/moscow.key is missing"),
        ("client.key", Some(b"\xff\xfe".to_vec()), "pki/client.key: is not a private key in PEM"),
    ];
    for (name, content, expected) in cases {
        let world = World::made();
        match content {
            Some(content) => fs::write(world.at(name), content).expect("written"),
            None => fs::remove_file(world.at(name)).expect("removed"),
        }
        let said = world.refusal(300);
        assert!(said.contains(expected), "{name}: {expected} is not in\n{said}");
        assert!(!said.contains("PRIVATE"), "{said}");
    }

    // All of another fleet: not a thousand lines.
    let world = World::made();
    for name in ["ca.key", "ca.crt"] {
        fs::write(world.at(name), foreign(name)).expect("written");
    }
    let said = world.refusal(1);
    assert!(
        said.contains("pki/hosts/moscow.crt is not signed by an authority in ca.crt"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 11, "{said}");
}

#[test]
fn what_others_could_have_put_there_or_read_is_refused() {
    let mode = |world: &World, name: &str, mode| {
        fs::set_permissions(world.at(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for (name, bits, expected) in [
        ("ca.key", 0o644, "pki/ca.key: has mode 0644, so others may have read this key"),
        ("hosts/moscow.key", 0o640, "pki/hosts/moscow.key: has mode 0640"),
        ("hosts/moscow.crt", 0o666, "pki/hosts/moscow.crt: has mode 0666, so others can write"),
        ("", 0o777, "has mode 0777, so others can write to it"),
        ("hosts", 0o770, "has mode 0770, so others can write to it"),
    ] {
        let world = World::made();
        mode(&world, name, bits);
        let said = world.refusal(300);
        assert!(said.contains(expected), "{name}: {expected} is not in\n{said}");
    }

    // A symbolic link is followed nowhere: not as the directory, not in it.
    let world = World::made();
    let elsewhere = world.directory.path().join("elsewhere");
    fs::rename(world.at("hosts/moscow.key"), &elsewhere).expect("moved");
    symlink(&elsewhere, world.at("hosts/moscow.key")).expect("a link");
    assert!(world.refusal(1).contains("pki/hosts/moscow.key: is a symbolic link"));
    let world = World::made();
    let elsewhere = world.directory.path().join("elsewhere");
    fs::rename(world.at("hosts"), &elsewhere).expect("moved");
    symlink(&elsewhere, world.at("hosts")).expect("a link");
    assert!(world.refusal(1).contains("pki/hosts: is not a directory (a symbolic link"));
    let world = World::of(HOSTS);
    symlink("/nonexistent", &world.order.output).expect("a link");
    let said = world.run(0).expect_err("refused");
    assert!(said.contains("pki: is not a directory (a symbolic link"), "{said}");

    // No file either, that is none: reading it would never end.
    let world = World::made();
    fs::remove_file(world.at("client.crt")).expect("removed");
    let fifo = world.at("client.crt");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    assert!(world.refusal(1).contains("pki/client.crt: is not a regular file"));
}

#[test]
fn if_one_file_cannot_be_written_none_is_replaced() {
    let world = World::made();
    // What stands in the way of the last of them.
    fs::create_dir(world.at("servers/.am1.crt.new")).expect("a directory");
    let said = world.refusal(300);
    assert!(said.contains("cannot make pki/servers/am1.crt"), "{said}");
    fs::remove_dir(world.at("servers/.am1.crt.new")).expect("removed");
    world.run(300).expect("renewed");
}

#[test]
fn two_runs_at_once_leave_one_whole_set() {
    let world = World::of(HOSTS);
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| world.run(0))).collect();
        runs.into_iter().map(|run| run.join().expect("no panic")).collect()
    });
    assert!(results.iter().any(Result::is_ok), "{results:?}");
    for refused in results.into_iter().filter_map(Result::err) {
        assert_eq!(refused, "another run writes to pki: try again when it has ended");
    }
    let first = world.files();
    world.run(1).expect("whole");
    assert!(world.files() == first);
}

#[test]
fn a_list_with_a_fault_makes_nothing() {
    for (list, expected) in [
        ("- targets: ['../../etc:1']\n", "targets.yml:1: \"../../etc\" is not a host's name"),
        ("- targets: [\"a\\nb\"]\n", "is not a host's name of letters"),
        ("- targets: [a..b]\n", "targets.yml:1: \"a..b\" cannot stand in a certificate"),
        ("- targets: [moscow, Moscow]\n", "host \"Moscow\" is already in line 1"),
        ("[]\n", "no host is in it"),
    ] {
        let world = World::of(list);
        let said = world.run(0).expect_err("refused");
        assert!(said.contains(expected), "{expected} is not in {said}");
        assert!(!world.order.output.exists(), "something was made");
    }
    let mut world = World::of(HOSTS);
    world.order.server = vec!["am1".into(), "x/y".into(), "AM1".into()];
    let said = world.run(0).expect_err("refused");
    assert!(said.contains("--server \"x/y\" is not a host's name"), "{said}");
    assert!(said.contains("--server \"AM1\": is there 2 times"), "{said}");
    world.order = Certificates { days: 365, ca_days: 1000, ..world.order };
    let said = world.run(0).expect_err("refused");
    assert!(said.contains("at least three times --days 365"), "{said}");
    assert!(!world.order.output.exists(), "something was made");
}

#[test]
fn a_clock_that_is_far_behind_changes_nothing() {
    let world = World::made();
    let said = world.refusal(-3);
    assert!(said.contains("pki/ca.crt: begins in the future: set this machine's clock"), "{said}");
}

#[test]
fn a_thousand_hosts_are_no_work() {
    let hosts: Vec<_> = (0..1000).map(|host| format!("'host{host}:9957'")).collect();
    let world = World::of(&format!("- targets: [{}]\n", hosts.join(", ")));
    let world = World { order: Certificates { server: Vec::new(), ..world.order }, ..world };
    for (day, word) in [(0, "1002 certificates are new"), (1, "1002 unchanged")] {
        let begun = std::time::Instant::now();
        let said = world.run(day).expect("made");
        println!("{word}: {:?}", begun.elapsed());
        assert!(said.contains(word), "{}", said.lines().next().unwrap_or_default());
        assert!(said.len() < 5000, "{} bytes are told", said.len());
    }
    assert_eq!(fs::metadata(world.at("hosts/host999.key")).expect("there").mode() & 0o777, 0o600);
}

/// A receiver with a token shows no certificate, so its host must not ask for one: each form of
/// `fleet` has a web configuration of its own.
#[test]
fn the_settings_of_both_forms_are_told() {
    let told = World::of(HOSTS).run(0).expect("made");
    let (_, token) = told.split_once("\nWith a token: ").expect("there");
    let (token, certificates) = token.split_once("\nWithout a token: ").expect("there");
    assert!(token.contains("credentials_file: /etc/prometheus/procstorm/HOST.token}"), "{token}");
    assert!(token.contains("tls_server_config:"), "{token}");
    assert!(
        !token.contains("client_auth_type:") && !token.contains("cert_file: /etc/prom"),
        "{token}"
    );
    let asks = "client_auth_type: RequireAndVerifyClientCert";
    assert!(certificates.contains(asks) && certificates.contains("client.crt"), "{certificates}");
    assert!(told.contains("fleet --alertmanager 0.31 needs hosts without a token"), "{told}");
}
