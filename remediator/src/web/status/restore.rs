//! The commands that bring saved mail back, for a person to copy.

use std::path::Path;

use crate::args::CONFIG_FILE;
use crate::steps::archive::Form;
use crate::steps::archive::note::{Fate, FormNote};

/// A command for each saved mailbox of this user that is in the archive directory, which is where
/// `restore` looks. `config_file` is the daemon's own.
#[must_use]
pub fn commands(user: &str, notes: &[FormNote], archive: &Path, config_file: &Path) -> Vec<String> {
    let config = match config_file {
        default if default == Path::new(CONFIG_FILE) => String::new(),
        other => format!(" --config.file {}", quoted(&other.display().to_string())),
    };
    let saved = notes.iter().filter_map(|note| match &note.fate {
        Fate::Archived(saved) if note.form == Form::Mbox => Some(&saved.path),
        Fate::Archived(_) | Fate::Planned(_) | Fate::Failed { .. } | Fate::Absent { .. } => None,
    });
    saved
        .filter(|path| path.parent() == Some(archive))
        .filter_map(|path| path.file_name()?.to_str())
        .map(|name| {
            let (user, name) = (quoted(user), quoted(name));
            format!("procstorm-remediator restore{config} --user {user} --archive {name}")
        })
        .collect()
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./@%+=:,-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::archive::Archived;

    fn saved(form: Form, path: &str) -> FormNote {
        let fate = Fate::Archived(Archived::at(path));
        FormNote { form, source: "/var/mail/alice".into(), fate }
    }

    #[test]
    fn each_mailbox_that_restore_finds_has_a_command_that_a_shell_takes_as_it_is_meant() {
        let arc = Path::new("/var/mail/arc");
        let notes = [
            saved(Form::Mbox, "/var/mail/arc/alice.956900000"),
            saved(Form::Pop, "/var/mail/arc/alice.956900001"),
            saved(Form::Mbox, "/elsewhere/alice.956900002"),
        ];
        let default = Path::new(CONFIG_FILE);
        assert_eq!(
            commands("alice", &notes, arc, default),
            ["procstorm-remediator restore --user alice --archive alice.956900000"]
        );
        let hostile = [saved(Form::Mbox, "/var/mail/arc/a;b.9")];
        assert_eq!(
            commands("a;b'c", &hostile, arc, Path::new("/my policy")),
            [
                r"procstorm-remediator restore --config.file '/my policy' --user 'a;b'\''c' --archive 'a;b.9'"
            ]
        );
    }
}
