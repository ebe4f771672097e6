//! The table of ratios, the curve from 100 to 10,000 processes, and the cost by groups.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::cpu::{median, to_run};
use crate::plot::{Line, plot};
use crate::programs::{Held, Scraped, build};

/// Each round measures everybody once, so that what disturbs the machine disturbs all.
const ROUNDS: usize = 5;

/// The table's number of processes.
const MANY: usize = 10_000;

const CURVE: [usize; 7] = [100, 300, 1000, 2500, 5000, 7500, MANY];

/// Users and commands, for the cost by groups.
const GROUPS: [(usize, usize); 4] = [(10, 2), (10, 20), (20, 50), (50, 80)];

/// How much memory the exporter may have after the scrapes, and at its peak.
const RESIDENT_KIB: u64 = 12 * 1024;
const PEAK_KIB: u64 = 32 * 1024;

/// What a row is held to, as a ratio to the bare C loop.
enum Limit {
    /// It costs at most so many times the loop.
    AtMost(f64),
    /// It costs at least so many times the loop.
    AtLeast(f64),
}

/// What is measured in each round, and what came of it.
struct Row<'a> {
    name: &'static str,
    limit: Option<Limit>,
    measure: Box<dyn Fn() -> f64 + 'a>,
    seconds: Vec<f64>,
}

/// Prints the table, and saves it if asked to. Whether all limits hold.
pub(crate) fn run(save: bool) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let (holder, floor) = (build("holder", directory.path()), build("floor", directory.path()));
    let (table, held) = table(&holder, &floor);
    println!("{table}");
    let (curve, points) = curve(&holder, &floor);
    println!("{points}");
    let groups = by_groups(&holder);
    println!("{groups}");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    if save {
        std::fs::create_dir_all(&results).unwrap();
        std::fs::write(results.join("cost.md"), format!("{table}\n{points}\n{groups}")).unwrap();
        std::fs::write(results.join("cost.svg"), curve).unwrap();
        println!("saved in {}", results.display());
    }
    held
}

/// CPU seconds of one scan by the floor.
fn floor_cost(floor: &Path, scans: usize) -> f64 {
    to_run(Command::new(floor).arg(scans.to_string())) / scans as f64
}

fn table(holder: &Path, floor: &Path) -> (String, bool) {
    let before = Scraped::exporter("bpf");
    before.scrape();
    let idle_kib = before.resident_kib();
    drop(before);

    let _held = Held::new(holder, MANY, (10, 20));
    let (kernel, proc) = (Scraped::exporter("bpf"), Scraped::exporter("procfs"));
    let (node, process) = (Scraped::node_exporter(), Scraped::process_exporter());
    let row = |name, limit, measure| Row { name, limit, measure, seconds: Vec::new() };
    let mut rows = vec![
        row(
            "bare C loop over /proc",
            None,
            Box::new(|| floor_cost(floor, 10)) as Box<dyn Fn() -> f64>,
        ),
        row("procstorm-exporter, by BPF", Some(Limit::AtMost(0.15)), Box::new(|| kernel.cost(60))),
        row("procstorm-exporter, by /proc", Some(Limit::AtMost(1.1)), Box::new(|| proc.cost(10))),
        row("ps \\| sort \\| uniq -c", Some(Limit::AtLeast(5.0)), Box::new(ps_cost)),
    ];
    if let Some(node) = &node {
        let limit = Some(Limit::AtLeast(3.0));
        rows.push(row("node_exporter, processes", limit, Box::new(|| node.cost(3))));
    }
    if let Some(process) = &process {
        let limit = Some(Limit::AtLeast(25.0));
        rows.push(row("process-exporter", limit, Box::new(|| process.cost(1))));
    }
    for round in 0..=ROUNDS {
        for row in &mut rows {
            let seconds = (row.measure)();
            // The first round only warms up.
            if round > 0 {
                row.seconds.push(seconds);
            }
        }
    }
    let resident = kernel.resident_kib().max(proc.resident_kib());
    let peak = kernel.peak_kib().max(proc.peak_kib());
    let (mut table, mut held) = render(&rows);
    let verdict = |holds| if holds { "holds" } else { "MISSED" };
    let (fits, peak_fits) = (resident <= RESIDENT_KIB, peak <= PEAK_KIB);
    writeln!(
        table,
        "\nResident memory of the exporter: {resident} KiB after these scrapes, {idle_kib} KiB on the \
         same machine without those processes (wanted: at most {RESIDENT_KIB} KiB: {}); {peak} KiB at \
         its peak (wanted: at most {PEAK_KIB} KiB: {}). The larger of the two sources.",
        verdict(fits),
        verdict(peak_fits),
    )
    .unwrap();
    held &= fits && peak_fits;
    (table, held)
}

/// What a scrape by BPF costs by the number of groups, of which each is a series.
fn by_groups(holder: &Path) -> String {
    let mut table = format!(
        "By groups, of {MANY} processes, by BPF:\n\n| groups | exporter, ms |\n|---|---|\n"
    );
    for (users, commands) in GROUPS {
        let _held = Held::new(holder, MANY, (users, commands));
        let exporter = Scraped::exporter("bpf");
        exporter.scrape();
        let ms = exporter.cost(40) * 1000.0;
        writeln!(table, "| {} | {ms:.2} |", users * commands).unwrap();
    }
    table
}

fn ps_cost() -> f64 {
    to_run(Command::new("sh").args(["-c", "ps -eo user,comm | sort | uniq -c >/dev/null"]))
}

fn render(rows: &[Row<'_>]) -> (String, bool) {
    let machine = Command::new("uname").args(["-srm"]).output().unwrap().stdout;
    let cpus = std::thread::available_parallelism().unwrap();
    let date = Command::new("date").arg("+%Y-%m-%d").output().unwrap().stdout;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let mut table = format!(
        "{MANY} processes in 200 groups, CPU time of one scrape, median of {ROUNDS} rounds. {}, \
         {}, {cpus} CPUs.\n\n| | ms | ratio to the loop | wanted | |\n|---|---|---|---|---|\n",
        text(&date),
        text(&machine),
    );
    let mut all = true;
    let floor = &rows[0].seconds;
    for row in rows {
        let ratios: Vec<f64> =
            row.seconds.iter().zip(floor).map(|(row, floor)| row / floor).collect();
        let ratio = median(&ratios);
        let (wanted, held) = match row.limit {
            None => (String::new(), true),
            Some(Limit::AtMost(limit)) => (format!("at most {limit:.2} x"), ratio <= limit),
            Some(Limit::AtLeast(limit)) => (format!("at least {limit} x"), ratio >= limit),
        };
        all &= held;
        let verdict = if row.limit.is_none() {
            ""
        } else if held {
            "holds"
        } else {
            "MISSED"
        };
        let ms = median(&row.seconds) * 1000.0;
        writeln!(table, "| {} | {ms:.1} | {ratio:.2} | {wanted} | {verdict} |", row.name).unwrap();
    }
    (table, all)
}

/// The plot, and its points as a table.
fn curve(holder: &Path, floor: &Path) -> (String, String) {
    let mut lines = [
        Line { name: "procstorm-exporter, by BPF", colour: "#0b6e4f", points: Vec::new() },
        Line { name: "procstorm-exporter, by /proc", colour: "#d98e04", points: Vec::new() },
        Line { name: "bare C loop over /proc", colour: "#999999", points: Vec::new() },
    ];
    let others = std::fs::read_dir("/proc").unwrap().flatten();
    let others = others.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok());
    let mut table =
        "| processes | by BPF, ms | by /proc, ms | bare C loop, ms |\n|---|---|---|---|\n"
            .to_owned();
    let others = others.count();
    for processes in CURVE {
        let _held = Held::new(holder, processes, (10, 20));
        let (kernel, proc) = (Scraped::exporter("bpf"), Scraped::exporter("procfs"));
        kernel.scrape();
        proc.scrape();
        // So many scrapes that the clock's 10 ms are some percent.
        let n = (100_000 / (processes + others)).clamp(10, 400);
        let by_kernel = kernel.cost((4 * n).min(400)) * 1000.0;
        let by_proc = proc.cost(n) * 1000.0;
        let least = floor_cost(floor, n) * 1000.0;
        let x = (processes + others) as f64;
        writeln!(table, "| {x} | {by_kernel:.2} | {by_proc:.2} | {least:.2} |").unwrap();
        for (line, y) in lines.iter_mut().zip([by_kernel, by_proc, least]) {
            line.points.push((x, y));
        }
    }
    (plot("CPU time of one scrape", "processes", "ms", &lines), table)
}
