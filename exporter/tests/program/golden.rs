//! The exposition of the real binary, over HTTP, byte for byte.
//!
//! To write the golden file anew:
//! `PROCSTORM_UPDATE_GOLDEN=1 cargo test -p procstorm-exporter --test program golden`

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::skip::skipped;
use procstorm_testkit::wait::for_value;
use procstorm_testkit::{needs_root, programs};

use crate::world::{Program, cgroupfs, value};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/golden.txt");

/// Each group, however small.
const ALL: &str = "--collector.min-processes=1";

/// What is different each time is shown as this.
const VARIES: &str = "<varies>";

fn world() -> Fixture {
    let proc = Fixture::new();
    for pid in 100..192 {
        proc.process(pid, 41000, b"imapd");
    }
    proc.zombie(200, 41000, b"imapd");
    proc.process(201, 41000, b"imapd\n");
    proc.process(202, 41000, b"im apd) S 1 (");
    proc.process(203, 41000, b"say \"hi\"");
    proc.process(204, 41000, b"back\\slash\\n");
    proc.process(205, 41000, b"two\nlines");
    proc.process(206, 41000, "käse".as_bytes());
    proc.process(207, 41000, b"k\xe4se");
    proc.process(208, 41000, b"k\xe5se");
    proc.process(209, 41000, b"\x1b[31m\ttab\r");
    proc.process(210, 41000, b"{a=\"b\"} 1");
    proc.process(211, 41000, b"fifteen bytes !");
    proc.process(212, 41000, b"");
    proc.process(213, 41000, b"(other)");
    proc.process(300, 41001, b"imapd");
    proc.process(301, 65534, b"nginx");
    proc.process(302, 0, b"sshd");
    proc.kernel_thread(303, 0, b"kworker/u8:3-events_unbound");
    proc.kernel_thread(304, 65534, b"kthreadd");
    std::fs::create_dir(proc.path().join("sys")).unwrap();
    std::fs::write(proc.path().join("meminfo"), "").unwrap();
    slice(proc.path(), 41000, "117", "120", Some(3));
    slice(proc.path(), 0, "9", "max", None);
    // Gone between the reading of the directory and that of its file.
    std::fs::create_dir(proc.path().join("400")).unwrap();
    proc
}

/// A user's slice in the control groups.
fn slice(procfs: &Path, uid: u32, tasks: &str, max: &str, hits: Option<u64>) {
    let slice = cgroupfs(procfs).join(format!("user.slice/user-{uid}.slice"));
    std::fs::create_dir_all(&slice).unwrap();
    let write = |file: &str, text: String| std::fs::write(slice.join(file), text).unwrap();
    write("pids.current", format!("{tasks}\n"));
    write("pids.max", format!("{max}\n"));
    if let Some(hits) = hits {
        write("pids.events", format!("max {hits}\n"));
        write("pids.events.local", "max 0\n".to_owned());
    }
}

fn without_what_varies(exposition: &str) -> String {
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((series, _))
            if series.starts_with("process_") || series == "procstorm_scan_duration_seconds" =>
        {
            format!("{series} {VARIES}\n")
        }
        _ => format!("{line}\n"),
    };
    exposition.lines().map(line).collect()
}

#[test]
fn golden() {
    needs_root!();
    let proc = world();
    // The first scrape of a program: on a busy machine a name may come too late for it.
    let raw = for_value("a first scrape with all names", || {
        Some(Program::start(proc.path(), &[ALL]).get("/metrics")).filter(|page| has_all_names(page))
    });
    let exposition = without_what_varies(&raw);
    if std::env::var_os("PROCSTORM_UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &exposition).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    assert!(exposition == golden, "not as {GOLDEN}, but:\n{exposition}");
    check_by_promtool(&raw);
    assert_eq!(clashes(&raw), Vec::<String>::new());
}

/// Names that OpenMetrics would give to two families: there a counter's family is called without
/// its `_total`, and each type of a family takes further names.
fn clashes(exposition: &str) -> Vec<String> {
    let families =
        exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = families.flat_map(|(name, kind)| {
        let family = if kind == "counter" { name.strip_suffix("_total").unwrap() } else { name };
        let suffixes: &[&str] = match kind {
            "counter" => &["", "_total", "_created"],
            "histogram" => &["", "_bucket", "_count", "_sum", "_created"],
            "summary" => &["", "_count", "_sum", "_created"],
            _ => &[""],
        };
        suffixes.iter().map(move |suffix| format!("{family}{suffix}"))
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect()
}

#[test]
fn names_that_openmetrics_would_give_twice_are_found() {
    let text = "# TYPE a_total counter\n# TYPE b gauge\n# TYPE c_count gauge\n# TYPE c histogram\n";
    assert_eq!(clashes(text), ["c_count"]);
    assert_eq!(clashes("# TYPE groups gauge\n# TYPE groups_total counter\n"), ["groups"]);
}

fn has_all_names(exposition: &str) -> bool {
    value(exposition, "procstorm_scan_overdue_names") == Some(0)
}

fn check_by_promtool(exposition: &str) {
    let Ok(promtool) = programs::other("promtool") else {
        return skipped("golden by promtool", "needs promtool");
    };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn once_prints_what_a_scrape_shows() {
    needs_root!();
    let proc = world();
    let mut once = Command::new(crate::world::BINARY);
    once.args(["--once", ALL]).arg("--path.procfs").arg(proc.path());
    once.arg("--path.cgroupfs").arg(cgroupfs(proc.path()));
    let text = for_value("a scan with all names", || {
        let output = once.output().unwrap();
        assert!(output.status.success());
        Some(String::from_utf8(output.stdout).unwrap()).filter(|page| has_all_names(page))
    });
    let text = without_what_varies(&text);
    assert_eq!(text, std::fs::read_to_string(GOLDEN).unwrap());
}
