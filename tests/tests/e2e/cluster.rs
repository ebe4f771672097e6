//! A real pair of Alertmanagers, or three, before a remediator: whatever they repeat, double or lose, nothing
//! is done twice and nothing is left undone.
//!
//! What Alertmanager does, and the test that holds the remediator right under it; without a file,
//! it is one of these here.
//!
//! | Alertmanager | test |
//! |---|---|
//! | says it at least once, a pair that is cut apart twice | `a_pair_that_is_told_the_same_acts_once_and_mails_once`, `a_pair_that_is_cut_apart_says_it_twice_and_it_is_done_once` |
//! | repeats after 5xx, and after 4xx at the next interval | `what_could_not_be_taken_is_said_again_by_both_and_done_once`; `remediator_web`: `only_the_token_opens_the_webhook`, `nonsense_is_answered_in_one_line_and_nothing_panics` |
//! | as a pair, doubles after 5xx | `what_could_not_be_taken_is_said_again_by_both_and_done_once` |
//! | gives a post 10 s: the answer does not wait for the work | `remediator_names`: `a_name_service_that_hangs_delays_no_answer_and_nobody_else` |
//! | calls a group firing if one of its alerts is | `of_a_group_of_a_hundred_each_is_judged_and_the_resolved_are_left_alone` |
//! | names an episode by fingerprint and start; the cool-down is per user and command | `remediator_course`: `during_the_cool_down_an_alert_waits_and_is_not_lost` |
//! | repeats with the same fingerprint and start | `a_repeat_of_the_same_episode_ends_the_storm_that_is_back` |
//! | is silent while an alert fires on | `remediator_course`: `a_storm_that_returns_is_ended_again_until_the_limit_and_people_are_told` |
//! | keeps a new alert of a known group until the next interval: one group a user | `rules/check.sh` compares the routes |
//! | calls resolved what could not be scraped | `of_a_group_of_a_hundred_each_is_judged_and_the_resolved_are_left_alone` |
//! | leaves alerts out at `max_alerts` | `what_alertmanager_leaves_out_is_counted_and_told` |
//! | has other fields in other versions | unit test `payload`: `an_alert_is_read_and_what_is_new_is_ignored` |
//! | logs the answer | `remediator_web`: `nonsense_is_answered_in_one_line_and_nothing_panics` |
//! | keeps alerts from its peers: each member must be given an outcome | `a_member_that_hangs_delays_no_mail_and_gets_the_outcome_when_it_answers` |
//! | does not tell of a silence made since | `a_silence_made_at_one_of_the_pair_stops_the_repeat` |

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::uids::claim_uid;
use procstorm_testkit::{needs_root, wait};
use procstorm_tests::alertmanager::Alertmanager;
use procstorm_tests::host::{Host, Post};
use procstorm_tests::journal;
use procstorm_tests::smtp::{Mail, Sink};
use procstorm_tests::storm::Storm;
use procstorm_tests::tmpfs::Tmpfs;
use tempfile::TempDir;

/// How long anything may take: what a busy machine needs besides.
const SOON: Duration = Duration::from_secs(120);

/// A remediator, and two Alertmanagers that call it and that mail what it has done.
struct Scene {
    pair: [Alertmanager; 2],
    host: Host,
    sink: Sink,
    _dir: TempDir,
}

/// What a test asks of the pair.
struct Wish {
    /// Whether they know each other.
    clustered: bool,
    group_by: &'static str,
    repeat_interval: &'static str,
    max_alerts: u32,
}

const WISH: Wish = Wish { clustered: true, group_by: "...", repeat_interval: "1h", max_alerts: 0 };

/// The remediator counts a storm anew at once.
const AT_ONCE: &str = "    settle: 0s\n    cooldown: 0s";

impl Scene {
    /// `changes` and `top` are the remediator's, as [`Host::start`] has them.
    fn start(command: &str, changes: &str, top: &str, wish: &Wish) -> Result<Self, Fault> {
        let host = Host::start(command, changes, top)?;
        let sink = Sink::start(None)?;
        let dir = tempfile::tempdir().or_fault("no directory")?;
        let config = dir.path().join("alertmanager.yml");
        fs::write(&config, configuration(&host, &sink, wish)).or_fault("no configuration")?;
        let pair = if wish.clustered {
            Alertmanager::start_pair(&config, dir.path(), Duration::from_secs(3))?
        } else {
            let alone = |name: &str| {
                let dir = dir.path().join(name);
                fs::create_dir(&dir).or_fault("no directory")?;
                Alertmanager::start(&config, &dir)
            };
            [alone("one")?, alone("other")?]
        };
        // Where outcomes go is known only now.
        let top = format!("{top}\nalertmanager: {}", pair[0].url());
        host.change_policy(command, changes, &top)?;
        host.reload()?;
        wait::until("reloaded", SOON, || host.daemon.log().contains("reloaded").then_some(()))?;
        Ok(Self { pair, host, sink, _dir: dir })
    }

    /// Posts alerts to both, as Prometheus does.
    fn post(&self, alerts: &[Post]) -> Result<(), Fault> {
        let alerts: Vec<_> = alerts.iter().map(Post::of_prometheus).collect();
        self.pair.iter().try_for_each(|one| one.post_alerts(&alerts))
    }

    /// Waits until so many remediations have ended a storm.
    fn wait_for_kills(&self, count: usize) -> Result<(), Fault> {
        let waited = wait::until(&format!("{count} kills"), SOON, || {
            (self.count_of("none_seen") >= count).then_some(())
        });
        waited.map_err(|fault| self.with_logs(&fault))
    }

    /// How many remediations came to that verdict.
    fn count_of(&self, verdict: &str) -> usize {
        let verdicts = self.host.verdicts().unwrap_or_default();
        verdicts.iter().filter(|one| *one == verdict).count()
    }

    /// Waits until the remediator has been told of an alert so often, whatever it made of that.
    fn wait_for_alerts(&self, decisions: &[&str], count: f64) -> Result<(), Fault> {
        let series = |name| format!("procstorm_webhook_alerts_total{{decision=\"{name}\"}}");
        let waited = wait::until(&format!("{count} alerts {decisions:?}"), SOON, || {
            let told = decisions.iter().map(|name| self.host.metric(&series(name)));
            (told.sum::<Result<f64, Fault>>().ok()? >= count).then_some(())
        });
        waited.map_err(|fault| self.with_logs(&fault))
    }

    /// Waits until each of the pair has asked its record `count` times more whether a notification
    /// was sent already, which it does at every flush, after it has waited for its peer.
    fn wait_for_flushes(&self, count: f64) -> Result<(), Fault> {
        for one in &self.pair {
            let asked = || one.metric("alertmanager_nflog_queries_total", &[]);
            let enough = asked()? + count;
            wait::until("flushes", SOON, || asked().is_ok_and(|now| now >= enough).then_some(()))?;
        }
        Ok(())
    }

    /// Waits until each of the pair has failed to post to the remediator.
    fn wait_for_failures(&self) -> Result<(), Fault> {
        let name = "alertmanager_notification_requests_failed_total";
        for one in &self.pair {
            let before = one.metric(name, &[("integration", "webhook")])?;
            let waited = wait::until("failed posts", SOON, || {
                let now = one.metric(name, &[("integration", "webhook")]).ok()?;
                (now > before).then_some(())
            });
            waited.map_err(|fault| self.with_logs(&fault))?;
        }
        Ok(())
    }

    fn killed(&self) -> Result<f64, Fault> {
        self.host.metric("procstorm_processes_killed_total")
    }

    /// The mails that say that a storm was ended.
    fn kills_mailed(&self) -> Vec<Mail> {
        let mut mails = self.sink.mails();
        mails.retain(|mail| mail.subject().contains("killed all"));
        mails
    }

    fn wait_for_mails(&self, count: usize) -> Result<(), Fault> {
        let waited = wait::until(&format!("{count} mails"), SOON, || {
            (self.kills_mailed().len() >= count).then_some(())
        });
        waited.map_err(|fault| self.with_logs(&fault))
    }

    fn with_logs(&self, fault: &Fault) -> Fault {
        let [one, other] = &self.pair;
        Fault::new(format!(
            "{}, but {:?}\n{}\n{}\n{}",
            fault.whole(),
            self.host.verdicts(),
            self.host.daemon.log(),
            one.daemon.log(),
            other.daemon.log(),
        ))
    }
}

/// Routes and receivers as shipped, in the short times of a test; that resolved alerts are sent
/// too is what somebody may have set.
fn configuration(host: &Host, sink: &Sink, wish: &Wish) -> String {
    let Wish { group_by, repeat_interval, max_alerts, .. } = wish;
    let (smtp, url) = (sink.address(), host.url("/webhook"));
    let token = host.dir().join("token");
    format!(
        "global: {{smtp_smarthost: '{smtp}', smtp_from: a@example.org, smtp_require_tls: false}}
route:
  receiver: remediator
  group_by: ['{group_by}']
  group_wait: 1s
  group_interval: 1s
  repeat_interval: {repeat_interval}
  routes:
    - matchers: [alertname=\"ProcstormOutcome\"]
      receiver: mail
      group_by: ['...']
      group_wait: 0s
      repeat_interval: 1d
receivers:
  - name: remediator
    webhook_configs:
      - url: {url}
        send_resolved: true
        max_alerts: {max_alerts}
        http_config:
          authorization: {{type: Bearer, credentials_file: {token}}}
  - name: mail
    email_configs:
      - to: postmaster@example.org
        send_resolved: false
        headers: {{Subject: '{{{{ .CommonAnnotations.summary }}}}'}}
",
        token = token.display()
    )
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.5
}

#[test]
fn a_pair_that_is_told_the_same_acts_once_and_mails_once() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let scene = Scene::start("pair-a", "    settle: 120s", "", &WISH)?;
    let storm = Storm::raise(uid, b"pair-a", 30)?;
    scene.post(&[Post::storm(uid, "pair-a")])?;
    scene.wait_for_kills(1)?;
    scene.wait_for_mails(1)?;
    // Each has had its turn to say it again, of the alert and of the outcome.
    scene.wait_for_flushes(4.0)?;
    assert_eq!(storm.living()?, 0);
    assert!(near(scene.killed()?, 30.0));
    assert_eq!(scene.host.verdicts()?, ["none_seen"]);
    assert_eq!(scene.kills_mailed().len(), 1);
    Ok(())
}

#[test]
fn a_pair_that_is_cut_apart_says_it_twice_and_it_is_done_once() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let told = ["accepted", "coalesced"];
    let wish = Wish { clustered: false, ..WISH };
    // At the same time: the second is taken in by what the first has begun, or by its watch.
    let together = Scene::start("pair-b", "    settle: 120s", "", &wish)?;
    let storm = Storm::raise(uid, b"pair-b", 10)?;
    together.post(&[Post::storm(uid, "pair-b")])?;
    together.wait_for_alerts(&told, 2.0)?;
    together.wait_for_kills(1)?;
    together.wait_for_mails(1)?;
    assert_eq!(storm.living()?, 0);
    assert_eq!(together.host.verdicts()?, ["none_seen"]);
    drop(together);

    // One after the other: the second is counted anew.
    let apart = Scene::start("pair-c", AT_ONCE, "", &wish)?;
    let storm = Storm::raise(uid, b"pair-c", 10)?;
    let alert = Post::storm(uid, "pair-c").of_prometheus();
    apart.pair[0].post_alerts(std::slice::from_ref(&alert))?;
    apart.wait_for_kills(1)?;
    apart.pair[1].post_alerts(&[alert])?;
    apart.host.wait_for_verdicts(&["none_seen", "no_longer_true"])?;
    assert_eq!(storm.living()?, 0);
    assert!(near(apart.killed()?, 10.0));
    apart.wait_for_mails(1)?;
    apart.wait_for_flushes(4.0)?;
    assert_eq!(apart.kills_mailed().len(), 1);
    Ok(())
}

#[test]
fn what_could_not_be_taken_is_said_again_by_both_and_done_once() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let dir = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(&dir.path().join("state"), "8m")?;
    let top = format!("state: {}", disk.path().display());
    let mut scene = Scene::start("pair-d", "    settle: 120s", &top, &WISH)?;

    let storm = Storm::raise(uid, b"pair-d", 10)?;
    // What has a file open for writing keeps its file system writable.
    assert!(scene.host.stop()?.success());
    disk.remount("ro")?;
    scene.host.restart()?;
    scene.post(&[Post::storm(uid, "pair-d")])?;
    scene.wait_for_failures()?;
    assert!(
        scene.host.metric("procstorm_webhook_notifications_total{result=\"unavailable\"}")? > 0.0
    );
    assert_eq!(storm.living()?, 10);
    disk.remount("rw")?;
    scene.wait_for_kills(1)?;
    scene.wait_for_flushes(4.0)?;
    assert_eq!(storm.living()?, 0);
    assert_eq!(scene.host.verdicts()?, ["none_seen"]);

    let storm = Storm::raise(uid + 1, b"pair-d", 10)?;
    scene.host.kill()?;
    scene.post(&[Post::storm(uid + 1, "pair-d")])?;
    scene.wait_for_failures()?;
    assert_eq!(storm.living()?, 10);
    scene.host.restart()?;
    scene.wait_for_kills(2)?;
    scene.wait_for_mails(2)?;
    scene.wait_for_flushes(4.0)?;
    assert_eq!(storm.living()?, 0);
    assert_eq!(scene.host.verdicts()?, ["none_seen", "none_seen"]);
    assert_eq!(scene.kills_mailed().len(), 2);
    Ok(())
}

/// How often alerts were accepted under each name of an episode.
fn episodes(state: &Path) -> Result<Vec<String>, Fault> {
    let query = "SELECT fingerprint, starts_at, count(DISTINCT remediation) FROM alerts \
                 WHERE decision = 'accepted' GROUP BY 1, 2";
    journal::read(state, query)
}

#[test]
fn a_repeat_of_the_same_episode_ends_the_storm_that_is_back() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let wish = Wish { repeat_interval: "2s", ..WISH };
    let scene = Scene::start("pair-e", AT_ONCE, "", &wish)?;
    let first = Storm::raise(uid, b"pair-e", 10)?;
    scene.post(&[Post::storm(uid, "pair-e")])?;
    scene.wait_for_kills(1)?;
    assert_eq!(first.living()?, 0);
    // The alert fires on, and nobody posts anything. The remediator does not look while the storm
    // rises: half a storm could be ended, and the other half be none.
    scene.host.daemon.halt()?;
    let second = Storm::raise(uid, b"pair-e", 10)?;
    scene.host.daemon.resume()?;
    scene.wait_for_kills(2)?;
    assert_eq!(second.living()?, 0);
    assert!(near(scene.killed()?, 20.0));
    let episodes = episodes(&scene.host.dir().join("state"))?;
    assert_eq!(episodes.len(), 1, "one fingerprint, one start: {episodes:?}");
    Ok(())
}

#[test]
fn of_a_group_of_a_hundred_each_is_judged_and_the_resolved_are_left_alone() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let wish = Wish { group_by: "alertname", ..WISH };
    let mut scene = Scene::start("pair-f", AT_ONCE, "", &wish)?;
    let storms: Vec<_> =
        (0..4).map(|n| Storm::raise(uid + n, b"pair-f", 6)).collect::<Result<_, _>>()?;
    let alert = |n: u32| Post::storm(uid + n, "pair-f");
    let group: Vec<_> = (0..100).map(alert).collect();
    scene.post(&group)?;
    scene.wait_for_alerts(&["accepted", "coalesced"], 100.0)?;
    scene.wait_for_kills(4)?;
    for storm in &storms {
        assert_eq!(storm.living()?, 0);
    }
    assert!(near(scene.killed()?, 24.0));

    // The first user's alert resolves just when it rages again; the second's fires on, and is
    // said again since another joins the group. One of the pair is gone: it could still say what
    // was true when it began to wait for its peer.
    scene.wait_for_flushes(2.0)?;
    scene.pair[1].daemon.terminate(SOON)?;
    let spared = Storm::raise(uid, b"pair-f", 6)?;
    let ended = Storm::raise(uid + 1, b"pair-f", 6)?;
    let change = [alert(0).resolved(), alert(100)].map(|post| post.of_prometheus());
    scene.pair[0].post_alerts(&change)?;
    scene.wait_for_alerts(&["resolved"], 1.0)?;
    scene.wait_for_kills(5)?;
    assert_eq!((spared.living()?, ended.living()?), (6, 0));
    let first = uid.to_string();
    let of_the_first: Vec<_> =
        scene.host.remediations()?.into_iter().filter(|one| one["user"] == first).collect();
    assert!(of_the_first.iter().filter(|one| one["verdict"] == "none_seen").count() == 1);
    Ok(())
}

#[test]
fn what_alertmanager_leaves_out_is_counted_and_told() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let wish = Wish { group_by: "alertname", max_alerts: 3, ..WISH };
    let scene = Scene::start("pair-g", AT_ONCE, "", &wish)?;
    let storms: Vec<_> =
        (0..10).map(|n| Storm::raise(uid + n, b"pair-g", 6)).collect::<Result<_, _>>()?;
    let group: Vec<_> = (0..10).map(|n| Post::storm(uid + n, "pair-g")).collect();
    scene.post(&group)?;
    wait::until("alerts left out", SOON, || {
        let left_out = scene.host.metric("procstorm_webhook_truncated_alerts_total").ok()?;
        (left_out >= 1.0).then_some(())
    })
    .map_err(|fault| scene.with_logs(&fault))?;
    scene.wait_for_kills(3)?;
    let log = scene.host.daemon.log();
    assert!(log.contains("Alertmanager left alerts out: set max_alerts to 0"), "{log}");
    let ended = storms.iter().filter(|storm| storm.living().unwrap() == 0).count();
    assert!((3..10).contains(&ended), "{ended} of 10 ended");
    Ok(())
}

#[test]
fn a_silence_made_at_one_of_the_pair_stops_the_repeat() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let scene = Scene::start("pair-h", "    settle: 120s\n    cooldown: 1s", "", &WISH)?;
    let first = Storm::raise(uid, b"pair-h", 8)?;
    scene.post(&[Post::storm(uid, "pair-h")])?;
    scene.wait_for_kills(1)?;
    assert_eq!(first.living()?, 0);
    // Made at the one that is not asked: gossip brings it to the other.
    let from = jiff::Timestamp::now().to_string();
    let id = scene.pair[1].silence_user(&uid.to_string(), &from, "2099-01-01T00:00:00Z")?;
    wait::until("the silence is known to both", SOON, || {
        scene.pair[0].knows_silence(&id).ok()?.then_some(())
    })?;
    let second = scene.host.raise_until_silenced(uid, b"pair-h")?;
    assert_eq!(second.living()?, 8);
    Ok(())
}

#[test]
fn a_member_that_hangs_delays_no_mail_and_gets_the_outcome_when_it_answers() -> Result<(), Fault> {
    needs_root!();
    let uid = claim_uid();
    let host = Host::start("pair-i", "    settle: 120s", "")?;
    let sink = Sink::start(None)?;
    let dir = tempfile::tempdir().or_fault("no directory")?;
    let config = dir.path().join("alertmanager.yml");
    fs::write(&config, configuration(&host, &sink, &WISH)).or_fault("no configuration")?;
    let members = Alertmanager::start_cluster(&config, dir.path(), 3, Duration::from_secs(1))?;
    let urls: Vec<_> = members.iter().map(Alertmanager::url).collect();
    let top = format!("alertmanager: [{}]", urls.join(", "));
    host.change_policy("pair-i", "    settle: 120s", &top)?;
    host.reload()?;
    let ups = || -> Result<Vec<f64>, Fault> {
        let series = |url: &&str| format!("procstorm_alertmanager_up{{alertmanager=\"{url}\"}}");
        urls.iter().map(|url| host.metric(&series(url))).collect()
    };
    wait::until("all answer", SOON, || (ups().ok()? == [1.0, 1.0, 1.0]).then_some(()))?;
    // The first of the list: no other may wait for it.
    members[0].daemon.halt()?;
    let storm = Storm::raise(uid, b"pair-i", 10)?;
    host.post(&[Post::storm(uid, "pair-i")])?;
    host.wait_for_verdicts(&["none_seen"])?;
    assert_eq!(storm.living()?, 0);
    let ended = Instant::now();
    let killed =
        || sink.mails().iter().filter(|mail| mail.subject().contains("killed all")).count();
    wait::until("the mail", SOON, || (killed() == 1).then_some(()))?;
    eprintln!("mailed {:.1} s after the end, one of three hangs", ended.elapsed().as_secs_f64());
    host.wait_for_metric("procstorm_outcomes_pending", 0.0)?;
    members[0].daemon.resume()?;
    let has_it = |member: &Alertmanager| {
        let alerts = member.alerts().unwrap_or_default();
        alerts.iter().any(|alert| alert["labels"]["alertname"] == "ProcstormOutcome")
    };
    wait::until("all have it", SOON, || members.iter().all(has_it).then_some(()))?;
    let flushed = |member: &Alertmanager| member.metric("alertmanager_nflog_queries_total", &[]);
    let before = flushed(&members[0])?;
    wait::until("its turn", SOON, || (flushed(&members[0]).ok()? > before + 2.0).then_some(()))?;
    assert_eq!(killed(), 1, "mailed once");
    Ok(())
}
