//! The policy in plain sentences, so that a person can check it against the intention.

use std::fmt::{self, Display, Formatter};

use crate::counted::counted;
use crate::policy::duration::spoken;
use crate::policy::{Config, DryRun, Playbook, Rate, Reserve};
use crate::steps;

impl Config {
    /// What this configuration lets the daemon do, a sentence a line.
    #[must_use]
    pub fn explain(&self) -> String {
        Explanation(self).to_string()
    }
}

struct Explanation<'a>(&'a Config);

impl Display for Explanation<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let config = self.0;
        writeln!(f, "Alerts whose label host is {:?} are taken; others are refused.", config.host)?;
        match &config.token_file {
            Some(path) => {
                writeln!(f, "Requests must carry the bearer token stored in {}.", path.display())?;
            }
            None => writeln!(
                f,
                "No bearer token is demanded: without users or verified client certificates in \
                 --web.config.file, the daemon listens on loopback addresses only."
            )?,
        }
        let members: Vec<_> = config.alertmanager.iter().map(ToString::to_string).collect();
        match members.as_slice() {
            [] => writeln!(f, "Outcomes are posted nowhere, and so not mailed.")?,
            [uri] => writeln!(f, "Outcomes are posted to {uri}.")?,
            members => writeln!(f, "Outcomes are posted to each of {}.", members.join(", "))?,
        }
        accounts(config, f)?;
        mail(config, f)?;
        if !config.sandbox.read.is_empty() {
            let read: Vec<_> =
                config.sandbox.read.iter().map(|path| path.display().to_string()).collect();
            writeln!(f, "In its sandbox the daemon also reads {}.", read.join(", "))?;
        }
        links(config, f)?;
        mode(config, f)?;
        writeln!(f, "At most {} remediations act at once.", config.parallel)?;
        writeln!(f, "The journal in {} keeps {}.", config.state.display(), spoken(config.history))?;
        config.playbooks.iter().try_for_each(|(name, book)| {
            playbook(name, book, f)?;
            match config.is_dry_run(name) {
                true => writeln!(
                    f,
                    "  DRY RUN: it kills and saves nothing; it reports what it would do."
                ),
                false => writeln!(f, "  LIVE: it acts."),
            }
        })
    }
}

/// Whether anything is killed, and what to write to change that.
fn mode(config: &Config, f: &mut Formatter<'_>) -> fmt::Result {
    let live: Vec<_> = config.live_playbooks().collect();
    let all: Vec<_> = config.playbooks.keys().map(String::as_str).collect();
    if live.is_empty() {
        writeln!(
            f,
            "DRY RUN: nothing is killed and nothing is saved. Outcomes say what would be done, and \
             `procstorm-remediator report` sums them up."
        )?;
    } else if live.len() == all.len() {
        return writeln!(f, "LIVE: every playbook acts. To stop them all, write `dry_run: true`.");
    } else {
        let dry: Vec<_> = all.iter().filter(|name| !live.contains(name)).copied().collect();
        writeln!(f, "LIVE: {}. DRY RUN: {}.", live.join(", "), dry.join(", "))?;
    }
    let own: Vec<_> = config.playbooks.iter().filter(|(_, book)| book.dry_run).collect();
    let own: Vec<_> = own.into_iter().map(|(name, _)| name.as_str()).collect();
    if live.is_empty() && own.len() < all.len() {
        let one = all.iter().find(|name| !own.contains(name)).copied().unwrap_or_default();
        write!(f, "To arm every playbook, write `dry_run: false`")?;
        if all.len() > 1 {
            write!(f, "; to arm {one} alone, `dry_run: {{except: [{one}]}}`")?;
        }
        write!(f, ". ")?;
    } else if config.dry_run != DryRun::Own {
        write!(f, "To arm every playbook, write `dry_run: false`. ")?;
    }
    if !own.is_empty() {
        write!(f, "`dry_run: true` of its own keeps {} from acting. ", own.join(", "))?;
    }
    writeln!(f, "Then reload: systemctl reload procstorm-remediator.")
}

/// Whom the policy never acts on, in a sentence.
pub(crate) struct LeftAlone<'a>(pub(crate) &'a Config);

impl Display for LeftAlone<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        accounts(self.0, f)
    }
}

fn accounts(config: &Config, f: &mut Formatter<'_>) -> fmt::Result {
    let accounts = &config.accounts;
    let protected: Vec<_> = accounts.protected.iter().map(ToString::to_string).collect();
    write!(f, "Never acted on: root, uids below {}", accounts.min_uid)?;
    if !accounts.allow_own_uid {
        write!(f, ", the daemon's own uid")?;
    }
    if !accounts.allow_nameless {
        write!(f, ", uids without a name")?;
    }
    if !accounts.allow_shared_uid {
        write!(f, ", uids that own the mail of several users")?;
    }
    if !protected.is_empty() {
        write!(f, " and {}", protected.join(", "))?;
    }
    writeln!(f, ".")?;
    match &accounts.only {
        None => Ok(()),
        Some(only) => {
            let only: Vec<_> = only.iter().map(ToString::to_string).collect();
            writeln!(f, "Of all others, only these are acted on: {}.", only.join(", "))
        }
    }
}

fn mail(config: &Config, f: &mut Formatter<'_>) -> fmt::Result {
    let mail = &config.mail;
    let reserve = match mail.reserve {
        Reserve::Percent(percent) => format!("{percent} % of the file system"),
        Reserve::Bytes(bytes) => spoken_size(bytes),
    };
    writeln!(
        f,
        "Mail files in {} are saved in {}, unless less than {reserve} would stay free.",
        mail.spool.display(),
        mail.archive.display()
    )?;
    let kept = mail.retention();
    if let Some(keep) = kept.keep {
        writeln!(f, "Of each mail file, {keep} archives are kept.")?;
    }
    if let Some(age) = kept.max_age {
        writeln!(f, "Archives older than {} are deleted, never the newest.", spoken(age))?;
    }
    if let Some(bytes) = kept.max_bytes {
        writeln!(
            f,
            "The archives of one user hold at most {}, the newest in any case.",
            spoken_size(bytes)
        )?;
    }
    Ok(())
}

fn links(config: &Config, f: &mut Formatter<'_>) -> fmt::Result {
    let links = &config.links;
    let all = [
        ("the dashboard", &links.dashboard),
        ("the runbook", &links.runbook),
        ("Alertmanager", &links.alertmanager),
    ];
    let given: Vec<_> =
        all.iter().filter_map(|(name, url)| Some(format!("{name} ({})", url.as_ref()?))).collect();
    if given.is_empty() {
        return Ok(());
    }
    writeln!(f, "The status page links to {}.", given.join(", "))
}

fn playbook(name: &str, book: &Playbook, f: &mut Formatter<'_>) -> fmt::Result {
    let steps: Vec<_> = book.steps.iter().map(|step| steps::of(*step).describe(book)).collect();
    writeln!(
        f,
        "Playbook {name}: when {} names it and a user has at least {} processes of exactly {}, \
         counted here and now: {}.",
        book.alerts.join(" or "),
        book.threshold,
        book.told_commands(),
        steps.join(", then "),
    )?;
    for remark in book.steps.iter().flat_map(|step| steps::of(*step).remarks(book)) {
        writeln!(f, "  {remark}")?;
    }
    writeln!(
        f,
        "  Afterwards the storm is watched for {}; it is ended again not sooner than {} after the \
         last time, at most {} for one user and {} for all.",
        spoken(book.settle),
        spoken(book.cooldown),
        often(book.limits.per_user),
        often(book.limits.total),
    )
}

/// A size as one would write it: in the largest unit that needs no fraction.
fn spoken_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 7] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "kB"),
    ];
    let fits = |(size, _): &&(u64, _)| bytes > 0 && bytes.is_multiple_of(*size);
    let Some((size, unit)) = UNITS.iter().find(fits) else { return format!("{bytes} bytes") };
    format!("{} {unit}", bytes.checked_div(*size).unwrap_or_default())
}

fn often(rate: Rate) -> String {
    let count = counted(rate.count, "time", "times");
    format!("{count} in {}", spoken(rate.window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_in_the_unit_it_was_given_in() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (2_000, "2 kB"),
            (512 << 20, "512 MiB"),
            (10_000_000_000, "10 GB"),
            (20 << 30, "20 GiB"),
        ] {
            assert_eq!(spoken_size(bytes), told);
        }
    }
}
