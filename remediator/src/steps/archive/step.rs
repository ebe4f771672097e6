//! The step `archive_mail_file`, as the rest of the program knows it.

use procstorm_toolkit::chain::Chain;

use super::mailroom::Trouble;
use super::note::{self, FormNote};
use super::{place, recorded_archives, run};
use crate::journal::StepRow;
use crate::outcome::Part;
use crate::policy::{Config, OnArchiveFailure, Playbook};
use crate::sandbox::Places;
use crate::steps::record::{self, Record, Unreadable};
use crate::steps::run::{Run, Running, Took, Work};
use crate::steps::{Look, Outlook, Step};

/// Saves the user's mail files.
#[derive(Debug)]
pub(crate) struct ArchiveMailFile;

impl Step for ArchiveMailFile {
    fn title(&self) -> &'static str {
        "Save the mail file"
    }

    fn describe(&self, _book: &Playbook) -> String {
        "save the user's mail files".to_owned()
    }

    fn remarks(&self, book: &Playbook) -> Vec<&'static str> {
        vec![match book.on_archive_failure {
            OnArchiveFailure::Stop => "If the mail file cannot be saved, nothing is killed.",
            OnArchiveFailure::Continue => {
                "If the mail file cannot be saved, the other steps are done all the same."
            }
        }]
    }

    fn plan(&self, look: &Look<'_>) -> Outlook {
        let account = look.plan.account();
        let (mut lines, failed) = match look.mailroom.plan_and_wait(account.clone()) {
            Ok(plans) if plans.is_empty() => {
                let path = look.spool.join(account.name.as_str());
                (vec![format!("there is no mail file {}", path.display())], false)
            }
            Ok(plans) => {
                let notes: Vec<_> = plans.iter().map(FormNote::from).collect();
                let failed = notes.iter().any(FormNote::is_failed);
                (notes.iter().map(ToString::to_string).collect(), failed)
            }
            Err(trouble @ Trouble::NoArchive(_)) => (vec![trouble.to_string()], true),
            Err(trouble) => (vec![format!("would fail: {}", Chain(&trouble))], true),
        };
        let stops = failed && look.plan.playbook().on_archive_failure == OnArchiveFailure::Stop;
        if stops {
            lines.push("the steps after it would not run (on_archive_failure: stop)".to_owned());
        }
        Outlook { lines, stops }
    }

    fn run<'a>(&'a self, run: &'a Run<'a>) -> Running<'a, Took> {
        Box::pin(run::run(run))
    }

    /// What is on record: the mail files were saved, or not, before the restart.
    fn cut_off<'a>(&'a self, work: &'a Work<'a>) -> Running<'a, Vec<Part>> {
        Box::pin(async {
            let recorded = recorded_archives(&work.remediation.steps).and_then(Result::ok);
            let part = |notes: &Vec<FormNote>| note::part(work.subject.user, notes, false);
            Ok(recorded.iter().map(part).collect())
        })
    }

    fn record(&self, row: &StepRow) -> Result<Box<dyn Record>, Unreadable> {
        record::boxed::<Vec<FormNote>>(row)
    }

    fn places(&self, config: &Config) -> Places {
        place::places_in_time(&config.mail)
    }
}
