//! Machines in namespaces, and the network that connects them.
//!
//! A test that uses it runs in a network namespace of its own
//! ([`in_a_network_apart!`](procstorm_testkit::in_a_network_apart)), which holds the bridge. So nothing
//! of it is left on the machine when the test ends, however it ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::programs;

/// The bridge.
const BRIDGE: &str = "fleet";

/// Nobody has this hardware address.
const NOBODY: &str = "02:00:00:00:00:01";

/// The bridge, in the network namespace of this test, which has an address there too.
#[derive(Debug)]
pub struct Network {
    address: Ipv4Addr,
}

impl Network {
    /// Makes the bridge. All addresses are 10.77.x.y.
    pub fn make() -> Result<Self, Fault> {
        let address = Ipv4Addr::new(10, 77, 0, 1);
        let mut command = Command::new(programs::other("ip")?);
        command.args(["-batch", "-"]);
        feed(
            command,
            &format!(
                "link set lo up\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up\n\
                 addr add {address}/16 dev {BRIDGE}\n"
            ),
        )?;
        Ok(Self { address })
    }

    /// Where the machines reach this test.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A machine that is connected to it.
    pub fn machine(&self, name: &str, address: Ipv4Addr) -> Result<Machine, Fault> {
        let machine = Machine::boot(name, address)?;
        let mut ip = Command::new(programs::other("ip")?);
        ip.args(["-batch", "-"]);
        let (cable, pid) = (machine.cable(), machine.holder.id());
        feed(
            ip,
            &format!(
                "link add {cable} type veth peer name eth0 netns {pid}\n\
                 link set {cable} master {BRIDGE}\nlink set {cable} up\n"
            ),
        )?;
        let setup = format!("link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\n");
        machine.ip(&setup)?;
        Ok(machine)
    }
}

/// Namespaces of its own (net, pid, mount, uts), which are there as long as this is. All that runs
/// in it is killed with it.
#[derive(Debug)]
pub struct Machine {
    holder: Child,
    name: String,
    address: Ipv4Addr,
}

impl Machine {
    fn boot(name: &str, address: Ipv4Addr) -> Result<Self, Fault> {
        let mut holder = Command::new(programs::other("setpriv")?);
        holder.args(["--pdeathsig", "KILL", "--"]).arg(programs::other("unshare")?);
        holder.args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]);
        holder.args(["--mount-proc", "--propagation", "private", "sh", "-c"]);
        // The parent is in all of these namespaces but the pid namespace.
        holder.arg("hostname \"$0\" && echo made && exec sleep infinity").arg(name);
        let mut holder = holder
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .or_fault("cannot make namespaces")?;
        let stdout = holder.stdout.take();
        let machine = Self { holder, name: name.to_owned(), address };
        let mut line = String::new();
        let stdout = stdout.ok_or_else(|| Fault::new("no standard output"))?;
        BufReader::new(stdout).read_line(&mut line).or_fault("no namespaces")?;
        if line != "made\n" {
            return Err(Fault::new(format!("cannot make the namespaces of {name}")));
        }
        Ok(machine)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the others reach it.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its /proc, as we reach it.
    #[must_use]
    pub fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/proc", self.holder.id()))
    }

    /// The same command on its network alone: the program is among our own processes, so that it can
    /// be signalled as this process' child.
    pub fn on_its_network(&self, command: &Command) -> Result<Command, Fault> {
        let mut entering = Command::new(programs::other("nsenter")?);
        entering.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--");
        Ok(wrapped(entering, command))
    }

    /// The same command as one of the machine's own processes. It is killed with the process that this
    /// starts, which waits for it.
    pub fn inside(&self, command: &Command) -> Result<Command, Fault> {
        let pid = self.holder.id();
        let mut entering = Command::new(programs::other("nsenter")?);
        entering.args([format!("--target={pid}"), "--net".to_owned(), "--mount".to_owned()]);
        entering.args(["--uts".to_owned(), format!("--pid=/proc/{pid}/ns/pid_for_children")]);
        entering.arg("--").arg(programs::other("setpriv")?);
        entering.args(["--pdeathsig", "KILL", "--"]);
        Ok(wrapped(entering, command))
    }

    /// Pulls the cable out of the bridge, or puts it back.
    pub fn connect(&self, connected: bool) -> Result<(), Fault> {
        let state = if connected { "up" } else { "down" };
        let mut ip = Command::new(programs::other("ip")?);
        ip.args(["link", "set", &self.cable(), state]);
        feed(ip, "")
    }

    /// What the two send to each other is lost from now on, without a word, or no longer.
    pub fn part_from(&self, other: &Self, parted: bool) -> Result<(), Fault> {
        for (one, other) in [(self, other), (other, self)] {
            let address = other.address;
            one.ip(&match parted {
                true => format!("neigh replace {address} lladdr {NOBODY} nud permanent dev eth0\n"),
                false => format!("neigh del {address} dev eth0\n"),
            })?;
        }
        Ok(())
    }

    fn cable(&self) -> String {
        // At most 15 bytes, as the name of every interface.
        format!("to-{}", self.name)
    }

    fn ip(&self, batch: &str) -> Result<(), Fault> {
        let mut ip = Command::new(programs::other("ip")?);
        ip.args(["-batch", "-"]);
        feed(self.on_its_network(&ip)?, batch)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// `entering`, with the program, the arguments and the environment of `command`.
fn wrapped(mut entering: Command, command: &Command) -> Command {
    entering.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => entering.env(key, value),
            None => entering.env_remove(key),
        };
    }
    entering
}

/// Runs a command with `text` as its standard input, and waits for it.
fn feed(mut command: Command, text: &str) -> Result<(), Fault> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .or_fault(format!("cannot run {}", command.get_program().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes()).or_fault("it does not read")?;
    }
    let output = child.wait_with_output().or_fault("it does not end")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::new(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
