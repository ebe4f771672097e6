//! What the policy lets the daemon do, playbook by playbook.

use crate::journal::uses::Use;
use crate::policy::duration::spoken;
use crate::policy::{Config, Playbook};
use crate::steps;

use super::view::{Mode, PlaybookView};

/// The playbooks of a policy, with how far each has used up its limits, in the same order; `None` if
/// the journal does not say.
#[must_use]
pub fn of(config: &Config, uses: Option<&[Use]>) -> Vec<PlaybookView> {
    let books = config.playbooks.iter().enumerate();
    books
        .map(|(index, (name, book))| {
            let used = uses.and_then(|uses| uses.get(index));
            playbook(name, book, !config.is_dry_run(name), used)
        })
        .collect()
}

/// Whether the playbooks act.
#[must_use]
pub fn mode(config: &Config) -> Mode {
    match config.live_playbooks().count() {
        0 => Mode::DryRun,
        all if all == config.playbooks.len() => Mode::Live,
        _ => Mode::PartlyLive,
    }
}

fn playbook(name: &str, book: &Playbook, is_live: bool, used: Option<&Use>) -> PlaybookView {
    let Playbook { alerts, threshold, limits, .. } = book;
    PlaybookView {
        name: name.to_owned(),
        is_live,
        when: format!(
            "{} asks for it, and the user has {threshold} or more processes named exactly {}",
            alerts.join(" or "),
            book.told_commands(),
        ),
        steps: book.steps.iter().map(|step| steps::of(*step).describe(book)).collect(),
        limits: format!(
            "{} in {} for one user, {} in {} for all",
            limits.per_user.count,
            spoken(limits.per_user.window),
            limits.total.count,
            spoken(limits.total.window)
        ),
        left: used.map(|used| limits.total.count.saturating_sub(used.in_total)),
        exhausted: used.map(|used| used.users.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &str) -> Config {
        let book = |name: &str, dry: bool| {
            format!(
                "  {name}: {{alerts: [Storm], command: imapd, threshold: 90, dry_run: {dry}, \
                 steps: [kill_user_proc], limits: {{per_user: 2/h, total: 5/h}}}}\n"
            )
        };
        let text = format!("{changes}playbooks:\n{}{}", book("a", false), book("b", true));
        Config::parse(&text, "moscow").expect("a policy")
    }

    #[test]
    fn each_playbook_says_whether_it_acts_when_and_how_often_it_still_may() {
        let config = config("");
        let used = Use { in_total: 3, users: vec!["alice".to_owned()] };
        let shown = of(&config, Some(&[used, Use::default()]));
        assert_eq!((shown[0].is_live, shown[1].is_live), (true, false));
        assert!(shown[0].when.contains("Storm asks for it"), "{}", shown[0].when);
        assert!(shown[0].when.contains("90 or more"), "{}", shown[0].when);
        assert_eq!(shown[0].limits, "2 in 1h for one user, 5 in 1h for all");
        assert_eq!((shown[0].left, shown[1].left), (Some(2), Some(5)));
        assert_eq!(shown[0].exhausted, ["alice"]);
        assert_eq!(of(&config, None)[0].left, None);
    }

    #[test]
    fn the_mode_is_that_of_the_playbooks() {
        assert_eq!(mode(&config("")), Mode::PartlyLive);
        assert_eq!(mode(&config("dry_run: true\n")), Mode::DryRun);
    }
}
