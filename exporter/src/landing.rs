//! The landing page: what this is, and the largest groups now.

use std::time::{Duration, Instant};

use maud::{Markup, html};
use procstorm_toolkit::printable::printable;
use procstorm_toolkit::web::page::document;

use crate::fold::SMALL;
use crate::scan::Scan;

/// How many groups the page shows.
const SHOWN: usize = 20;

/// How old a scan may be that the page shows instead of making one.
pub const FRESH: Duration = Duration::from_secs(5);

/// What a page shows of a scan.
#[derive(Clone, Debug)]
pub struct Largest {
    /// When the scan ended.
    at: Instant,
    /// User, command, and how many processes, the largest first.
    groups: Vec<(String, String, u64)>,
    /// The processes of the groups that are too small to be shown, and what the smallest shown has.
    small: (u64, u64),
    processes: u64,
    users: usize,
    /// Why not all processes are counted, if not all are.
    blindness: Option<String>,
}

impl Largest {
    /// The largest groups of a scan that has just ended.
    #[must_use]
    pub fn of(scan: &Scan) -> Self {
        let all = scan.counts.iter();
        let all =
            all.flat_map(|(user, commands)| commands.iter().map(move |(name, &n)| (user, name, n)));
        let (small, mut groups): (Vec<_>, Vec<_>) = all.partition(|(_, name, _)| *name == SMALL);
        // Of equals, the first by name, so that the page does not change from scan to scan.
        groups.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| (a.0, a.1).cmp(&(b.0, b.1))));
        let shown = groups.into_iter().take(SHOWN);
        Self {
            at: Instant::now(),
            groups: shown.map(|(user, name, n)| (user.to_string(), name.clone(), n)).collect(),
            small: (small.iter().map(|(_, _, n)| n).sum(), scan.min_processes),
            processes: scan.processes,
            users: scan.users,
            blindness: scan.blindness.as_ref().map(ToString::to_string),
        }
    }

    /// Whether the page may show it as it is.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH
    }
}

/// The page; `largest` is what the last scan has found, or why there is none.
#[must_use]
pub fn page(telemetry_path: &str, largest: Result<&Largest, &str>) -> String {
    let title = "procstorm exporter";
    let body = html! {
        h1 { (title) }
        p { "Counts the processes of each user by command, for Prometheus." }
        nav aria-label="Pages" { ul.links {
            li { a href=(telemetry_path) { "Metrics" } }
            li { a href="/-/healthy" { "Healthy" } }
            li { a href="/-/ready" { "Ready" } }
        } }
        h2 { "The largest groups now" }
        @match largest {
            Ok(largest) => (groups(largest)),
            Err(why) => p.bad { "Not known: " (printable(why)) },
        }
        footer { "procstorm-exporter " (env!("CARGO_PKG_VERSION")) }
    };
    document(title, &body)
}

fn groups(largest: &Largest) -> Markup {
    let Largest { at, groups, small: (small, least), processes, users, blindness } = largest;
    html! {
        @if let Some(why) = blindness { p.bad { "Not all processes are counted: " (printable(why)) } }
        p {
            (processes) " processes of " (users) @if *users == 1 { " user" } @else { " users" } ", counted "
            @match at.elapsed().as_secs() { 0 => "now", 1 => "1 second ago", n => { (n) " seconds ago" } }
            "."
        }
        @if *small > 0 {
            p { (small) " of them are in groups of fewer than " (least) " processes, which are not shown "
                "(" code { "--collector.min-processes" } ")." }
        }
        @if !groups.is_empty() {
            table {
                caption { "A group is the processes of one user with the same name. The " (SHOWN) " largest are shown." }
                thead { tr {
                    th scope="col" { "User" } th scope="col" { "Command" } th.number scope="col" { "Processes" }
                } }
                tbody { @for (user, command, n) in groups { tr {
                    td.mono data-label="User" { (printable(user)) }
                    td.mono data-label="Command" { (printable(command)) }
                    td.number data-label="Processes" { (n) }
                } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::SMALL_USERS;

    fn scan(groups: &[(&str, &str, u64)]) -> Scan {
        let mut scan = Scan::default();
        for &(user, command, n) in groups {
            scan.counts.entry(user.into()).or_default().insert(command.to_owned(), n);
            scan.processes += n;
        }
        scan.users = scan.counts.len();
        scan
    }

    #[test]
    fn the_largest_groups_come_first_and_hostile_names_stay_text() {
        let many: Vec<String> = (0..30).map(|n| format!("small{n:02}")).collect();
        let mut all: Vec<_> = many.iter().map(|name| ("bob", name.as_str(), 1)).collect();
        all.push(("alice", "<script>\u{202e}", 97));
        let page = page("/metrics", Ok(&Largest::of(&scan(&all))));
        assert!(page.contains("127 processes of 2 users"), "{page}");
        assert_eq!(page.matches("<tr>").count(), SHOWN + 1, "with the head");
        let rows: Vec<_> = page.split("<tr>").skip(2).collect();
        assert!(rows[0].contains("alice") && rows[0].contains("97"), "{}", rows[0]);
        assert!(rows[0].contains("&lt;script&gt;?"), "{}", rows[0]);
        assert!(rows[1].contains("small00"), "{}", rows[1]);
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn small_groups_are_not_among_the_largest() {
        let mut scan =
            scan(&[("alice", "imapd", 9), ("alice", SMALL, 30), (SMALL_USERS, SMALL, 12)]);
        (scan.users, scan.min_processes) = (14, 5);
        let page = page("/metrics", Ok(&Largest::of(&scan)));
        assert!(page.contains("51 processes of 14 users"), "{page}");
        assert!(page.contains("42 of them are in groups of fewer than 5 processes"), "{page}");
        assert_eq!(page.matches("<tr>").count(), 2, "the head and imapd: {page}");
    }

    #[test]
    fn without_a_scan_it_says_why() {
        let page = page("/a&b", Err("cannot read /proc"));
        assert!(page.contains("Not known: cannot read /proc"), "{page}");
        assert!(page.contains("href=\"/a&amp;b\""), "{page}");
    }
}
