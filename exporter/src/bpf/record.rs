//! The records that `bpf/census.bpf.c` writes.

use procstorm_processes::process::Command;

/// The bytes of a record: a uid, a pid, a name.
pub(super) const RECORD: usize = 4 + 4 + NAME;

/// The kernel's `TASK_COMM_LEN`.
const NAME: usize = 16;

/// A name of at most 15 bytes; what follows it is NUL, so that equal names have equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name([u8; NAME]);

impl Name {
    /// What stands before the first NUL. Older kernels leave the rest of a former name behind it.
    fn new(mut comm: [u8; NAME]) -> Self {
        comm.iter_mut().skip_while(|byte| **byte != 0).for_each(|byte| *byte = 0);
        Self(comm)
    }

    /// The same as the exporter's own type has it.
    pub(super) fn command(self) -> Command {
        Command::from(self.0)
    }
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its effective uid.
    pub(super) uid: u32,
    /// Its pid if it is a thread of the kernel.
    pub(super) kernel_thread: Option<i32>,
    /// Its name.
    pub(super) name: Name,
}

impl Record {
    pub(super) fn read(bytes: &[u8; RECORD]) -> Self {
        let (words, comm) = bytes.split_at(RECORD - NAME);
        let (words, _) = words.as_chunks::<4>();
        let word = |i: usize| words.get(i).copied().map(u32::from_le_bytes).unwrap_or_default();
        let kernel_thread = i32::try_from(word(1)).ok().filter(|&pid| pid > 0);
        Self { uid: word(0), kernel_thread, name: Name::new(comm.try_into().unwrap_or_default()) }
    }

    #[cfg(test)]
    pub(super) fn process(uid: u32, name: &[u8]) -> Self {
        let mut comm = [0; NAME];
        comm[..name.len()].copy_from_slice(name);
        Self { uid, kernel_thread: None, name: Name::new(comm) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let bytes = *b"\x39\x30\0\0\x07\0\0\0imapd\0old rest\0\0";
        let record = Record::read(&bytes);
        assert_eq!((record.uid, record.kernel_thread), (12345, Some(7)));
        assert_eq!(record.name, Name(*b"imapd\0\0\0\0\0\0\0\0\0\0\0"));
    }

    proptest! {
        #[test]
        fn a_name_ends_before_its_first_nul(
            comm in prop::array::uniform16(prop_oneof![any::<u8>(), 0_u8..3, Just(0x80)]),
        ) {
            let name = Name::new(comm);
            let before = comm.split(|&byte| byte == 0).next().unwrap();
            let command = name.command();
            prop_assert_eq!(command.as_bytes(), before);
            prop_assert!(name.0[before.len()..].iter().all(|&byte| byte == 0));
        }
    }
}
