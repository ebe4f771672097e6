//! The records of `archive_mail_file` and `mail_file_lock`, as the status page shows them.

use super::note::{Fate, FormNote, LockNote};
use super::{Archived, Form};
use crate::steps::facts::{Fact, fact};
use crate::steps::record::Record;

impl Record for Vec<FormNote> {
    fn facts(&self) -> Vec<Fact> {
        self.iter().flat_map(mail_file).collect()
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

impl Record for LockNote {
    fn facts(&self) -> Vec<Fact> {
        vec![fact("Result", self)]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

fn mail_file(note: &FormNote) -> Vec<Fact> {
    let name = match note.form {
        Form::Mbox => "Mailbox",
        Form::Pop => "POP file",
    };
    let mut facts = vec![fact(name, note.source.display()), fact("Result", note)];
    if let Fate::Archived(Archived { method, lost, elapsed, .. }) = &note.fate {
        facts.push(fact("Copied by", method.label()));
        facts.push(fact("Copied in", format!("{elapsed:.1?}")));
        if !lost.is_empty() {
            let lost: Vec<_> = lost.iter().map(|attribute| attribute.label()).collect();
            facts.push(fact("Attributes not kept", lost.join(", ")));
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::archive::Attribute;
    use crate::steps::facts::value;

    #[test]
    fn a_mail_file_is_shown_with_its_archive_and_what_was_lost() {
        let lost = vec![Attribute::Acl, Attribute::Owner];
        let archived = Archived { lost, ..Archived::at("/var/mail/arc/alice.956900000") };
        let note = FormNote {
            form: Form::Pop,
            source: "/var/mail/.alice.pop".into(),
            fate: Fate::Archived(archived),
        };
        let facts = vec![note].facts();
        assert_eq!(value(&facts, "POP file"), "/var/mail/.alice.pop");
        let result = value(&facts, "Result");
        assert!(result.contains("alice.956900000 (12 bytes)"), "{result}");
        assert_eq!(value(&facts, "Copied by"), "read_write");
        assert_eq!(value(&facts, "Copied in"), "1.5ms");
        assert_eq!(value(&facts, "Attributes not kept"), "acl, owner");
    }
}
