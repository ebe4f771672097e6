//! The pages of Prometheus and Alertmanager, where they are unpacked and not installed.

use std::path::Path;
use std::process::{Command, Stdio};

use procstorm_testkit::programs::other;

/// Debian's Prometheus and Alertmanager read their pages from `/usr/share`. Where they are not
/// installed but unpacked, a command that runs `program` with what was unpacked laid over that
/// directory, for it alone; where that is not allowed or not needed, simply `program`.
#[must_use]
pub(crate) fn with_pages(program: &Path) -> Command {
    let plain = Command::new(program);
    let Ok(real) = program.canonicalize() else { return plain };
    let share = real.ancestors().nth(2).map(|usr| usr.join("share")).unwrap_or_default();
    if share == Path::new("/usr/share") || !share.join("prometheus").is_dir() {
        return plain;
    }
    let Ok(unshare) = other("unshare") else { return plain };
    let mut command = Command::new(unshare);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    let over = "mount -t overlay -o \"lowerdir=$0:/usr/share\" overlay /usr/share";
    let mut probe = clone_of(&command);
    let allowed = probe.arg(over).arg(&share).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return plain;
    }
    command.arg(format!("{over} && exec \"$@\"")).arg(share).arg(real);
    command
}

fn clone_of(command: &Command) -> Command {
    let mut clone = Command::new(command.get_program());
    clone.args(command.get_args());
    clone
}
