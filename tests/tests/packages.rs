//! The packages that `deploy/packages.sh` makes: judged by lintian, installed and removed on this
//! machine but in memory (Debian's, and RPMs). `field.rs` installs them on booted machines.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use procstorm_testkit::skip::{is_root, skipped};
use procstorm_testkit::{programs, test_name};

/// Makes all packages, once for all tests here. The programs of these tests stand in for those of a
/// release, which take long to build.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = PACKAGES.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let built = programs::ours("procstorm-exporter").unwrap();
        let output = Command::new(programs::project().join("deploy/packages.sh"))
            .env("PROGRAMS", built.parent().unwrap())
            .env("PACKAGES", directory.path())
            .env("DEB_BUILD_OPTIONS", "nocheck")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        directory
    });
    made.path()
}

/// The names of the packages, without the version.
fn names(extension: &str) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let files = std::fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter(|path| path.extension().is_some_and(|it| it == extension));
    let mut names: Vec<_> = named
        .map(|path| path.file_name().unwrap().to_string_lossy().replace(version, "VERSION"))
        .collect();
    names.sort();
    names
}

/// Runs `script` as root in a copy of this machine that vanishes. Returns what it prints; nothing if
/// it cannot be tried here, which it says as `test`.
fn in_a_copy(test: &str, script: &str) -> Option<String> {
    if !is_root() {
        skipped(test, "needs root");
        return None;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh"])
        .arg(programs::project().join("tests/overlay.sh"))
        .arg(packages())
        .arg(file.path())
        .output()
        .unwrap();
    if output.status.code() == Some(77) {
        skipped(test, "needs overlayfs");
        return None;
    }
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    Some(told)
}

/// That each of these lines is there.
fn holds(told: &str, lines: &[&str]) {
    for line in lines {
        assert!(told.lines().any(|found| found == *line), "{line} is not in\n{told}");
    }
}

/// Installs Debian package `$name` and prints its files, its configuration files, and whether its
/// unit is enabled. Containers are often told to leave documents out.
const INSTALL_DEB: &str = r#"
install_deb() {
    dpkg --path-include='/usr/share/*' -i /packages/$1_*.deb >&2
    dpkg -L $1 | while read -r path; do
        if [ -f "$path" ]; then stat -c '%a %U:%G %n' "$path"; fi
    done
    dpkg-query --show --showformat='${Conffiles}\n' $1 | sed 's/^ */conffile /; s/ [^ ]*$//'
    for unit in /etc/systemd/system/*.wants/$1.*; do
        if [ -L "$unit" ]; then echo "enabled ${unit##*/}"; fi
    done
}
left() { find /usr /etc -name "*$1*" | sed 's/^/left /'; }
"#;

/// What the administrator does before the daemon's first start; the README's own commands are run
/// by the field tests.
const FIRST_STEPS: &str = "
    install -d /etc/procstorm
    install -m 644 /usr/share/doc/procstorm-remediator/remediator.yml /etc/procstorm/
    (umask 077; head -c 32 /dev/urandom | base64 > /etc/procstorm/token)
    install -d -o procstorm -g procstorm -m 700 /var/mail/arc
    procstorm-remediator --check";

#[test]
fn three_packages_are_made_in_two_forms_with_debug_symbols_apart_and_a_tarball() {
    let debs = [
        "procstorm-exporter-dbgsym_VERSION_ARCH.deb",
        "procstorm-exporter_VERSION_ARCH.deb",
        "procstorm-monitoring_VERSION_all.deb",
        "procstorm-remediator-dbgsym_VERSION_ARCH.deb",
        "procstorm-remediator_VERSION_ARCH.deb",
    ];
    let any = |name: &String| name.replace("amd64", "ARCH").replace("arm64", "ARCH");
    assert_eq!(names("deb").iter().map(any).collect::<Vec<_>>(), debs);
    let rpms = [
        "procstorm-exporter-VERSION-1.ARCH.rpm",
        "procstorm-monitoring-VERSION-1.noarch.rpm",
        "procstorm-remediator-VERSION-1.ARCH.rpm",
    ];
    let any = |name: &String| name.replace("x86_64", "ARCH").replace("aarch64", "ARCH");
    assert_eq!(names("rpm").iter().map(any).collect::<Vec<_>>(), rpms);
    assert_eq!(names("gz").len(), 1);
}

#[test]
fn lintian_finds_no_error_and_no_warning() {
    let debs = std::fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let debs = debs.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    let output = Command::new(programs::other("lintian").unwrap())
        .args(["--allow-root", "--fail-on", "error,warning"])
        .args(debs.map(OsString::from))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_exporters_package_installs_its_files_and_leaves_nothing() {
    let script = format!(
        "{INSTALL_DEB}
        install_deb procstorm-exporter
        procstorm-exporter --version
        dpkg -P procstorm-exporter >&2
        left procstorm-exporter"
    );
    let Some(told) = in_a_copy(test_name!(), &script) else { return };
    let lines = [
        "755 root:root /usr/bin/procstorm-exporter",
        "644 root:root /etc/default/procstorm-exporter",
        "644 root:root /usr/lib/systemd/system/procstorm-exporter.service",
        "644 root:root /usr/share/man/man8/procstorm-exporter.8.gz",
        "644 root:root /usr/share/bash-completion/completions/procstorm-exporter",
        "644 root:root /usr/share/zsh/vendor-completions/_procstorm-exporter",
        "644 root:root /usr/share/fish/vendor_completions.d/procstorm-exporter.fish",
        "644 root:root /usr/share/doc/procstorm-exporter/changelog.gz",
        "644 root:root /usr/share/doc/procstorm-exporter/copyright",
        "644 root:root /usr/share/doc/procstorm-exporter/bpf.conf",
        "644 root:root /usr/share/doc/procstorm-exporter/web.example.yml",
        "conffile /etc/default/procstorm-exporter",
        concat!("procstorm-exporter ", env!("CARGO_PKG_VERSION")),
        "enabled procstorm-exporter.service",
    ];
    holds(&told, &lines);
    assert!(!told.contains("\nleft "), "left behind:\n{told}");
}

#[test]
fn the_remediators_package_brings_its_account_and_starts_nothing() {
    let script = format!(
        "{INSTALL_DEB}
        install_deb procstorm-remediator
        procstorm-remediator --version
        getent passwd procstorm | sed 's/^/account /'
        {{ {FIRST_STEPS}
        }} >&2
        stat -c 'then %A %U:%G %n' /etc/procstorm/remediator.yml /etc/procstorm/token /var/mail/arc
        dpkg -P procstorm-remediator | sed 's/^/purge: /'
        getent passwd procstorm | sed 's/^/left account /'
        left procstorm-remediator"
    );
    let Some(told) = in_a_copy(test_name!(), &script) else { return };
    let lines = [
        "755 root:root /usr/bin/procstorm-remediator",
        "644 root:root /etc/default/procstorm-remediator",
        "644 root:root /usr/lib/systemd/system/procstorm-remediator.service",
        "644 root:root /usr/lib/systemd/system/procstorm-remediator.socket",
        "644 root:root /usr/lib/systemd/system/procstorm-remediator-port.service",
        "644 root:root /usr/lib/sysusers.d/procstorm-remediator.conf",
        "644 root:root /usr/share/man/man8/procstorm-remediator.8.gz",
        "644 root:root /usr/share/bash-completion/completions/procstorm-remediator",
        "644 root:root /usr/share/doc/procstorm-remediator/README.md",
        "644 root:root /usr/share/doc/procstorm-remediator/changelog.gz",
        "644 root:root /usr/share/doc/procstorm-remediator/copyright",
        "644 root:root /usr/share/doc/procstorm-remediator/remediator.yml",
        "conffile /etc/default/procstorm-remediator",
        concat!("procstorm-remediator ", env!("CARGO_PKG_VERSION")),
        "then -rw-r--r-- root:root /etc/procstorm/remediator.yml",
        "then -rw------- root:root /etc/procstorm/token",
        "purge: procstorm-remediator: purge keeps /etc/procstorm/remediator.yml \
         /etc/procstorm/token /var/mail/arc and the account procstorm; delete them when nobody \
         needs them",
    ];
    holds(&told, &lines);
    // The spool's directory may hand down its set-gid bit.
    let archive = told.lines().find(|line| line.ends_with(" /var/mail/arc")).unwrap();
    assert!(archive.contains("---") && archive.contains(" procstorm:procstorm "), "{archive}");
    let installed = told.lines().take_while(|line| !line.starts_with("procstorm-remediator "));
    for line in installed {
        assert!(!line.contains("enabled") && !line.contains("/etc/procstorm"), "{line}");
    }
    // The unit's account: nobody can log in as it, and what it archived keeps its owner.
    let account =
        |word: &str| told.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned);
    let made = account("account ").unwrap();
    let unit = std::fs::read_to_string(
        programs::project().join("remediator/procstorm-remediator.service"),
    );
    assert!(unit.unwrap().lines().any(|line| line == "User=procstorm"));
    assert!(made.starts_with("procstorm:") && made.ends_with("/nologin"), "{made}");
    assert_eq!(account("left account "), Some(made));
    assert_eq!(told.lines().filter(|line| line.starts_with("left ")).count(), 1, "{told}");
}

#[test]
fn the_monitoring_package_brings_rules_that_pass_their_own_tests_and_keeps_what_people_changed() {
    let tools = ["promtool", "amtool"].map(|tool| programs::other(tool).unwrap());
    let script = format!(
        "{INSTALL_DEB}
        install_deb procstorm-monitoring
        export PROMTOOL={} AMTOOL={}
        /usr/share/procstorm/rules/check.sh /etc/procstorm
        sed -i 's/vector(60)/vector(61)/' /etc/procstorm/rules/procstorm.rules.yml
        dpkg -i /packages/procstorm-monitoring_*.deb >&2
        grep -c 'vector(61)' /etc/procstorm/rules/procstorm.rules.yml | sed 's/^/changed: /'
        dpkg -P procstorm-monitoring >&2
        left procstorm",
        tools[0].display(),
        tools[1].display()
    );
    let Some(told) = in_a_copy(test_name!(), &script) else { return };
    let lines = [
        "644 root:root /etc/procstorm/rules/procstorm.rules.yml",
        "conffile /etc/procstorm/rules/procstorm.rules.yml",
        "conffile /etc/procstorm/rules/prometheus.yml",
        "conffile /etc/procstorm/rules/tests/meta.test.yml",
        "conffile /etc/procstorm/alertmanager/alertmanager.yml",
        "conffile /etc/procstorm/alertmanager/routes.tsv",
        "conffile /etc/procstorm/alertmanager/templates/procstorm.tmpl",
        "755 root:root /usr/share/procstorm/rules/log.sh",
        "644 root:root /usr/share/procstorm/grafana/procstorm.json",
        "644 root:root /usr/share/doc/procstorm-monitoring/README.md",
        "644 root:root /usr/share/doc/procstorm-monitoring/alertmanager/INTEGRATIONS.md",
        "644 root:root /usr/share/doc/procstorm-monitoring/rules/RUNBOOK.md",
        "rules: alertmanager.yml and its templates: valid",
    ];
    holds(&told, &lines);
    assert!(told.contains(" rows of routes.tsv reach their receivers"), "{told}");
    assert!(told.lines().any(|line| line.starts_with("changed: ") && line != "changed: 0"));
    assert!(!told.contains("\nleft "), "left behind:\n{told}");
}

#[test]
fn the_rpms_install_keep_what_people_changed_and_go() {
    // This machine's own packages are not in the database of rpm, so what is required is not seen.
    let script = r#"
        rpm --nodeps --install /packages/*.rpm >&2
        rpm -qa | sed 's/^/installed /'
        rpm -qlv procstorm-exporter procstorm-remediator procstorm-monitoring | awk '{print $1, $3 ":" $4, $NF}'
        rpm -qc procstorm-exporter procstorm-remediator procstorm-monitoring | sed 's/^/config /'
        rpm --verify --nodeps procstorm-exporter procstorm-remediator procstorm-monitoring
        procstorm-remediator --version
        getent passwd procstorm | cut -d: -f1 | sed 's/^/account /'
        echo 'ARGS="--log.level=debug"' > /etc/default/procstorm-exporter
        rpm --nodeps --upgrade --replacepkgs /packages/procstorm-exporter-*.rpm >&2
        sed 's/^/kept: /' /etc/default/procstorm-exporter
        rpm --nodeps --erase procstorm-exporter procstorm-remediator procstorm-monitoring >&2
        find /usr /etc -name '*procstorm*' -not -path '*/.build-id/*' | sed 's/^/left /'
        "#;
    let Some(told) = in_a_copy(test_name!(), script) else { return };
    let lines = [
        "-rwxr-xr-x root:root /usr/bin/procstorm-exporter",
        "-rwxr-xr-x root:root /usr/bin/procstorm-remediator",
        "-rw-r--r-- root:root /usr/lib/systemd/system/procstorm-exporter.service",
        "-rw-r--r-- root:root /usr/lib/systemd/system/procstorm-remediator.service",
        "-rw-r--r-- root:root /usr/share/doc/procstorm-remediator/remediator.yml",
        "-rw-r--r-- root:root /usr/share/doc/procstorm-monitoring/rules/RUNBOOK.md",
        "config /etc/default/procstorm-exporter",
        "config /etc/default/procstorm-remediator",
        "config /etc/procstorm/rules/procstorm.rules.yml",
        "config /etc/procstorm/alertmanager/alertmanager.yml",
        "config /etc/procstorm/alertmanager/templates/procstorm.tmpl",
        "account procstorm",
        "kept: ARGS=\"--log.level=debug\"",
        concat!("procstorm-remediator ", env!("CARGO_PKG_VERSION")),
        "left /etc/default/procstorm-exporter.rpmsave",
    ];
    holds(&told, &lines);
    assert_eq!(told.lines().filter(|line| line.starts_with("installed ")).count(), 3, "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("left ")).count(), 1, "{told}");
}

#[test]
fn the_tarball_and_make_install_put_the_same_under_a_prefix() {
    let tarball = std::fs::read_dir(packages()).unwrap().map(|entry| entry.unwrap().path());
    let tarball = tarball.filter(|path| path.extension().is_some_and(|it| it == "gz")).last();
    let unpacked = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .args(["--strip-components=1", "-C"])
        .arg(unpacked.path())
        .arg("-xzf")
        .arg(tarball.unwrap())
        .status()
        .unwrap();
    assert!(tar.success());
    let built = programs::ours("procstorm-exporter").unwrap();
    let made = tempfile::tempdir().unwrap();
    let make = Command::new("make")
        .args(["--no-print-directory", "install", "PREFIX=/usr/local"])
        .arg(format!("DESTDIR={}", made.path().display()))
        .arg(format!("PROGRAMS={}", built.parent().unwrap().display()))
        .current_dir(programs::project())
        .output()
        .unwrap();
    assert!(make.status.success(), "{}", String::from_utf8_lossy(&make.stderr));
    let program = made.path().join("usr/local/bin/procstorm-remediator");
    let told = Command::new(program).arg("--version").output().unwrap().stdout;
    assert!(String::from_utf8(told).unwrap().contains(env!("CARGO_PKG_VERSION")));
    for root in [unpacked.path(), made.path()] {
        let unit = root.join("usr/local/lib/systemd/system/procstorm-remediator.service");
        let unit = std::fs::read_to_string(unit).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/bin/procstorm-remediator "), "{unit}");
        assert!(!unit.contains("=/usr/bin/procstorm"), "{unit}");
        for file in ["etc/default/procstorm-exporter", "etc/procstorm/rules/procstorm.rules.yml"] {
            assert!(root.join(file).is_file(), "{file}");
        }
    }
    let list = |root: &Path| {
        let find = Command::new("find").args([".", "-type", "f"]).current_dir(root).output();
        let mut files: Vec<String> =
            String::from_utf8(find.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
        files.retain(|file| !file.ends_with("/LICENSE") && !file.ends_with("/CHANGELOG.md"));
        files.sort();
        files
    };
    assert_eq!(list(unpacked.path()), list(made.path()));
}

#[test]
fn bash_completes_the_flags() {
    let root = tempfile::tempdir().unwrap();
    let built = programs::ours("xtask").unwrap();
    assert!(Command::new(built).arg("completions").arg(root.path()).status().unwrap().success());
    for (daemon, begun, whole) in [
        ("procstorm-exporter", "--web.telem", "--web.telemetry-path"),
        ("procstorm-remediator", "--no-sand", "--no-sandbox"),
    ] {
        let script = format!(
            "source {}/bash/{daemon}; COMP_WORDS=({daemon} {begun}) COMP_CWORD=1; \
             \"$(complete -p {daemon} | sed 's/.*-F \\([^ ]*\\).*/\\1/')\" {daemon} {begun} {daemon}; \
             echo \"${{COMPREPLY[@]}}\"",
            root.path().display()
        );
        let told = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), whole, "{told:?}");
    }
}

/// `make uninstall` removes all that `make install` has put there, but not what a person changed or
/// wrote.
#[test]
fn what_was_installed_is_removed_and_what_a_person_changed_stays() {
    let place = tempfile::tempdir().unwrap();
    let built = programs::ours("procstorm-exporter").unwrap();
    let run = |uninstall: &str| {
        let output = Command::new(programs::project().join("deploy/install.sh"))
            .env("DESTDIR", place.path())
            .env("PROGRAMS", built.parent().unwrap())
            .env("UNINSTALL", uninstall)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let files = || {
        let found = Command::new("find").arg(place.path()).args(["-type", "f"]).output().unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        found.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run(""), "");
    assert!(files().len() > 30, "{:?}", files());
    let changed = place.path().join("etc/procstorm/rules/procstorm.rules.yml");
    let written = place.path().join("etc/procstorm/remediator.yml");
    std::fs::write(&changed, "groups: []\n").unwrap();
    std::fs::write(&written, "a policy\n").unwrap();
    assert!(run("1").contains("procstorm.rules.yml was changed and stays"));
    let mut left = files();
    left.sort();
    let mut kept = [changed, written].map(|path| path.display().to_string());
    kept.sort();
    assert_eq!(left, kept);
}
