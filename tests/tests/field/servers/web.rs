//! Web servers: processes that are kept ready are named as such, programs that hang are ended, and the
//! servers live on.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use procstorm_testkit::fault::Fault;
use procstorm_testkit::wait;
use procstorm_tests::field::machine::Machine;
use procstorm_tests::field::servers;
use procstorm_tests::field::servers::web::{self, Requests};

use super::{SOON, count, machine, needs_servers};

const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// A program that does not answer.
const HANGS: &str = "import time\ntime.sleep(3600)";

const WEB: &str = "A web host with php-fpm and Apache";

/// The web server answers with its start page.
fn answers(machine: &Machine) -> Result<(), Fault> {
    let page = machine.in_network(|| web::get(HTTP, "/"))??;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    Ok(())
}

/// What the recipe for a web host says that a playbook for php-fpm would do.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn a_pool_of_php_fpm_is_called_pre_forking_and_its_master_lives() -> Result<(), Fault> {
    needs_servers!();
    let policy = servers::policy("Courier")?
        .replace("imapd_storm", "php_storm")
        .replace("command: imapd", "command: php-fpm8.2")
        .replace("threshold: 90", "threshold: 10");
    let machine = machine("moscow", &policy)?;
    web::php_pool(&machine, "alice", 12)?;
    let count = || Some(servers::pids(&machine, "alice", "php-fpm8.2").ok()?.len());
    wait::until("the pool is up", SOON, || count().filter(|count| *count == 12))?;
    let master = servers::pids(&machine, "root", "php-fpm8.2")?;
    let of_www = servers::pids(&machine, "www-data", "php-fpm8.2")?;
    servers::post(&machine, "alice", "php-fpm8.2", "php_storm")?;
    let verdict = servers::ended(&machine)?;
    assert_eq!(verdict, "respawning");
    let told = servers::outcomes(&machine)?;
    for part in ["a pre-forking server", "limit the pool", "do not end it"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(servers::pids(&machine, "root", "php-fpm8.2")?, master, "the master lives");
    assert_eq!(servers::pids(&machine, "www-data", "php-fpm8.2")?, of_www, "the other pool lives");
    wait::until("the pool is up again", SOON, || count().filter(|count| *count == 12)).map(drop)
}

/// What the recipe for a web host says that a playbook for Apache would do, and that the limit which
/// it advises holds.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn apaches_processes_are_called_pre_forking_and_its_own_limit_is_the_cure() -> Result<(), Fault> {
    needs_servers!();
    let policy = servers::policy(WEB)?
        .replace("cgi_storm", "http_storm")
        .replace("commands: [php-cgi8.2, python3, perl]", "command: apache2")
        .replace("threshold: 50", "threshold: 10");
    let machine = machine("lyon", &policy)?;
    web::apache(&machine, 12, 150)?;
    let workers = || count(&machine, "www-data", "apache2");
    wait::until("Apache is up", SOON, || workers().filter(|count| *count == 12))?;
    let master = servers::pids(&machine, "root", "apache2")?;
    assert_eq!(master.len(), 1, "{master:?}");

    // As the recipe has it, the policy does not let that happen.
    servers::post(&machine, "www-data", "apache2", "http_storm")?;
    assert_eq!(servers::ended(&machine)?, "system_uid");
    assert_eq!(workers(), Some(12));

    machine.run(
        "sed -i 's/min_uid: 1000/min_uid: 33/' /etc/procstorm/remediator.yml
         systemctl reload procstorm-remediator",
    )?;
    servers::post(&machine, "www-data", "apache2", "http_storm")?;
    // The master replaces one process in the first second, two in the next, and so on: first it looks
    // as if the storm had ended.
    let told = wait::until("it is named", SOON, || {
        let told = servers::outcomes(&machine).ok()?;
        told.contains("a pre-forking server").then_some(told)
    })
    .map_err(|fault| told_instead(&machine, &fault))?;
    for part in ["(apache2) of uid 0", "limit the pool", "do not end it"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(servers::pids(&machine, "root", "apache2")?, master, "the master lives");
    answers(&machine)?;

    web::apache_size(&machine, 5, 8)?;
    machine.run("systemctl reload apache2")?;
    wait::until("the old processes are gone", SOON, || workers().filter(|count| *count <= 8))?;
    web::cgi(&machine, "alice", "hangs", HANGS)?;
    let clients = machine.in_network(|| Requests::start(HTTP, "/~alice/cgi-bin/hangs", 40))?;
    wait::until("all processes are busy", SOON, || {
        count(&machine, "alice", "python3").filter(|count| *count == 8)
    })?;
    for _ in 0..20 {
        assert!(workers().is_some_and(|count| count <= 8), "{:?}", workers());
        wait::nap(Duration::from_millis(200));
    }
    // Those that still wait are refused when the program is switched off.
    machine.run("chmod 600 /home/alice/public_html/cgi-bin/hangs; pkill -u alice -x python3")?;
    assert_eq!(clients.answers()?.len(), 40);
    answers(&machine)
}

fn told_instead(machine: &Machine, fault: &Fault) -> Fault {
    Fault::new(format!("{}\n{:?}", fault.whole(), servers::outcomes(machine)))
}

/// A user's programs that hang are ended; each client gets an answer, and nobody else is hit.
#[test]
#[ignore = "boots a Debian with servers: `make field` runs it"]
fn a_storm_of_a_users_cgi_programs_is_ended_and_apache_answers_all() -> Result<(), Fault> {
    needs_servers!();
    let machine = machine("lyon", &servers::policy(WEB)?)?;
    web::apache(&machine, 5, 150)?;
    let hello = "print('Content-Type: text/plain\\n\\nhello')";
    for user in ["alice", "bob"] {
        web::cgi(&machine, user, "hangs", HANGS)?;
        web::cgi(&machine, user, "hello", hello)?;
    }
    answers(&machine)?;
    let master = servers::pids(&machine, "root", "apache2")?;
    let alices = machine.in_network(|| Requests::start(HTTP, "/~alice/cgi-bin/hangs", 60))?;
    let bobs = machine.in_network(|| Requests::start(HTTP, "/~bob/cgi-bin/hangs", 5))?;
    wait::until("all programs run", SOON, || {
        let all = (count(&machine, "alice", "python3")?, count(&machine, "bob", "python3")?);
        (all == (60, 5)).then_some(())
    })?;
    let of_alice = servers::pids(&machine, "alice", "python3")?;
    let of_bob = servers::pids(&machine, "bob", "python3")?;

    servers::post(&machine, "alice", "python3", "cgi_storm")?;
    assert_eq!(servers::ended(&machine)?, "none_seen");
    for answer in alices.answers()? {
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    }
    assert_eq!(servers::signalled(&machine)?, of_alice);
    assert_eq!(servers::pids(&machine, "bob", "python3")?, of_bob, "bob's programs run on");
    assert_eq!(bobs.answered(), 0, "clients of bob's with an answer");
    assert_eq!(servers::pids(&machine, "root", "apache2")?, master, "the master lives");
    answers(&machine)?;
    let hello = machine.in_network(|| web::get(HTTP, "/~alice/cgi-bin/hello"))??;
    assert!(hello.starts_with("HTTP/1.1 200") && hello.contains("hello"), "{hello}");

    // The limit that the recipe advises.
    machine.write("etc/apache2/conf-enabled/limit.conf", "RLimitNPROC 20 20\n")?;
    machine.run("systemctl reload apache2")?;
    let clients = machine.in_network(|| Requests::start(HTTP, "/~alice/cgi-bin/hangs", 60))?;
    wait::until("those above the limit are refused", SOON, || {
        (clients.answered() >= 35).then_some(())
    })?;
    // Those within it may still be on their way to becoming Python.
    let running = || count(&machine, "alice", "python3");
    wait::until("those within the limit run", SOON, || running().filter(|count| *count >= 15))?;
    assert!(running().is_some_and(|count| count <= 25), "{:?}", running());
    answers(&machine)
}
