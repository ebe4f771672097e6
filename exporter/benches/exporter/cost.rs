//! The table of ratios, and the curve from 100 to 10,000 processes.

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

/// What a column is held to, as a ratio to the exporter.
enum Limit {
    /// The exporter costs at most so many times this.
    AtMost(f64),
    /// This costs at least so many times the exporter.
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
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    if save {
        std::fs::create_dir_all(&results).unwrap();
        std::fs::write(results.join("cost.md"), format!("{table}\n{points}")).unwrap();
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
    let before = Scraped::exporter();
    before.scrape();
    let idle_kib = before.resident_kib();
    drop(before);

    let _held = Held::new(holder, MANY);
    let exporter = Scraped::exporter();
    let (node, process) = (Scraped::node_exporter(), Scraped::process_exporter());
    let row = |name, limit, measure| Row { name, limit, measure, seconds: Vec::new() };
    let mut rows = vec![
        row("procstorm-exporter", None, Box::new(|| exporter.cost(10)) as Box<dyn Fn() -> f64>),
        row("bare C loop", Some(Limit::AtMost(1.10)), Box::new(|| floor_cost(floor, 10))),
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
    let memory = (exporter.resident_kib(), idle_kib);
    render(&rows, memory)
}

fn ps_cost() -> f64 {
    to_run(Command::new("sh").args(["-c", "ps -eo user,comm | sort | uniq -c >/dev/null"]))
}

fn render(rows: &[Row<'_>], (resident, idle): (u64, u64)) -> (String, bool) {
    let machine = Command::new("uname").args(["-srm"]).output().unwrap().stdout;
    let cpus = std::thread::available_parallelism().unwrap();
    let date = Command::new("date").arg("+%Y-%m-%d").output().unwrap().stdout;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let mut table = format!(
        "{MANY} processes in 200 groups, CPU time of one scrape, median of {ROUNDS} rounds. {}, \
         {}, {cpus} CPUs.\n\n| | ms | ratio to the exporter | wanted | |\n|---|---|---|---|---|\n",
        text(&date),
        text(&machine),
    );
    let mut all = true;
    let ours = &rows[0].seconds;
    for row in rows {
        let ratios: Vec<f64> =
            row.seconds.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
        let ratio = median(&ratios);
        let (wanted, held) = match row.limit {
            None => (String::new(), true),
            Some(Limit::AtMost(limit)) => {
                (format!("exporter at most {limit:.2} x this"), 1.0 / ratio <= limit)
            }
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
    let limit = 12 * 1024;
    let fits = resident <= limit;
    let verdict = if fits { "holds" } else { "MISSED" };
    writeln!(
        table,
        "\nResident memory of the exporter: {resident} KiB after these scrapes, {idle} KiB on the \
         same machine without those processes (wanted: at most {limit} KiB: {verdict})."
    )
    .unwrap();
    (table, all && fits)
}

/// The plot, and its points as a table.
fn curve(holder: &Path, floor: &Path) -> (String, String) {
    let mut lines = [
        Line { name: "procstorm-exporter", colour: "#0b6e4f", points: Vec::new() },
        Line { name: "bare C loop", colour: "#999999", points: Vec::new() },
    ];
    let others = std::fs::read_dir("/proc").unwrap().flatten();
    let others = others.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok());
    let mut table = "| processes | exporter, ms | bare C loop, ms |\n|---|---|---|\n".to_owned();
    let others = others.count();
    for processes in CURVE {
        let _held = Held::new(holder, processes);
        let exporter = Scraped::exporter();
        exporter.scrape();
        // So many scrapes that the clock's 10 ms are some percent.
        let n = (100_000 / (processes + others)).clamp(10, 400);
        let ours = exporter.cost(n) * 1000.0;
        let least = floor_cost(floor, n) * 1000.0;
        let x = (processes + others) as f64;
        writeln!(table, "| {x} | {ours:.2} | {least:.2} |").unwrap();
        lines[0].points.push((x, ours));
        lines[1].points.push((x, least));
    }
    (plot("CPU time of one scrape", "processes", "ms", &lines), table)
}
