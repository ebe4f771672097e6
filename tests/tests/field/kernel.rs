//! The product on this kernel, as `make field-kernels` boots several: the exporter counts what `ps`
//! counts, a mail file is saved, 200 processes are killed and it is proven, a `kill -9` in the
//! middle loses nothing, and the sandbox closes as much as this kernel can close, and says so.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking, and tell")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use procstorm_processes::process::Command as Name;
use procstorm_remediator::steps::kill::{Target, survey};
use procstorm_testkit::fault::Fault;
use procstorm_testkit::{in_a_world_apart, programs, wait};
use procstorm_tests::daemon::Daemon;
use procstorm_tests::exposition;
use procstorm_tests::host::{Host, Post};
use procstorm_tests::http::Http;
use procstorm_tests::stack::site::likeness;
use procstorm_tests::storm::Storm;

const UID: u32 = 44_700;
const NAME: &str = "imapd";
const STORM: usize = 200;

/// On a machine without KVM in a machine, all takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// The first kernel with each ABI of Landlock, and the value of `procstorm_sandbox_enforced`.
const LANDLOCK: [((u32, u32), f64); 6] =
    [((6, 10), 1.0), ((6, 7), 0.8), ((6, 2), 0.6), ((5, 19), 0.4), ((5, 13), 0.2), ((0, 0), 0.0)];

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim().to_owned()
}

fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// `ps -u UID -o comm=`, counted.
fn by_ps() -> usize {
    let mut ps = Command::new(programs::other("ps").unwrap());
    let output = ps.args(["-u", &UID.to_string(), "-o", "comm="]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.trim() == NAME).count()
}

fn by_exporter(dir: &Path) -> Result<f64, Fault> {
    let http = Http::new()?;
    let command = Command::new(programs::ours("procstorm-exporter")?);
    let (_exporter, url) = Daemon::serve("procstorm-exporter", command, dir, &http)?;
    let page = http.get(&format!("{url}/metrics"))?.body;
    let lines = exposition::read(&page).unwrap();
    let is_it = |line: &&exposition::Line| {
        line.name == "procstorm_processes"
            && line.label("user") == UID.to_string()
            && line.label("command") == NAME
    };
    Ok(lines.iter().filter(is_it).map(|line| line.value).sum())
}

/// The sandbox closes what this kernel can close, and the metric says how much that is.
fn check_sandbox(host: &Host) -> Result<(), Fault> {
    let layer = |name: &str| {
        let value = host.metric(&format!("procstorm_sandbox_enforced{{layer=\"{name}\"}}"));
        eprintln!("kernel: sandbox layer {name}: {value:?}");
        value
    };
    let same = |a: f64, b: f64| (a - b).abs() < 0.001;
    assert!(same(layer("seccomp")?, 1.0) && same(layer("capabilities")?, 1.0));
    let (_, wanted) = LANDLOCK.into_iter().find(|(first, _)| version() >= *first).unwrap();
    let told = layer("landlock")?;
    // The kernel may have been built or booted without Landlock.
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if wanted > 0.0 && !modules.contains("landlock") {
        eprintln!("kernel: left out: whether Landlock is enforced, as its being there is not said");
        return Ok(());
    }
    assert!(same(told, wanted), "{told} instead of {wanted} on {}", release());
    assert_eq!(host.get("/-/ready")?.status, 200, "an old kernel is no fault");
    Ok(())
}

fn storm_and_mail(host: &Host, mail: &[u8]) -> Result<Storm, Fault> {
    host.put_mail(UID, mail)?;
    Storm::raise(UID, NAME.as_bytes(), STORM)
}

#[test]
fn a_storm_is_counted_archived_killed_and_proven_and_a_kill_of_ours_is_made_good()
-> Result<(), Fault> {
    in_a_world_apart!();
    eprintln!("kernel: Linux {}", release());
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(NAME, "    settle: 0s\n    cooldown: 0s", "")?;
    check_sandbox(&host)?;

    let mail: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    let storm = storm_and_mail(&host, &mail)?;
    let original = host.dir().join("mail").join(UID.to_string());
    let counted = (by_ps(), by_exporter(dir.path())?.to_string());
    assert_eq!(counted, (STORM, STORM.to_string()), "ps and the exporter");
    host.post(&[Post::storm(UID, NAME)])?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(storm.living()?, 0);
    let one = &host.remediations()?[0];
    assert_eq!((&one["before"], &one["after"]), (&STORM.into(), &0.into()), "{one}");
    let archived = host.archived()?;
    assert_eq!(archived.len(), 1);
    assert!(fs::read(&archived[0]).unwrap() == mail, "identical");
    assert_eq!(likeness(&archived[0])?, likeness(&original)?);
    eprintln!("kernel: {STORM} killed in {} ms, the archive is identical", one["milliseconds"]);
    drop(storm);

    let storm = storm_and_mail(&host, &mail[1..])?;
    host.post(&[Post::storm(UID, NAME)])?;
    host.kill()?;
    host.restart()?;
    let verdict = wait::until("what was accepted is done", LIMIT, || {
        host.verdicts().ok()?.get(1).filter(|verdict| *verdict != "running").cloned()
    })?;
    // Cut off between two signals, it finds fewer than a storm, and leaves them.
    let left = storm.living()?;
    assert!(left == 0 || (verdict == "interrupted" && left < 5), "{verdict}: {left} live");
    let target = Target { uid: UID, command: Name::new(NAME.as_bytes()).unwrap() };
    assert!(survey(Path::new("/proc"), &target).unwrap().stopped.is_empty(), "nobody is stopped");
    let mut all = host.archived()?;
    all.retain(|path| fs::read(path).unwrap() == mail[1..]);
    assert!(all.len() == 1, "the second mail is saved once, and whole: {:?}", host.archived());
    eprintln!("kernel: killed in the middle and resumed: {verdict}, {left} live");
    Ok(())
}
