//! Any names whatever, read back from the exposition by a parser of our own, written from the
//! format's description and not from the encoder.

use std::collections::BTreeMap;

use procstorm_exporter::exposition::Exposition;
use procstorm_exporter::fold::Limits;
use procstorm_exporter::scan::{Scanner, Settings};
use procstorm_exporter::source::Source;
use procstorm_processes::name_service::NameService;
use procstorm_testkit::needs_root;
use procstorm_testkit::procfs::Fixture;
use procstorm_testkit::wait::for_value;
use proptest::prelude::*;

type Labels = BTreeMap<String, String>;

/// Each sample: its name, labels, and value.
fn parse(exposition: &str) -> Vec<(String, Labels, f64)> {
    let lines = exposition.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(sample).collect()
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let mut labels = Labels::new();
    let mut rest = line[end..].chars().peekable();
    if rest.next_if_eq(&'{').is_some() {
        while rest.next_if_eq(&'}').is_none() {
            let name: String = std::iter::from_fn(|| rest.next_if(|&c| c != '=')).collect();
            assert_eq!((rest.next(), rest.next()), (Some('='), Some('"')), "{line}");
            let value = quoted(&mut rest);
            assert!(labels.insert(name, value).is_none(), "a label twice: {line}");
            rest.next_if_eq(&',');
        }
    }
    let value = rest.collect::<String>();
    (line[..end].to_owned(), labels, value.trim().parse().unwrap())
}

/// What stands before the closing quotation mark, without its escapes.
fn quoted(rest: &mut impl Iterator<Item = char>) -> String {
    let mut text = String::new();
    loop {
        match rest.next().unwrap() {
            '"' => return text,
            '\\' => text.push(match rest.next().unwrap() {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                c => panic!("\\{c} is no escape"),
            }),
            c => text.push(c),
        }
    }
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let bytes =
        prop_oneof![1_u8..=255, Just(b'"'), Just(b'\\'), Just(b'\n'), Just(b')'), Just(0xe4)];
    prop::collection::vec(bytes, 0..=15)
}

fn expose(proc: &Fixture) -> String {
    let limits = Limits { min_processes: 1, max_series: 5000, max_commands_per_user: 200 };
    let (procfs, cgroupfs) = (proc.path().to_owned(), proc.path().join("none"));
    let settings =
        Settings { procfs, cgroupfs, kernel_threads: false, limits, min_user_processes: 1 };
    let mut scanner = Scanner::new(settings, Source::default(), NameService::default());
    // On a busy machine a name may come too late for the first.
    let scan = for_value("a scan with all names", || {
        Some(scanner.scan().unwrap()).filter(|scan| scan.overdue_names == 0)
    });
    String::from_utf8(Exposition::new(false).render(&scan, None).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_put_in_is_read_back(
        groups in prop::collection::vec((41700_u32..41703, command(), 1_u32..4), 0..12),
    ) {
        needs_root!();
        let proc = Fixture::new();
        let mut expected = BTreeMap::from([(("root".to_owned(), "init".to_owned()), 1.0)]);
        let mut pids = 2..;
        for (uid, command, n) in groups {
            for pid in pids.by_ref().take(n as usize) {
                proc.process(pid, uid, &command);
            }
            let text = String::from_utf8_lossy(&command).into_owned();
            *expected.entry((uid.to_string(), text)).or_default() += f64::from(n);
        }

        let exposition = expose(&proc);
        let mut shown = BTreeMap::new();
        let mut users = BTreeMap::<String, f64>::new();
        let mut totals = BTreeMap::new();
        for (name, labels, value) in parse(&exposition) {
            match name.as_str() {
                "procstorm_processes" => {
                    let group = (labels["user"].clone(), labels["command"].clone());
                    prop_assert!(shown.insert(group, value).is_none(), "a series twice");
                    *users.entry(labels["user"].clone()).or_default() += value;
                }
                "procstorm_user_processes" => drop(totals.insert(labels["user"].clone(), value)),
                _ => {}
            }
        }
        prop_assert_eq!(shown, expected);
        prop_assert_eq!(users, totals);
    }
}
