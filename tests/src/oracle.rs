//! The original's two scripts, read literally: what a run of each says of one line of
//! `ps -eo user,comm | sort | uniq -c` on one host.
//!
//! Written to be held beside the scripts' text, `if` by `if`, and for nothing else: the shipped
//! rules are compared with it (`tests/rules_oracle.rs`).
//!
//! One thing is ours: PIKT cut a line at its blanks, so that `$proc` was the first word of a
//! command that holds a blank. Here, as in the rules, it is the whole command: a process does not
//! leave its class by putting a blank before its name.

/// What one run of a script does with one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// `output log`: the line goes to the diagnostic log.
    pub logged: bool,
    /// `output mail $inline`.
    pub mailed: bool,
    /// `=archive_mail_file(...)` and `=kill_user_proc("imapd", ...)`.
    pub acted: bool,
}

/// `ProcNumChkEmergency`.
#[must_use]
pub fn emergency(host: &str, count: u64, process: &str) -> Said {
    let mut said = Said::default();
    let moscow = host == "moscow";
    let nantes = host == "nantes";
    // #if moscow | nantes
    if !(moscow || nantes) {
        return said;
    }
    // rule: for gathering diagnostic stats
    if count >= if moscow { 20 } else { 10 } {
        said.logged = true;
    }
    // rule: report if the per-user proc count exceeds a certain threshold
    // # if moscow
    if moscow {
        if process.contains("imapd") {
            if count >= 60 {
                said.mailed = true;
            }
            return said; // next
        }
        if process.contains("sendmail") {
            if count >= 60 {
                said.mailed = true;
            }
            return said; // next
        }
        if process.contains("http") {
            if count >= 40 {
                said.mailed = true;
            }
            return said; // next
        }
    }
    // the default case
    if count >= if moscow { 20 } else { 10 } {
        said.mailed = true;
    }
    said
}

/// `ProcNumChkRed`.
#[must_use]
pub fn red(host: &str, count: u64, process: &str) -> Said {
    let mut said = Said::default();
    // #if moscow
    if host != "moscow" {
        return said;
    }
    // rule: for gathering diagnostic stats
    if count >= 30 {
        said.logged = true;
    }
    // rule: report, archive and kill
    if process.contains("imapd") {
        if count >= 90 {
            said.mailed = true;
            said.acted = true;
        }
        return said; // next
    }
    if process.contains("sendmail") {
        if count >= 90 {
            said.mailed = true;
        }
        return said; // next
    }
    if process.contains("http") {
        if count >= 60 {
            said.mailed = true;
        }
        return said; // next
    }
    // the default case
    if count >= 30 {
        said.mailed = true;
    }
    said
}
