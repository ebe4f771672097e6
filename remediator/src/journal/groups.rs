//! Who was in the groups that the policy protects: a restart does not forget it.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{Fault, Journal, from_json, json};
use crate::account::memory::{Group, Memory};

impl Journal {
    /// What is known of the groups.
    pub async fn groups(&self) -> Result<Memory, Fault> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT name, gid, uids FROM groups")?;
            let mut rows = query.query([])?;
            let mut groups = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let uids: String = row.get(2)?;
                groups.insert(row.get(0)?, Group { gid: row.get(1)?, uids: from_json(&uids)? });
            }
            Ok(Memory::new(groups))
        })
        .await
    }

    /// Writes what is known of the groups now, instead of what was known.
    pub async fn set_groups(&self, memory: Memory) -> Result<(), Fault> {
        self.write(move |tx| {
            tx.execute("DELETE FROM groups", [])?;
            let mut insert =
                tx.prepare_cached("INSERT INTO groups (name, gid, uids) VALUES (?1, ?2, ?3)")?;
            for (name, Group { gid, uids }) in memory.groups() {
                insert.execute(params![name, gid, json(uids)?])?;
            }
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_groups_survives_a_restart() {
        let place = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut memory = Memory::default();
        memory.learn("gone", 3, [1]);
        let journal = Journal::start(place.path()).expect("a thread");
        runtime.block_on(journal.set_groups(memory.clone())).expect("written");
        let mut memory = Memory::default();
        memory.learn("crew", u32::MAX, [4711, u32::MAX]);
        memory.learn("empty", 9, []);
        runtime.block_on(journal.set_groups(memory.clone())).expect("written");
        runtime.block_on(journal.close());
        drop(journal);
        let later = Journal::start(place.path()).expect("a thread");
        assert_eq!(runtime.block_on(later.groups()).expect("read"), memory);
    }
}
