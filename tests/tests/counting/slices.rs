//! The limit of tasks, as the kernel keeps it: where control groups of version 2 have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use procstorm_exporter::slices::{Slice, slices};
use procstorm_testkit::wait::until_so;
use procstorm_testkit::{needs_root, skip};

/// More than are allowed.
const WANTED: usize = 8;
const ALLOWED: u64 = 5;

/// Control groups of our own, as systemd makes them; all in them ends with this value.
struct Groups {
    top: PathBuf,
    children: Vec<Child>,
}

impl Drop for Groups {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let slices = self.top.join("user.slice");
        for directory in [
            &slices.join("user-4711.slice/session.scope"),
            &slices.join("user-4711.slice"),
            &slices,
            &self.top,
        ] {
            until_so("the control group is empty", || fs::remove_dir(directory).is_ok());
        }
    }
}

#[test]
fn a_user_at_the_limit_is_seen() {
    needs_root!();
    let mounted = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(mounted.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|controller| controller == "pids") {
        skip!("no pids controller in control groups of version 2");
    }
    let top = mounted.join(format!("procstorm-{}", std::process::id()));
    let scope = top.join("user.slice/user-4711.slice/session.scope");
    fs::create_dir_all(&scope).unwrap();
    let mut groups = Groups { top: top.clone(), children: Vec::new() };
    let slice = scope.parent().unwrap();
    for directory in [mounted, &top, &top.join("user.slice"), slice] {
        fs::write(directory.join("cgroup.subtree_control"), "+pids").unwrap();
    }
    fs::write(slice.join("pids.max"), ALLOWED.to_string()).unwrap();
    let enter_and_fork = format!(
        "echo 0 >{}/cgroup.procs; for i in $(seq {WANTED}); do sleep 600 & done; wait",
        scope.display()
    );
    // bash tries again and again, with longer and longer pauses.
    let child =
        Command::new("bash").args(["-c", &enter_and_fork]).stderr(Stdio::null()).spawn().unwrap();
    groups.children.push(child);
    let counts_where_the_limit_is = slice.join("pids.events.local").exists();
    let seen = || -> Slice {
        let seen = slices(&top).unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0]
    };
    until_so("the limit is reached", || seen().tasks == ALLOWED);
    until_so("the limit is hit", || {
        !counts_where_the_limit_is || seen().hits.is_some_and(|hits| hits > 0)
    });
    let Slice { uid, max, hits, .. } = seen();
    assert_eq!((uid, max), (4711, Some(ALLOWED)));
    assert_eq!(hits.is_some(), counts_where_the_limit_is);
    // The sleepers go with their group.
    fs::write(slice.join("cgroup.kill"), "1").unwrap_or_else(|_old_kernel| {
        let pids = fs::read_to_string(scope.join("cgroup.procs")).unwrap();
        let kill = format!("kill -9 {}", pids.replace('\n', " "));
        assert!(Command::new("bash").args(["-c", &kill]).status().unwrap().success());
    });
}
