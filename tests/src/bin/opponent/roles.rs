//! What each kind of opponent does.

use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, wait};

use crate::Cast;
use procstorm_testkit::fault::{Fault, OrFault as _};
use procstorm_testkit::wait::nap;
use procstorm_tests::forking::{
    become_user, die_with_parent, exit, exit_thread, fork, fork_on, is_there, kill_by_number,
    limit_processes, notice_sigterm, rename_when_resumed, set_dumpable, set_effective, set_ids,
    set_name, set_undumpable, sleep, was_sigterm_noticed,
};

/// A kind of opponent.
pub(crate) struct Role {
    name: &'static str,
    /// Whether the keeper reaps the dead while it waits.
    pub(crate) reaps: bool,
    /// Starts them.
    pub(crate) play: fn(&Cast) -> Result<(), Fault>,
}

const ROLES: [Role; 25] = [
    Role { name: "sleepers", reaps: true, play: sleepers },
    Role { name: "unreaped", reaps: false, play: sleepers },
    Role { name: "zombies", reaps: true, play: zombies },
    Role { name: "leaderless", reaps: true, play: leaderless },
    Role { name: "undumpable", reaps: true, play: undumpable },
    Role { name: "nested", reaps: true, play: nested },
    Role { name: "nested_mortals", reaps: true, play: nested_mortals },
    Role { name: "burrowers", reaps: true, play: burrowers },
    Role { name: "nested_burrowers", reaps: true, play: nested_burrowers },
    Role { name: "respawner", reaps: true, play: respawner },
    Role { name: "master", reaps: true, play: master },
    Role { name: "hydra", reaps: true, play: hydra },
    Role { name: "chains", reaps: true, play: chains },
    Role { name: "bomb", reaps: true, play: bomb },
    Role { name: "renamers", reaps: false, play: renamers },
    Role { name: "switchers", reaps: false, play: switchers },
    Role { name: "evaders", reaps: true, play: evaders },
    Role { name: "resumed", reaps: true, play: resumed },
    Role { name: "deaf", reaps: true, play: deaf },
    Role { name: "polite", reaps: true, play: polite },
    Role { name: "breeders", reaps: true, play: breeders },
    Role { name: "reconnecting", reaps: true, play: reconnecting },
    Role { name: "lurkers", reaps: true, play: lurkers },
    Role { name: "traced", reaps: true, play: traced },
    Role { name: "writer", reaps: true, play: writer },
];

/// The role of that name.
pub(crate) fn find(name: &str) -> Result<&'static Role, Fault> {
    let names = || ROLES.map(|role| role.name).join(", ");
    ROLES
        .iter()
        .find(|role| role.name == name)
        .ok_or_else(|| Fault::new(format!("no role {name}; there are: {}", names())))
}

/// Starts `count` processes that become the user, bear the name, and then do `what`.
fn start(cast: &Cast, what: impl Fn(usize)) -> Result<(), Fault> {
    for number in 0..cast.count {
        let child = || {
            if become_user(cast.uid, &cast.command).is_ok() {
                what(number);
            }
        };
        fork(&cast.ledger, child).ok_or_else(|| Fault::new("cannot fork"))?;
    }
    Ok(())
}

fn up_and_sleep(cast: &Cast) -> ! {
    die_with_parent();
    cast.ledger.up.add(1);
    sleep()
}

/// They sleep, with the keeper as their parent.
fn sleepers(cast: &Cast) -> Result<(), Fault> {
    start(cast, |_| up_and_sleep(cast))
}

/// They are dead, and their parent, of the same user but another name, does not reap them.
fn zombies(cast: &Cast) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        if become_user(cast.uid, c"careless").is_ok() {
            die_with_parent();
            for _ in 0..cast.count {
                fork(&cast.ledger, || {
                    set_name(&cast.command);
                    cast.ledger.up.add(1);
                });
            }
            sleep()
        }
    });
    Ok(())
}

/// The first thread has exited, a second one lives: state `Z`, and yet alive.
fn leaderless(cast: &Cast) -> Result<(), Fault> {
    start(cast, |_| {
        die_with_parent();
        let ledger = &cast.ledger;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                ledger.up.add(1);
                sleep()
            });
            exit_thread()
        })
    })
}

/// Not dumpable: what is inside their directories in /proc belongs to root.
fn undumpable(cast: &Cast) -> Result<(), Fault> {
    start(cast, |_| {
        set_undumpable();
        up_and_sleep(cast)
    })
}

/// They sleep in a pid namespace below ours.
fn nested(cast: &Cast) -> Result<(), Fault> {
    contain(cast, || {
        if sleepers(cast).is_ok() {
            sleep()
        }
    })
}

/// They die as soon as they are born, one after the other, in a pid namespace below ours.
fn nested_mortals(cast: &Cast) -> Result<(), Fault> {
    contain(cast, || {
        while !cast.is_over() {
            fork(&cast.ledger, || drop(become_user(cast.uid, &cast.command)));
            cast.ledger.up.add(1);
            nap(Duration::from_millis(5));
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        }
    })
}

/// They sleep in a pid namespace below ours that their user has made, as `unshare -Urpf` does.
fn burrowers(cast: &Cast) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        if become_user(cast.uid, c"burrow").is_ok() {
            die_with_parent();
            burrow(cast);
        }
    });
    Ok(())
}

/// The same, in a container of root's.
fn nested_burrowers(cast: &Cast) -> Result<(), Fault> {
    contain(cast, || {
        if become_user(cast.uid, c"burrow").is_ok() {
            burrow(cast);
        }
    })
}

/// Makes user and pid namespaces of one's own, and has `count` sleep in there.
fn burrow(cast: &Cast) {
    set_dumpable();
    if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).is_err() {
        exit();
    }
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {} 1", cast.uid)),
        ("gid_map", format!("0 {} 1", cast.uid)),
    ] {
        if std::fs::write(format!("/proc/self/{file}"), text).is_err() {
            exit();
        }
    }
    fork(&cast.ledger, || {
        set_name(c"burrow-init");
        die_with_parent();
        for _ in 0..cast.count {
            fork(&cast.ledger, || {
                set_name(&cast.command);
                up_and_sleep(cast)
            });
        }
        sleep()
    });
    sleep()
}

/// Has the first process of a new pid namespace do that.
fn contain(cast: &Cast, what: impl Fn()) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        if unshare(CloneFlags::CLONE_NEWPID).is_err() {
            exit();
        }
        set_name(c"container");
        fork(&cast.ledger, || {
            set_name(c"container-init");
            die_with_parent();
            what();
        });
        die_with_parent();
        // It is root's: it ends by itself, and the namespace's init with it.
        while !cast.is_over() {
            nap(Duration::from_millis(5));
        }
    });
    Ok(())
}

/// Keeps `count` of them alive from now on: for each that dies it starts another.
fn keep_alive(cast: &Cast, delay: Duration, child: impl Fn()) -> ! {
    let start = || {
        fork(&cast.ledger, || {
            child();
            up_and_sleep(cast)
        })
    };
    for _ in 0..cast.count {
        start();
    }
    while !cast.is_over() {
        // A child that is stopped does not end this wait: a respawner looks for the dead.
        if wait(WaitOptions::empty()).is_err() {
            nap(Duration::from_millis(1));
        }
        let mut dead = 1;
        if !delay.is_zero() {
            nap(delay);
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {
                dead += 1;
            }
        }
        for _ in 0..dead {
            start();
        }
    }
    exit()
}

fn delay(cast: &Cast) -> Result<Duration, Fault> {
    let text = cast.extra.to_str().ok_or_else(|| Fault::new("no delay"))?;
    Ok(Duration::from_millis(text.parse().or_fault("no delay")?))
}

/// Root starts them, and starts another for each that dies, after a delay.
fn respawner(cast: &Cast) -> Result<(), Fault> {
    let delay = delay(cast)?;
    fork(&cast.ledger, || {
        set_name(c"respawner");
        die_with_parent();
        keep_alive(cast, delay, || {
            if become_user(cast.uid, &cast.command).is_err() {
                exit();
            }
        })
    });
    Ok(())
}

/// The same, but the one that starts them is one of them: same user, same name.
fn master(cast: &Cast) -> Result<(), Fault> {
    let delay = delay(cast)?;
    fork(&cast.ledger, || {
        if become_user(cast.uid, &cast.command).is_ok() {
            die_with_parent();
            keep_alive(cast, delay, || ())
        }
    });
    Ok(())
}

/// They watch each other, and each replaces any that is missing.
fn hydra(cast: &Cast) -> Result<(), Fault> {
    start(cast, |number| head(cast, number))
}

fn head(cast: &Cast, mine: usize) {
    let heads = || cast.ledger.pids.iter().take(cast.count).enumerate();
    if let Some(slot) = cast.ledger.pids.get(mine) {
        slot.set(rustix::process::getpid().as_raw_nonzero().get());
    }
    cast.ledger.up.add(1);
    while cast.ledger.up.get() < u64::try_from(cast.count).unwrap_or(0) {
        nap(Duration::from_millis(1));
    }
    while !cast.is_over() {
        for (number, slot) in heads() {
            let pid = slot.get();
            // Whoever takes the dead one's place away replaces it.
            if pid > 0
                && !is_there(pid)
                && slot.replace(pid, -1)
                && fork(&cast.ledger, || head(cast, number)).is_none()
            {
                slot.set(pid);
            }
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        nap(Duration::from_micros(200));
    }
}

/// Each link forks its heir and exits.
fn chains(cast: &Cast) -> Result<(), Fault> {
    start(cast, |_| {
        cast.ledger.up.add(1);
        link(cast)
    })
}

fn link(cast: &Cast) {
    // A loop instead of a recursion: the child goes round, the parent leaves.
    let mut is_heir = true;
    while is_heir && !cast.is_over() {
        is_heir = fork_on(&cast.ledger) == Some(true);
    }
}

/// All of them fork as fast as they can, and so do their children, up to `count`: their
/// user's limit of processes.
fn bomb(cast: &Cast) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        let limit = u64::try_from(cast.count).unwrap_or(0);
        if limit_processes(limit).is_ok() && become_user(cast.uid, &cast.command).is_ok() {
            cast.ledger.up.add(1);
            while !cast.is_over() {
                match fork_on(&cast.ledger) {
                    Some(true) => cast.ledger.up.add(1),
                    Some(false) => {}
                    None => nap(Duration::from_millis(1)),
                }
            }
        }
    });
    Ok(())
}

/// They change their names to and fro; `extra` is the other name.
fn renamers(cast: &Cast) -> Result<(), Fault> {
    let other = std::ffi::CString::new(cast.extra.as_bytes()).or_fault("no other name")?;
    start(cast, |_| {
        die_with_parent();
        cast.ledger.up.add(1);
        loop {
            set_name(&other);
            set_name(&cast.command);
        }
    })
}

/// They change their effective uid to and fro; `extra` is the other uid.
fn switchers(cast: &Cast) -> Result<(), Fault> {
    let other: u32 =
        cast.extra.to_str().and_then(|n| n.parse().ok()).ok_or_else(|| Fault::new("no uid"))?;
    for _ in 0..cast.count {
        fork(&cast.ledger, || {
            // The bound first: a change of uid does not undo it.
            if become_user(0, &cast.command).is_ok() && set_ids(cast.uid, cast.uid, other).is_ok() {
                cast.ledger.up.add(1);
                loop {
                    set_effective(other);
                    set_effective(cast.uid);
                }
            }
        });
    }
    Ok(())
}

/// They sleep until they are stopped; then a companion of their user lets them go on, and they bear
/// another name.
fn evaders(cast: &Cast) -> Result<(), Fault> {
    accompanied(cast, false, || {
        rename_when_resumed();
        up_and_sleep(cast)
    })
}

/// They run all the time, and a companion of their user lets them go on whenever they are stopped.
fn resumed(cast: &Cast) -> Result<(), Fault> {
    accompanied(cast, true, || {
        die_with_parent();
        cast.ledger.up.add(1);
        while !cast.is_over() {
            std::hint::spin_loop();
        }
    })
}

/// A companion of the same user and another name, who starts `count` that do `what`, and sends
/// SIGCONT to whoever is stopped, or to all of them `all_the_time`.
fn accompanied(cast: &Cast, all_the_time: bool, what: impl Fn()) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        if become_user(cast.uid, c"companion").is_err() {
            exit();
        }
        die_with_parent();
        let child = || {
            set_name(&cast.command);
            what();
        };
        let mut pids: Vec<i32> =
            (0..cast.count).filter_map(|_| fork(&cast.ledger, child)).collect();
        while !cast.is_over() {
            for pid in pids.iter().filter(|_| all_the_time) {
                kill_by_number(*pid, libc::SIGCONT);
            }
            // Whoever is reaped is sent nothing more: its pid may be a stranger's.
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                let pid = pid.as_raw_nonzero().get();
                if status.stopped() {
                    kill_by_number(pid, libc::SIGCONT);
                } else {
                    pids.retain(|known| *known != pid);
                }
            }
            nap(Duration::from_micros(50));
        }
    });
    Ok(())
}

/// They take no notice of SIGTERM.
fn deaf(cast: &Cast) -> Result<(), Fault> {
    start(cast, |_| {
        notice_sigterm();
        up_and_sleep(cast)
    })
}

/// They exit on SIGTERM, after `extra` milliseconds in which they tidy up, which they count.
fn polite(cast: &Cast) -> Result<(), Fault> {
    let time = delay(cast)?;
    start(cast, |_| {
        notice_sigterm();
        die_with_parent();
        cast.ledger.up.add(1);
        wait_for_sigterm(cast);
        nap(time);
        cast.ledger.up.add(1);
    })
}

/// On SIGTERM each of them starts two others, which do the same, and exits.
fn breeders(cast: &Cast) -> Result<(), Fault> {
    start(cast, |_| {
        notice_sigterm();
        cast.ledger.up.add(1);
        let mut is_child = true;
        while is_child {
            wait_for_sigterm(cast);
            is_child = (0..2).any(|_| fork_on(&cast.ledger) == Some(true));
        }
    })
}

fn wait_for_sigterm(cast: &Cast) {
    while !was_sigterm_noticed() && !cast.is_over() {
        nap(Duration::from_millis(10));
    }
}

/// Root starts them; when they die, one of them comes back, and always one.
fn reconnecting(cast: &Cast) -> Result<(), Fault> {
    come_back(cast, |_| 1)
}

/// Root starts them; when they die, one of them comes back, and after `extra` times that, once, all
/// of them at once.
fn lurkers(cast: &Cast) -> Result<(), Fault> {
    let text = cast.extra.to_str().ok_or_else(|| Fault::new("no number"))?;
    let low: u32 = text.parse().or_fault("no number")?;
    come_back(cast, |time| if time == low { cast.count } else { 1 })
}

/// Root starts them; when all are dead for the nth time, counted from 0, `how_many(n)` come back.
fn come_back(cast: &Cast, how_many: impl Fn(u32) -> usize) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        set_name(c"server");
        die_with_parent();
        let start = || {
            fork(&cast.ledger, || {
                if become_user(cast.uid, &cast.command).is_ok() {
                    up_and_sleep(cast)
                }
            })
        };
        let start = |count| (0..count).filter_map(|_| start()).count();
        let (mut alive, mut time) = (start(cast.count), 0);
        while !cast.is_over() {
            if wait(WaitOptions::empty()).is_ok() {
                alive = alive.saturating_sub(1);
            }
            if alive == 0 {
                alive = start(how_many(time));
                time += 1;
            }
        }
    });
    Ok(())
}

/// Another process of their user traces them, and does not let them exit.
fn traced(cast: &Cast) -> Result<(), Fault> {
    fork(&cast.ledger, || {
        if become_user(cast.uid, c"debugger").is_err() {
            exit();
        }
        set_dumpable();
        die_with_parent();
        for _ in 0..cast.count {
            let child = fork(&cast.ledger, || {
                set_name(&cast.command);
                sleep()
            });
            let options = ptrace::Options::PTRACE_O_TRACEEXIT;
            if child.is_some_and(|pid| ptrace::seize(Pid::from_raw(pid), options).is_ok()) {
                cast.ledger.up.add(1);
            }
        }
        sleep()
    });
    Ok(())
}

/// They write to files in the directory `extra`, and count what they have written.
fn writer(cast: &Cast) -> Result<(), Fault> {
    start(cast, |number| {
        die_with_parent();
        let path = std::path::Path::new(&cast.extra).join(number.to_string());
        while std::fs::write(&path, [0; 4096]).is_ok() {
            cast.ledger.up.add(1);
        }
    })
}
