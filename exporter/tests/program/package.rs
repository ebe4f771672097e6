//! The Debian package: built, installed and removed, on this machine but in memory.

use std::path::Path;
use std::process::Command;

use crate::world::{BINARY, root_for, skipped, tool};

const DIRECTORY: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_package_installs_its_files_and_leaves_nothing() {
    let test = "the_package_installs_its_files_and_leaves_nothing";
    if !root_for(test) || tool(test, "cargo-deb").is_none() || tool(test, "dpkg-deb").is_none() {
        return;
    }
    // The program of this test stands in for that of a release, which takes long to build.
    let target = tempfile::tempdir().unwrap();
    let package = target.path().join("package.deb");
    std::fs::create_dir(target.path().join("release")).unwrap();
    let program = target.path().join("release/procstorm-exporter");
    assert!(
        Command::new("strip")
            .arg("-o")
            .args([&program, Path::new(BINARY)])
            .status()
            .unwrap()
            .success()
    );
    let build = Command::new(env!("CARGO"))
        .args(["deb", "--no-build", "--no-strip", "--fast", "--offline", "-o"])
        .arg(&package)
        .current_dir(DIRECTORY)
        .env("CARGO_TARGET_DIR", target.path())
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));

    let install = Command::new("unshare")
        .args(["--mount", "sh"])
        .arg(Path::new(DIRECTORY).join("tests/program/install.sh"))
        .arg(&package)
        .output()
        .unwrap();
    if install.status.code() == Some(77) {
        skipped(test, "needs overlayfs");
        return;
    }
    let told = String::from_utf8(install.stdout).unwrap();
    assert!(install.status.success(), "{told}{}", String::from_utf8_lossy(&install.stderr));
    for line in [
        "755 root:root /usr/bin/procstorm-exporter",
        "644 root:root /etc/default/procstorm-exporter",
        "644 root:root /usr/lib/systemd/system/procstorm-exporter.service",
        "644 root:root /usr/share/man/man8/procstorm-exporter.8.gz",
        "644 root:root /usr/share/doc/procstorm-exporter/web.example.yml",
        concat!("procstorm-exporter ", env!("CARGO_PKG_VERSION")),
        "procstorm-exporter.service",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
    }
    assert!(told.ends_with("\nremoved\n"), "left behind:\n{told}");
}
