//! Whom /etc/nsswitch.conf (`man 5 nsswitch.conf`) asks for accounts and groups.

use std::fs;

/// Services that read what the sandbox leaves open: /etc, /run, their own directories, or a socket.
const FAMILIAR: [&str; 13] = [
    "files",
    "compat",
    "systemd",
    "sss",
    "winbind",
    "ldap",
    "nis",
    "nisplus",
    "db",
    "mymachines",
    "altfiles",
    "extrausers",
    "cache",
];

/// The names of the services, in the order in which they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Services {
    accounts: Vec<String>,
    groups: Vec<String>,
}

impl Services {
    /// Those of this machine; without the file, none.
    pub(super) fn of_this_machine() -> Self {
        Self::parse(&fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Self {
        Self { accounts: line(text, "passwd"), groups: line(text, "group") }
    }

    /// Who may be at fault, with the modules.
    pub(super) fn suspects(&self) -> String {
        let all = || self.accounts.iter().chain(&self.groups);
        let strange = told(all().filter(|name| !is_familiar(name)));
        let others = || told(all().filter(|name| *name != "files"));
        strange.or_else(others).unwrap_or_else(|| "no service but files".to_owned())
    }

    /// Those who know accounts, and of whom it is not known what they read; `None` if there are
    /// none.
    pub(super) fn strangers(&self) -> Option<String> {
        told(self.accounts.iter().filter(|name| !is_familiar(name)))
    }
}

fn is_familiar(name: &str) -> bool {
    FAMILIAR.contains(&name)
}

fn told<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let mut told: Vec<_> = names.map(|name| format!("{name} (libnss_{name}.so.2)")).collect();
    let mut seen = std::collections::BTreeSet::new();
    told.retain(|name| seen.insert(name.clone()));
    (!told.is_empty()).then(|| told.join(", "))
}

/// The services of one database. What is in brackets are no services but what their answers mean.
fn line(text: &str, database: &str) -> Vec<String> {
    let mut services = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some((name, list)) = line.split_once(':') else { continue };
        if name.trim() != database {
            continue;
        }
        for part in list.split('[') {
            let part = part.split_once(']').map_or(part, |(_meaning, rest)| rest);
            services.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_from_what_their_answers_mean() {
        let text = "# passwd: no\n passwd : files [!UNAVAIL=return SUCCESS=continue] far sss # x\n\
                    group:files[SUCCESS=merge]near far\nshadow: other\n";
        let services = Services::parse(text);
        assert_eq!(services.accounts, ["files", "far", "sss"]);
        assert_eq!(services.groups, ["files", "near", "far"]);
        assert_eq!(services.suspects(), "far (libnss_far.so.2), near (libnss_near.so.2)");
        assert_eq!(services.strangers().as_deref(), Some("far (libnss_far.so.2)"));
        assert_eq!(Services::parse("passwd: files sss").suspects(), "sss (libnss_sss.so.2)");
        assert_eq!(Services::parse("").strangers(), None);
    }
}
