//! `tests/tools.sh`, which brings the programs of others: whatever it cannot do, it says in a line
//! what that is, and no other generation's program stands in for one that is not there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use procstorm_testkit::programs;

/// What the script calls besides apt. It finds nothing else, so that it cannot install anything.
const CALLED: [&str; 16] = [
    "bash", "cat", "dirname", "grep", "head", "id", "ldd", "ln", "ls", "mkdir", "mv", "rm", "sed",
    "sort", "tr", "env",
];

/// A machine's programs, among them some that are our own scripts.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.dir.path().join("bin")).unwrap();
        // A compiler, so that none is looked for.
        for (name, text) in [("cc", ""), ("make", "")].iter().chain(scripts) {
            machine.put(name, text);
        }
        for name in CALLED.iter().filter(|name| !machine.program(name).exists()) {
            let real = programs::other(name).unwrap();
            std::os::unix::fs::symlink(real, machine.program(name)).unwrap();
        }
        machine
    }

    fn program(&self, name: &str) -> PathBuf {
        self.dir.path().join("bin").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        // Never what is there already: it may be a link to the machine's own program.
        let mut file = File::create_new(self.program(name)).unwrap();
        file.write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
        drop(file);
        fs::set_permissions(self.program(name), Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs `tests/tools.sh`, which finds these programs alone.
    fn tools(&self, arguments: &[&str]) -> Output {
        // It adds /usr/sbin and /sbin, where none of what it calls is.
        Command::new(self.program("bash"))
            .arg(programs::project().join("tests/tools.sh"))
            .args(arguments)
            .env("PATH", self.dir.path().join("bin"))
            .env("CARGO_TARGET_DIR", self.dir.path().join("target"))
            .env_remove("PROCSTORM_STACK")
            .env_remove("DEBIAN_MIRROR")
            .output()
            .unwrap()
    }
}

/// That it failed, with a line that says `what`.
fn failed(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{what}: {said}");
    let line = said.lines().find(|line| line.contains(what));
    assert!(line.is_some_and(|line| line.starts_with("tools: ")), "no {what:?} in {said:?}");
}

/// An apt that downloads nothing, and a dpkg-deb that unpacks these programs of that version.
fn packages(programs: &[&str], version: &str) -> [(&'static str, String); 2] {
    let script = format!("echo '#!/bin/sh\necho \"x, version {version} (branch: )\"'");
    let unpack = programs.iter().fold("mkdir -p \"$3/usr/bin\"".to_owned(), |text, name| {
        format!("{text}\n{script} >\"$3/usr/bin/{name}\" && chmod 755 \"$3/usr/bin/{name}\"")
    });
    [
        ("apt-get", "case \"$*\" in *download*) : >x.deb ;; esac".to_owned()),
        ("dpkg-deb", unpack.replace("chmod", "/bin/chmod")),
    ]
}

const FOUR: [&str; 4] = ["prometheus", "promtool", "prometheus-alertmanager", "amtool"];

#[test]
fn a_machine_without_apt_is_told_what_to_do() {
    for arguments in [&["stack"][..], &["stack", "bookworm"], &["stack", "sid"]] {
        let said = Machine::new(&[]).tools(arguments);
        failed(&said, "there is no apt here");
        failed(&said, "PROCSTORM_STACK=path");
    }
    failed(&Machine::new(&[]).tools(&["stack", "path"]), "no prometheus at any place of PATH");
}

#[test]
fn an_apt_that_fails_in_silence_is_told_of() {
    let machine = Machine::new(&[("apt-get", "exit 100"), ("dpkg-deb", "")]);
    failed(&machine.tools(&["stack", "trixie"]), "cannot read the lists of trixie");
    let no_download = "case \"$*\" in *download*) exit 100 ;; esac";
    let machine = Machine::new(&[("apt-get", no_download), ("dpkg-deb", "")]);
    failed(&machine.tools(&["stack", "trixie"]), "cannot download prometheus");
    let [apt, _] = packages(&[], "");
    let machine = Machine::new(&[(apt.0, &apt.1), ("dpkg-deb", "exit 2")]);
    failed(&machine.tools(&["stack", "trixie"]), "cannot unpack ");
}

#[test]
fn a_package_without_its_program_is_told_of() {
    // As on Debian 13, where promtool left Prometheus' package.
    for missing in FOUR {
        let others: Vec<&str> = FOUR.into_iter().filter(|name| *name != missing).collect();
        let [apt, dpkg] = packages(&others, "2.53.0");
        let machine = Machine::new(&[(apt.0, &apt.1), (dpkg.0, &dpkg.1)]);
        failed(&machine.tools(&["stack", "trixie"]), &format!("hold no /usr/bin/{missing}"));
        // Nothing half done is taken for done the next time.
        failed(&machine.tools(&["stack", "trixie"]), &format!("hold no /usr/bin/{missing}"));
    }
}

#[test]
fn a_program_that_does_not_start_is_told_of() {
    for broken in FOUR.map(|name| name.trim_start_matches("prometheus-")) {
        let good = "echo \"x, version 2.42.0 (branch: )\"";
        let text = |name| if name == broken { "echo no library; exit 127" } else { good };
        let scripts = ["prometheus", "promtool", "alertmanager", "amtool"].map(|it| (it, text(it)));
        failed(&Machine::new(&scripts).tools(&["stack"]), "does not start on this machine");
    }
}

#[test]
fn another_version_is_not_taken_for_the_generation() {
    for (generation, version) in [("bookworm", "2.53.3"), ("trixie", "2.42.0"), ("sid", "2.53.3")] {
        let [apt, dpkg] = packages(&FOUR, version);
        let machine = Machine::new(&[(apt.0, &apt.1), (dpkg.0, &dpkg.1)]);
        failed(&machine.tools(&["stack", generation]), &format!("that stand for {generation}"));
    }
    failed(&Machine::new(&[]).tools(&["stack", "forky"]), "no generation \"forky\"");
}

#[test]
fn what_nobody_foresaw_is_told_of_with_its_line() {
    let machine = Machine::new(&[("mkdir", "exit 3")]);
    failed(&machine.tools(&["stack"]), "FAILED: tests/tools.sh, line ");
}

#[test]
fn no_other_generation_stands_in_for_one_that_is_not_there() {
    let demo = Command::new(programs::ours("demo").unwrap())
        .env("PROCSTORM_STACK", "buzz")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stderr);
    assert!(!demo.status.success(), "{said}");
    assert!(said.contains("of buzz is not there: run tests/tools.sh stack buzz"), "{said}");
}
