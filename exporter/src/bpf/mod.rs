//! Counting in the kernel: a BPF task iterator, which writes one record for each process.
//!
//! It costs a tenth of reading /proc, and sees the same: see `bpf/census.bpf.c`.
//!
//! - [`TaskIterator`]: the iterator, of which each scan opens a new file.
//! - [`helper`]: loads it in a short-lived process of its own.
//! - [`rights`]: the capabilities that this needs, and how they are given up.
//! - `load`: what that process does; `record`: the records; `syscall`: two calls of bpf(2).

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use procstorm_processes::proc_dir::ProcDir;
use rustix::io::{Errno, read};

use crate::census::{Census, Group};
use record::{Name, RECORD, Record};

pub mod helper;
mod load;
mod record;
pub mod rights;
mod syscall;

/// How much is read at once: as many whole records as the kernel's buffer of eight pages holds.
const BUFFER: usize = 8 * 4096 / RECORD * RECORD;

/// The loaded iterator.
#[derive(Debug)]
pub struct TaskIterator {
    link: OwnedFd,
}

impl TaskIterator {
    /// Counts all processes of the caller's pid namespace; also the kernel's threads if `proc` is
    /// given, where their names are read, which may be longer than the kernel's own record of them.
    /// Fails if not all could be seen: a count that is too small would be a wrong one.
    pub fn census(&self, proc: Option<&ProcDir>) -> io::Result<Census> {
        let mut tally = Tally { proc, census: Census::default(), named: HashMap::new(), run: None };
        self.records(|record| tally.add(record))?;
        let census = tally.finish();
        // The caller is a process itself.
        if census.processes == 0 {
            return Err(io::Error::other("the iterator shows no process"));
        }
        Ok(census)
    }

    /// Whether a file of the iterator can be opened, as a scan does.
    fn opens(&self) -> bool {
        syscall::iterate(&self.link).is_ok()
    }

    /// Calls `visit` with each record.
    fn records(&self, mut visit: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
        let file = syscall::iterate(&self.link)?;
        let mut buffer = [0; BUFFER];
        let mut filled = 0;
        loop {
            let length = match read(&file, buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(()),
                Ok(0) => return Err(io::Error::other("the iterator's last record is cut off")),
                Ok(length) => length,
                // The kernel pauses after a million tasks without a record.
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            filled = filled.saturating_add(length);
            let (whole, rest) = buffer.get(..filled).unwrap_or_default().as_chunks::<RECORD>();
            for bytes in whole {
                visit(Record::read(bytes))?;
            }
            let rest = filled.saturating_sub(rest.len())..filled;
            filled = rest.len();
            buffer.copy_within(rest, 0);
        }
    }
}

impl From<OwnedFd> for TaskIterator {
    /// By a BPF link of the program.
    fn from(link: OwnedFd) -> Self {
        Self { link }
    }
}

/// A census in the making. It allocates for each group and not for each process.
struct Tally<'p> {
    proc: Option<&'p ProcDir>,
    /// The kernel's threads.
    census: Census,
    named: HashMap<(u32, Name), u64>,
    /// The last group, and how many in a row were of it: the processes of a storm have neighbouring
    /// pids, and need no look at the table.
    run: Option<((u32, Name), u64)>,
}

impl Tally<'_> {
    fn add(&mut self, record: Record) -> io::Result<()> {
        match (record.kernel_thread, self.proc) {
            (None, _) => self.add_process((record.uid, record.name)),
            (Some(_), None) => {}
            (Some(pid), Some(proc)) => self.census.add(proc.glance(pid, |_| false)?),
        }
        Ok(())
    }

    fn add_process(&mut self, group: (u32, Name)) {
        match &mut self.run {
            Some((of, n)) if *of == group => *n += 1,
            _ => {
                self.end_run();
                self.run = Some((group, 1));
            }
        }
    }

    fn end_run(&mut self) {
        if let Some((group, n)) = self.run.take() {
            *self.named.entry(group).or_default() += n;
        }
    }

    fn finish(mut self) -> Census {
        self.end_run();
        for ((uid, name), n) in self.named {
            self.census.add_many(Group { uid, command: name.command() }, n);
        }
        self.census
    }
}

#[cfg(test)]
mod tests {
    use procstorm_processes::process::Command;

    use super::*;

    #[test]
    fn runs_and_single_records_are_counted_alike() {
        let record = |uid, name: &[u8]| Record::process(uid, name);
        let mut tally =
            Tally { proc: None, census: Census::default(), named: HashMap::new(), run: None };
        for (uid, name, n) in [(1, "a", 3), (2, "a", 1), (1, "a", 2), (1, "b", 1), (2, "a", 4)] {
            for _ in 0..n {
                tally.add(record(uid, name.as_bytes())).unwrap();
            }
        }
        tally.add(Record { kernel_thread: Some(2), ..record(0, b"kthreadd") }).unwrap();
        let census = tally.finish();
        let group = |uid, name: &[u8]| Group { uid, command: Command::new(name).unwrap() };
        let expected = [(group(1, b"a"), 5), (group(2, b"a"), 5), (group(1, b"b"), 1)];
        assert_eq!(census.groups, HashMap::from(expected));
        assert_eq!(census.processes, 11);
    }
}
