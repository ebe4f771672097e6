//! The Debian packages: built, installed and removed, on this machine but in memory; and what the
//! README tells to do in between.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use procstorm_tests::programs;
use procstorm_tests::skip::{is_root_or_skip, skipped};

/// Builds, installs and removes the package of the daemon in `directory` of the project; `script`,
/// if there is one, is run in between. Returns what `install.sh` found before the removal, and after
/// it; nothing if it cannot be tried here, which it says as `test`.
fn installed_and_removed(
    test: &str,
    directory: &str,
    script: Option<&str>,
) -> Option<(String, String)> {
    if !is_root_or_skip(test) {
        return None;
    }
    for tool in ["cargo-deb", "dpkg-deb", "strip"] {
        if programs::other(tool).is_err() {
            skipped(test, &format!("{tool} is not there"));
            return None;
        }
    }
    // The program of this test stands in for that of a release, which takes long to build.
    let name = format!("procstorm-{directory}");
    let target = tempfile::tempdir().unwrap();
    let package = target.path().join("package.deb");
    std::fs::create_dir(target.path().join("release")).unwrap();
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(target.path().join("release").join(&name));
    assert!(strip.arg(programs::ours(&name).unwrap()).status().unwrap().success());
    let build = Command::new(env!("CARGO"))
        .args(["deb", "--no-build", "--no-strip", "--fast", "--offline", "-o"])
        .arg(&package)
        .current_dir(programs::project().join(directory))
        .env("CARGO_TARGET_DIR", target.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&build.stderr);
    assert!(build.status.success(), "{told}");
    assert!(!told.contains("warning"), "{told}");

    let install = Command::new("unshare")
        .args(["--mount", "sh"])
        .arg(programs::project().join("tests/install.sh"))
        .arg(&package)
        .args(script.map(|script| {
            let path = target.path().join("script");
            std::fs::write(&path, script).unwrap();
            path
        }))
        .output()
        .unwrap();
    if install.status.code() == Some(77) {
        skipped(test, "needs overlayfs");
        return None;
    }
    let told = String::from_utf8(install.stdout).unwrap();
    assert!(install.status.success(), "{told}{}", String::from_utf8_lossy(&install.stderr));
    let (before, after) = told.split_once("\nremoved\n").unwrap();
    Some((before.to_owned(), after.to_owned()))
}

/// That each of these lines is there.
fn holds(told: &str, lines: &[&str]) {
    for line in lines {
        assert!(told.lines().any(|found| found == *line), "{line} is not in\n{told}");
    }
}

/// What the README tells to do after the remediator's installation, up to the daemon's start.
fn first_steps() -> String {
    let readme = std::fs::read_to_string(programs::project().join("README.md")).unwrap();
    let steps = readme.lines().skip_while(|line| !line.starts_with("install -d /etc/procstorm"));
    let steps: Vec<_> = steps.take_while(|line| !line.starts_with("systemctl")).collect();
    assert!(steps.last().is_some_and(|line| line.contains("--check")), "{steps:?}");
    steps.join("\n")
}

#[test]
fn the_exporters_package_installs_its_files_and_leaves_nothing() {
    let test = "the_exporters_package_installs_its_files_and_leaves_nothing";
    let Some((told, left)) = installed_and_removed(test, "exporter", None) else { return };
    let lines = [
        "755 root:root /usr/bin/procstorm-exporter",
        "644 root:root /etc/default/procstorm-exporter",
        "644 root:root /usr/lib/systemd/system/procstorm-exporter.service",
        "644 root:root /usr/share/man/man8/procstorm-exporter.8.gz",
        "644 root:root /usr/share/doc/procstorm-exporter/copyright",
        "644 root:root /usr/share/doc/procstorm-exporter/web.example.yml",
        "conffile /etc/default/procstorm-exporter",
        concat!("procstorm-exporter ", env!("CARGO_PKG_VERSION")),
        "enabled procstorm-exporter.service",
    ];
    holds(&told, &lines);
    assert!(!left.contains("procstorm-exporter"), "left behind:\n{left}");
}

#[test]
fn the_remediators_package_brings_its_account_and_starts_nothing() {
    let test = "the_remediators_package_brings_its_account_and_starts_nothing";
    let Some((told, left)) = installed_and_removed(test, "remediator", Some(&first_steps())) else {
        return;
    };
    let lines = [
        "755 root:root /usr/bin/procstorm-remediator",
        "644 root:root /etc/default/procstorm-remediator",
        "644 root:root /usr/lib/systemd/system/procstorm-remediator.service",
        "644 root:root /usr/lib/sysusers.d/procstorm-remediator.conf",
        "644 root:root /usr/share/man/man8/procstorm-remediator.8.gz",
        "644 root:root /usr/share/doc/procstorm-remediator/copyright",
        "644 root:root /usr/share/doc/procstorm-remediator/remediator.yml",
        "conffile /etc/default/procstorm-remediator",
        concat!("procstorm-remediator ", env!("CARGO_PKG_VERSION")),
        "then -rw-r--r-- root:root /etc/procstorm/remediator.yml",
        "then -rw------- root:root /etc/procstorm/token",
    ];
    holds(&told, &lines);
    // The spool's directory may hand down its set-gid bit.
    let archive = told.lines().find(|line| line.ends_with(" /var/mail/arc")).unwrap();
    assert!(archive.contains("---") && archive.contains(" procstorm:procstorm "), "{archive}");
    let installed = told.lines().filter(|line| !line.starts_with("then "));
    for line in installed {
        let is_too_much =
            ["enabled", "/etc/procstorm", "README"].iter().any(|it| line.contains(it));
        assert!(!is_too_much, "{line}");
    }
    // The unit's account: nobody can log in as it, and what it archived keeps its owner.
    let account =
        |told: &str| told.lines().find(|line| line.starts_with("account ")).map(str::to_owned);
    let made = account(&told).unwrap();
    let unit = std::fs::read_to_string(
        programs::project().join("remediator/procstorm-remediator.service"),
    );
    assert!(unit.unwrap().lines().any(|line| line == "User=procstorm"));
    assert!(made.starts_with("account procstorm:") && made.ends_with("/nologin"), "{made}");
    assert_eq!(left.trim_end(), made, "left behind");
}
