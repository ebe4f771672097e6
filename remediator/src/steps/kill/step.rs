//! The step `kill_user_proc`, as the rest of the program knows it.

use super::{Report, run};
use crate::journal::StepRow;
use crate::outcome::Part;
use crate::policy::duration::spoken;
use crate::policy::{NestedNamespaces, Playbook};
use crate::steps::record::{self, Record, Unreadable};
use crate::steps::run::{Run, Running, Took, Work};
use crate::steps::{Look, Outlook, Step};

/// Ends the storm.
#[derive(Debug)]
pub(crate) struct KillUserProc;

impl Step for KillUserProc {
    fn title(&self) -> &'static str {
        "End the processes"
    }

    fn describe(&self, book: &Playbook) -> String {
        let commands = book.told_commands();
        if book.grace.is_zero() {
            return format!("kill all processes of that user named {commands} (SIGKILL)");
        }
        format!(
            "kill all processes of that user named {commands} (SIGTERM, and SIGKILL for those left \
             after {})",
            spoken(book.grace)
        )
    }

    fn remarks(&self, book: &Playbook) -> Vec<&'static str> {
        vec![match book.nested_namespaces {
            NestedNamespaces::Leave => {
                "Processes in pid namespaces that the user has not made (containers) are left \
                 alone, and their number is mailed."
            }
            NestedNamespaces::Kill => {
                "Processes in any pid namespace, containers included, are counted and killed."
            }
        }]
    }

    fn plan(&self, look: &Look<'_>) -> Outlook {
        let pids: Vec<_> = look.living.iter().map(i32::to_string).collect();
        Outlook { lines: vec![format!("pids {}", pids.join(" "))], stops: false }
    }

    fn run<'a>(&'a self, run: &'a Run<'a>) -> Running<'a, Took> {
        Box::pin(run::run(run))
    }

    /// The kill that was cut off may have left a lock on the mail file.
    fn cut_off<'a>(&'a self, work: &'a Work<'a>) -> Running<'a, Vec<Part>> {
        Box::pin(async { Ok(run::lock_part(work).await?.into_iter().collect()) })
    }

    fn record(&self, row: &StepRow) -> Result<Box<dyn Record>, Unreadable> {
        record::boxed::<Report>(row)
    }
}
