//! One booted machine. Its files are a copy of the Debian that `tests/field.sh` made, with an ext4 of
//! its own as /var/mail; its network is an interface `eth0` with the address that it is given, on a switch that machines share.
//!
//! It is booted by systemd-nspawn with its own pids, mounts, network and control groups. nspawn
//! itself refuses a few calls that the daemons make for their sandbox: they are allowed here, so
//! that what is refused in the machine is the unit's doing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::{programs, wait};
use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::daemon::Daemon;

/// How long a machine may take to boot or to go down, where others build at the same time.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// What hinders booting machines here; nothing if nothing does.
#[must_use]
pub fn hindrance(suite: &str) -> Option<String> {
    if !geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if tree(suite).is_none() {
        return Some(format!("there is no target/field/{suite}: run tests/field.sh {suite}"));
    }
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--net", "--pid", "--fork", "--propagation", "private", "sh", "-c"]);
    probe.arg("umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup");
    match probe.output() {
        Ok(output) if output.status.success() => None,
        _ => Some("no control groups can be mounted here".to_owned()),
    }
}

/// The Debian that machines are copied from.
fn tree(suite: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let mut dirs = here.ancestors().map(|dir| dir.join("field").join(suite));
    dirs.find(|dir| dir.join("made").exists())
}

/// A network namespace that lives as long as this.
#[derive(Debug)]
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Result<Self, Fault> {
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c"])
            .arg("ip link set lo up && echo made && exec sleep infinity")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .or_fault("cannot make a network namespace")?;
        let mut line = String::new();
        let stdout = holder.stdout.take();
        let stdout = stdout.ok_or_else(|| Fault::new("no standard output"))?;
        BufReader::new(stdout).read_line(&mut line).or_fault("no network namespace")?;
        if line != "made\n" {
            return Err(Fault::new("cannot make a network namespace"));
        }
        Ok(Self { holder })
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Runs `ip` inside.
    fn ip(&self, arguments: &str) -> Result<(), Fault> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .arg("ip")
            .args(arguments.split(' '))
            .output()
            .or_fault("cannot run ip")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Fault::new(format!("ip {arguments}: {said}")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// A bridge that connects machines, and nothing else.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
}

impl Switch {
    /// A bridge without machines.
    pub fn new() -> Result<Self, Fault> {
        let namespace = Namespace::new()?;
        namespace.ip("link add br0 type bridge")?;
        namespace.ip("link set br0 up")?;
        Ok(Self { namespace })
    }

    /// Plugs `eth0` of a new namespace in, with that address.
    fn plug(&self, address: &str) -> Result<Namespace, Fault> {
        let plugged = Namespace::new()?;
        let port = format!("p{}", plugged.holder.id());
        let peer = plugged.holder.id();
        self.namespace.ip(&format!("link add {port} type veth peer name eth0 netns {peer}"))?;
        self.namespace.ip(&format!("link set {port} master br0 up"))?;
        plugged.ip(&format!("address add {address}/24 dev eth0"))?;
        plugged.ip("link set eth0 up")?;
        Ok(plugged)
    }
}

/// A machine, up or down. Its files go with it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    files: TempDir,
    network: Namespace,
    up: Option<Daemon>,
}

impl Machine {
    /// A machine called `name` at `address`, with `hosts` as its /etc/hosts. It is down.
    pub fn new(
        suite: &str,
        name: &str,
        switch: &Switch,
        address: &str,
        hosts: &str,
    ) -> Result<Self, Fault> {
        let tree = tree(suite).ok_or_else(|| Fault::new(format!("no target/field/{suite}")))?;
        let beside = tree.parent().unwrap_or(Path::new("/"));
        // In target and not in /tmp, which may be in memory.
        let files = tempfile::Builder::new()
            .prefix("machine-")
            .tempdir_in(beside)
            .or_fault("cannot make a directory for the machine")?;
        let root = files.path().join("root");
        let copied = Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(&tree)
            .arg(&root)
            .status()
            .or_fault("cannot run cp")?;
        if !copied.success() {
            return Err(Fault::new(format!("cannot copy {}", tree.display())));
        }
        // How full the disk of this machine is must not matter: the archive keeps a part free.
        let spool = files.path().join("spool");
        let made = Command::new("sh")
            .args(["-c", "truncate -s 3G \"$0\" && mkfs.ext4 -q -m 0 \"$0\""])
            .arg(&spool)
            .status();
        if !made.or_fault("cannot run mkfs.ext4")?.success() {
            return Err(Fault::new("cannot make a file system for /var/mail"));
        }
        let machine =
            Self { name: name.to_owned(), files, network: switch.plug(address)?, up: None };
        machine.write("etc/hostname", &format!("{name}\n"))?;
        machine.write("etc/hosts", hosts)?;
        // What would be answered by hand at a terminal.
        machine.write("etc/apt/apt.conf.d/90field", "APT::Get::Assume-Yes \"true\";\n")?;
        Ok(machine)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a file of the machine lies for us.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.files.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Does something in the machine's network, on a thread of its own. Threads that it starts are
    /// in there, too.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Fault> {
        let network = fs::File::open(self.network.path()).or_fault("no network namespace")?;
        let there = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind)
                .or_fault("cannot enter the network")?;
            Ok(work())
        };
        std::thread::scope(|scope| scope.spawn(there).join())
            .map_err(|_panic| Fault::new("a panic in the machine's network"))?
    }

    /// Writes a file of the machine, and the directories above it.
    pub fn write(&self, path: &str, text: &str) -> Result<(), Fault> {
        let path = self.path(path);
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).or_fault(format!("cannot make {}", dir.display()))?;
        fs::write(&path, text).or_fault(format!("cannot write {}", path.display()))
    }

    /// Boots it, and waits until systemd has started what it starts.
    pub fn boot(&mut self) -> Result<(), Fault> {
        let group = self.group();
        let (spool, root) = (self.files.path().join("spool"), self.path("/"));
        let (spool, root) = (spool.display(), root.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc"]).arg(format!(
            "umount -R -l /sys/fs/cgroup
             mount -t cgroup2 cgroup2 /sys/fs/cgroup
             mkdir -p /sys/fs/cgroup/{group}
             echo $$ >/sys/fs/cgroup/{group}/cgroup.procs
             mount -o loop {spool} {root}/var/mail
             chown root:mail {root}/var/mail && chmod 2775 {root}/var/mail
             exec \"$@\"",
        ));
        command.args(["sh", "systemd-nspawn", "--register=no", "--keep-unit", "--boot"]);
        command.args(["--console=pipe", "--capability=all", "--quiet"]);
        command.arg("-D").arg(self.path("/"));
        command.arg(format!("--machine={group}"));
        command.arg(format!("--hostname={}", self.name));
        command.arg(format!("--network-namespace-path={}", self.network.path()));
        command.arg(
            "--system-call-filter=landlock_create_ruleset landlock_add_rule \
             landlock_restrict_self bpf",
        );
        self.up = Some(Daemon::start(&self.name, &command, &self.files.path().join("console"))?);
        let booted = wait::until(&format!("{} boots", self.name), BOOT_LIMIT, || {
            wait::nap(Duration::from_millis(200));
            let output = self.try_run("systemctl is-system-running").ok()?;
            let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            ["running", "degraded"].contains(&state.as_str()).then_some(())
        });
        booted.map_err(|fault| {
            let console = self.up.as_ref().map(Daemon::log).unwrap_or_default();
            Fault::new(format!("{}\n{console}", fault.whole()))
        })
    }

    /// Shuts it down as an operator does, and waits until it is down.
    pub fn power_off(&mut self) -> Result<(), Fault> {
        // The connection may be cut before the answer.
        drop(self.try_run("systemctl poweroff"));
        let mut up = self.up.take().ok_or_else(|| Fault::new("it is not up"))?;
        wait::until(&format!("{} goes down", self.name), BOOT_LIMIT, || up.exited().ok().flatten())
            .map(drop)
    }

    /// Runs a script as root in the machine. Returns what it prints, on either output. A script
    /// that fails is a fault.
    pub fn run(&self, script: &str) -> Result<String, Fault> {
        let output = self.try_run(script)?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if output.status.success() {
            return Ok(said);
        }
        Err(Fault::new(format!("on {}, {}:\n{script}\n{said}", self.name, output.status)))
    }

    /// Runs a script as root in the machine, in /packages if it is there.
    pub fn try_run(&self, script: &str) -> Result<Output, Fault> {
        let leader = self.leader()?;
        Command::new("nsenter")
            .args(["-t", &leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "-r"])
            .args(["env", "-i", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["DEBIAN_FRONTEND=noninteractive", "bash", "-c"])
            .arg(format!("cd /packages 2>/dev/null || cd /; set -e; {script}"))
            .stdin(Stdio::null())
            .output()
            .or_fault("cannot run nsenter")
    }

    /// The pid of the machine's systemd, as we see it.
    fn leader(&self) -> Result<u32, Fault> {
        let up = self.up.as_ref().ok_or_else(|| Fault::new(format!("{} is down", self.name)))?;
        let pid = up.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .or_fault("the machine is down")?;
        let first = children.split_whitespace().next().and_then(|child| child.parse().ok());
        first.ok_or_else(|| Fault::new(format!("{} has no systemd yet", self.name)))
    }

    /// The control group of the machine, and its name for nspawn: other tests have others.
    fn group(&self) -> String {
        let dir = self.files.path().file_name().unwrap_or_default().to_string_lossy();
        format!("field-{}-{}", self.name, dir.trim_start_matches("machine-"))
            .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.up = None;
        // Whatever runs in the machine outlives its nspawn; and control groups outlive both.
        let group = self.group();
        let mut clean = Command::new(programs::other("unshare").unwrap_or_default());
        clean.args(["--mount", "--propagation", "private", "sh", "-c"]).arg(format!(
            "umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup
             echo 1 >/sys/fs/cgroup/{group}/cgroup.kill
             for try in 1 2 3 4 5; do
                 find /sys/fs/cgroup/{group} -depth -type d -exec rmdir {{}} + 2>/dev/null && break
                 sleep 0.2
             done"
        ));
        drop(clean.output());
    }
}
