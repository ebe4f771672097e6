//! The policies of a fleet, from one directory: `HOST.yml`, or `ROLE.yml` for all hosts of a role.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::targets::Host;
use crate::commands::agreement::{Finding, Place, Policy};
use crate::commands::check;
use crate::policy::{Config, LoadError};

/// What a policy that names no host is read with: no host can be called so.
const NO_HOST: &str = "(the-machine's-own-name)";

/// The policies that were read.
#[derive(Debug)]
pub struct Policies {
    directory: PathBuf,
    /// By the file's name without its ending.
    read: BTreeMap<String, Option<File>>,
}

/// A policy's file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path.
    pub path: PathBuf,
    /// What it says.
    pub config: Config,
    policy: Policy,
}

impl File {
    /// What it says for this host.
    #[must_use]
    pub fn policy(&self, host: &Host) -> Policy {
        Policy { host: host.name.clone(), ..self.policy.clone() }
    }
}

impl Policies {
    /// The policies in a directory, each read when it is asked for.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), read: BTreeMap::new() }
    }

    /// The policy of a host: its own, or its role's; `None` if there is neither.
    pub fn of_host(&mut self, host: &Host) -> Result<Option<&File>, LoadError> {
        for name in [&host.name, &host.role] {
            if !name.is_empty() && self.load(name)? {
                return Ok(self.read.get(name.as_str()).and_then(Option::as_ref));
            }
        }
        Ok(None)
    }

    /// What is wrong with the host that a policy names.
    #[must_use]
    pub fn names_other(file: &File, host: &Host) -> Option<Finding> {
        let named = &file.config.host;
        (named != NO_HOST && named != &host.name).then(|| Finding {
            place: Place { file: file.path.clone(), line: line_of("host", &file.path) },
            what: format!(
                "host: {named:?} would refuse the alerts of host {:?} ({}): leave the key out, and \
                 the machine's own name counts",
                host.name, host.place
            ),
        })
    }

    /// Reads `NAME.yml`, once. Returns whether it is there.
    fn load(&mut self, name: &str) -> Result<bool, LoadError> {
        if let Some(known) = self.read.get(name) {
            return Ok(known.is_some());
        }
        let path = self.directory.join(format!("{name}.yml"));
        // A role is a label, and could be a path.
        let is_there = !name.contains('/') && path.exists();
        let file = if is_there {
            let config = Config::read(&path, NO_HOST)?;
            let policy = check::policy(&config, &path);
            Some(File { path, config, policy })
        } else {
            None
        };
        self.read.insert(name.to_owned(), file);
        Ok(is_there)
    }
}

/// The line of a key at the top of a policy.
pub(super) fn line_of(key: &str, path: &Path) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let is_it = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    let line = text.lines().position(is_it).unwrap_or_default();
    u64::try_from(line).unwrap_or_default().saturating_add(1)
}
