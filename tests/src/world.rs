//! A /proc of our own making, for a program that is told where to look: it holds exactly what the
//! scenario says.
//!
//! ```no_run
//! # use procstorm_tests::world::World;
//! let world = World::new()?.user("alice", 45_200)?.processes(b"imapd", 92)?;
//! # Ok::<(), procstorm_testkit::fault::Fault>(())
//! ```

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use procstorm_testkit::fault::{Fault, OrFault as _};
use tempfile::TempDir;

use crate::stack::Person;

/// The kernel's mark of its own threads (`PF_KTHREAD`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A temporary /proc with pid 1 in it. Removed with the value. To give processes to users needs
/// root.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    people: Vec<Person>,
    next_pid: u32,
}

impl World {
    /// A machine on which only init runs.
    pub fn new() -> Result<Self, Fault> {
        let dir = tempfile::tempdir().or_fault("cannot make a directory")?;
        let mut world = Self { dir, people: Vec::new(), next_pid: 1 };
        world.process(0, b"init", 'S', 0)?;
        Ok(world)
    }

    /// From here on processes are of this user.
    pub fn user(mut self, name: &str, uid: u32) -> Result<Self, Fault> {
        self.people.push(Person::new(name, uid));
        Ok(self)
    }

    /// So many sleeping processes of the last user (root if there is none) and that command.
    pub fn processes(self, command: &[u8], count: usize) -> Result<Self, Fault> {
        self.many(command, count, 'S')
    }

    /// So many that are dead and not reaped.
    pub fn zombies(self, command: &[u8], count: usize) -> Result<Self, Fault> {
        self.many(command, count, 'Z')
    }

    /// A thread of the kernel, which is no user's process.
    pub fn kernel_thread(mut self, command: &[u8]) -> Result<Self, Fault> {
        self.process(0, command, 'I', KERNEL_THREAD)?;
        Ok(self)
    }

    /// The directory to give to `--path.procfs`.
    #[must_use]
    pub fn procfs(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The users, in the order in which they were named.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    fn many(mut self, command: &[u8], count: usize, state: char) -> Result<Self, Fault> {
        let uid = self.people.last().map_or(0, |person| person.uid);
        for _ in 0..count {
            self.process(uid, command, state, 0)?;
        }
        Ok(self)
    }

    fn process(&mut self, uid: u32, command: &[u8], state: char, flags: u32) -> Result<(), Fault> {
        let pid = self.next_pid;
        self.next_pid += 1;
        let dir = self.dir.path().join(pid.to_string());
        fs::create_dir(&dir).or_fault(format!("cannot make {}", dir.display()))?;
        let parent = u32::from(pid > 1);
        // 52 fields, as `man 5 proc_pid_stat` counts them; what nobody reads is 0.
        let tail = format!(
            ") {state} {parent} {pid} {pid} 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 {pid} 0 0{}\n",
            " 0".repeat(28)
        );
        let stat = [format!("{pid} (").as_bytes(), command, tail.as_bytes()].concat();
        write(&dir, "stat", &stat)?;
        write(&dir, "comm", &[command, b"\n"].concat())?;
        let status = format!("State:\t{state}\nTgid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        write(&dir, "status", status.as_bytes())?;
        if uid != 0 {
            chown(&dir, Some(uid), Some(uid)).or_fault(format!("no owner {uid}"))?;
        }
        Ok(())
    }
}

fn write(dir: &Path, name: &str, content: &[u8]) -> Result<(), Fault> {
    let path = dir.join(name);
    fs::write(&path, content).or_fault(format!("cannot write {}", path.display()))
}
