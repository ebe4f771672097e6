//! The step `archive_mail_file`, as it is described before it is taken.

use procstorm_toolkit::chain::Chain;

use super::mailroom::Trouble;
use super::note::FormNote;
use crate::policy::{OnArchiveFailure, Playbook};
use crate::steps::{Look, Step};

/// Saves the user's mail files.
#[derive(Debug)]
pub(crate) struct ArchiveMailFile;

impl Step for ArchiveMailFile {
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

    fn plan(&self, look: &Look<'_>) -> Vec<String> {
        let account = look.plan.account();
        let plans = match look.mailroom.plan_and_wait(account.clone()) {
            Ok(plans) => plans,
            Err(trouble @ Trouble::NoArchive(_)) => return vec![trouble.to_string()],
            Err(trouble) => return vec![format!("would fail: {}", Chain(&trouble))],
        };
        if plans.is_empty() {
            let path = look.spool.join(account.name.as_str());
            return vec![format!("there is no mail file {}", path.display())];
        }
        plans.iter().map(|plan| FormNote::from(plan).to_string()).collect()
    }
}
