//! Names from a real NSS module that hangs.

use std::fs;
use std::path::Path;
use std::process::Command;

use procstorm_testkit::needs_root;
use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::wait::until_so;
use rustix::process::Signal;

use crate::world::{BINARY, Program};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/hang.c");

/// Builds the module into `directory`, and beside it an `nsswitch.conf` that names it.
fn build(directory: &Path) {
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall"])
        .arg(format!("-DHANG_FILE=\"{}\"", directory.join("hang").display()))
        .arg("-o")
        .arg(directory.join("libnss_hang.so.2"))
        .arg(SOURCE)
        .status();
    assert!(status.unwrap().success());
    fs::write(directory.join("nsswitch.conf"), "passwd: files hang\n").unwrap();
}

#[test]
fn a_name_service_that_hangs_delays_no_scrape_and_changes_no_name() {
    needs_root!();
    let directory = tempfile::tempdir().unwrap();
    build(directory.path());
    let hang = directory.path().join("hang");
    let proc = Fixture::new();
    proc.process(2, 41100, b"imapd");
    let script = "mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf && \
                  export LD_LIBRARY_PATH=\"$1\" && shift && exec \"$0\" \"$@\"";
    let program = Program::spawn(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script, BINARY])
            .arg(directory.path())
            .arg("--path.procfs")
            .arg(proc.path())
            .arg("--collector.min-processes=1"),
    );
    let known = "procstorm_processes{command=\"imapd\",user=\"nss41100\"} 1\n";
    // A scan waits for a new name, but not for long.
    until_so("the first name", || program.get("/metrics").contains(known));

    fs::write(&hang, "").unwrap();
    proc.process(3, 41101, b"imapd");
    // All names are asked for anew.
    program.signal(Signal::HUP);
    program.logged("reloaded");
    for _ in 0..20 {
        let exposition = program.get("/metrics");
        assert!(exposition.contains(known), "the last known name is kept");
        assert!(exposition.contains("user=\"41101\""), "a number as long as there is no name");
    }
    assert!(program.value("procstorm_scan_overdue_names") > 0);

    fs::remove_file(&hang).unwrap();
    until_so("the new user's name", || program.get("/metrics").contains("user=\"nss41101\""));
    assert!(program.get("/metrics").contains(known));
    // Each question is answered when its own thread wakes, in whatever order.
    until_so("an answer to every question", || program.value("procstorm_scan_overdue_names") == 0);
}
