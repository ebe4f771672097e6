//! The Debian packages to install. The programs of the test stand in for those of a release.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;
use tempfile::TempDir;

/// The three packages, as `deploy/packages.sh` makes them.
#[derive(Debug)]
pub struct Packages {
    dir: TempDir,
}

impl Packages {
    /// Makes them.
    pub fn make() -> Result<Self, Fault> {
        let dir = TempDir::new().or_fault("cannot make a directory for packages")?;
        let built = programs::ours("procstorm-exporter")?;
        let output = Command::new(programs::project().join("deploy/packages.sh"))
            .env("PROGRAMS", built.parent().unwrap_or(Path::new(".")))
            .env("PACKAGES", dir.path())
            .env("ONLY", "deb")
            .env("DEB_BUILD_OPTIONS", "noautodbgsym")
            // The programs of a test are large, and are unpacked at once.
            .env("DPKG_DEB_COMPRESSOR_TYPE", "none")
            .output()
            .or_fault("cannot run deploy/packages.sh")?;
        if !output.status.success() {
            return Err(Fault::new(String::from_utf8_lossy(&output.stderr)));
        }
        Ok(Self { dir })
    }

    /// Copies them into `target`, an existing directory.
    pub fn copy_to(&self, target: &Path) -> Result<(), Fault> {
        for package in self.files()? {
            let name = package.file_name().unwrap_or_default();
            fs::copy(&package, target.join(name)).or_fault("cannot copy a package")?;
        }
        Ok(())
    }

    /// Writes the same with `version` into `target`, an existing directory.
    pub fn copy_as(&self, version: &str, target: &Path) -> Result<(), Fault> {
        self.copy_changed(version, target, |_tree| Ok(()))
    }

    /// The same, with a remediator that answers commands, and ends at once as a daemon.
    pub fn copy_broken(&self, version: &str, target: &Path) -> Result<(), Fault> {
        self.copy_changed(version, target, |tree| {
            let program = tree.join("usr/bin/procstorm-remediator");
            if !program.exists() {
                return Ok(());
            }
            let moved = tree.join("usr/bin/procstorm-remediator.whole");
            fs::rename(&program, moved).or_fault("cannot rename the program")?;
            let script = "#!/bin/sh\ncase \"$*\" in *--web.systemd-socket*) exit 1 ;; esac\n\
                          exec /usr/bin/procstorm-remediator.whole \"$@\"\n";
            fs::write(&program, script).or_fault("cannot write a program")?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&program, mode).or_fault("cannot make it executable")
        })
    }

    fn copy_changed(
        &self,
        version: &str,
        target: &Path,
        change: impl Fn(&Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for package in self.files()? {
            let unpacked = TempDir::new().or_fault("cannot make a directory")?;
            let tree = unpacked.path().join("tree");
            dpkg_deb(Command::new("dpkg-deb").arg("-R").arg(&package).arg(&tree))?;
            let control = tree.join("DEBIAN/control");
            let text = fs::read_to_string(&control).or_fault("cannot read a control file")?;
            let lines = text.lines().map(|line| match line.strip_prefix("Version: ") {
                Some(_) => format!("Version: {version}\n"),
                None => format!("{line}\n"),
            });
            fs::write(&control, lines.collect::<String>()).or_fault("cannot write it")?;
            change(&tree)?;
            dpkg_deb(
                Command::new("dpkg-deb")
                    .args(["-Znone", "--root-owner-group", "-b"])
                    .arg(&tree)
                    .arg(target),
            )?;
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>, Fault> {
        let entries = fs::read_dir(self.dir.path()).or_fault("cannot list the packages")?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    }
}

fn dpkg_deb(command: &mut Command) -> Result<(), Fault> {
    let output = command.output().or_fault("cannot run dpkg-deb")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::new(String::from_utf8_lossy(&output.stderr)))
}
