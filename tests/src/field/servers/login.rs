//! A login node: Debian's sshd, and shells that users have opened by it.

use procstorm_testkit::fault::Fault;
use procstorm_testkit::wait;

use super::LIMIT;
use crate::field::machine::Machine;

/// Starts sshd, which lets root in as each of the users.
pub fn sshd(machine: &Machine, users: &[&str]) -> Result<(), Fault> {
    machine.run(
        "install -d -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519",
    )?;
    for user in users {
        machine.run(&format!(
            "chsh -s /bin/bash {user}
             install -d -m 700 -o {user} -g {user} /home/{user}/.ssh
             install -m 600 -o {user} -g {user} /root/.ssh/id_ed25519.pub \
                 /home/{user}/.ssh/authorized_keys"
        ))?;
    }
    machine.run("systemctl start ssh").map(drop)
}

/// A shell of a user's, at the other end of an ssh connection.
#[derive(Debug)]
pub struct Shell<'a> {
    machine: &'a Machine,
    name: String,
    asked: u32,
}

impl<'a> Shell<'a> {
    /// Logs in as `user`, and waits until the shell answers. `name` tells shells apart.
    pub fn open(machine: &'a Machine, user: &str, name: &str) -> Result<Self, Fault> {
        machine.run(&format!(
            "mkfifo /root/{name}.in
             setsid sh -c 'exec ssh -T -o StrictHostKeyChecking=no -o BatchMode=yes \
                 {user}@localhost bash </root/{name}.in >/root/{name}.out 2>&1' \
                 >/dev/null 2>&1 </dev/null &
             setsid sleep infinity >/root/{name}.in 2>/dev/null </dev/null &"
        ))?;
        let mut shell = Self { machine, name: name.to_owned(), asked: 0 };
        shell.run("echo in").map(|_said| shell)
    }

    /// Runs a command in the shell, and returns all that the shell has said so far.
    pub fn run(&mut self, command: &str) -> Result<String, Fault> {
        self.asked += 1;
        let mark = format!("done-{}", self.asked);
        self.machine.write("root/line", &format!("{command}\necho {mark}\n"))?;
        let (name, heard) = (&self.name, self.machine.path(&format!("root/{}.out", self.name)));
        self.machine.run(&format!("timeout 60 sh -c 'cat /root/line >/root/{name}.in'"))?;
        let said = || std::fs::read_to_string(&heard).ok();
        wait::until(&format!("the shell {name} answers"), LIMIT, || {
            said().filter(|text| text.lines().any(|line| line == mark))
        })
        .map_err(|fault| Fault::new(format!("{}: {:?}", fault.whole(), said())))
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> Result<bool, Fault> {
        let held = format!("fuser -s /root/{}.out", self.name);
        Ok(!self.machine.try_run(&held)?.status.success())
    }
}
