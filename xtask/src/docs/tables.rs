//! Which tables there are, each made from its one definition in a daemon's code.

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use procstorm_remediator::metrics::{DeliveryResult, WebhookResult};
use procstorm_remediator::policy::{Config, Fallback};
use procstorm_remediator::verdict::{Mailed, Verdict};
use procstorm_toolkit::web::routes::Route;
use prometheus::proto::{MetricFamily, MetricType};

use super::markup::macro_of;

/// A table, in no format yet. Texts may hold names in backticks.
#[derive(Debug)]
pub(super) struct Table {
    /// What the markers call it.
    pub(super) name: String,
    /// The titles of the columns in Markdown.
    pub(super) header: Vec<&'static str>,
    pub(super) entries: Vec<Entry>,
}

/// A row of a table in Markdown, or an item of a list in a manual page.
#[derive(Debug)]
pub(super) struct Entry {
    /// The item's term as macros of mdoc(7).
    pub(super) term: String,
    /// The row's cells.
    pub(super) cells: Vec<String>,
    /// The item's text; paragraphs are separated by an empty line.
    pub(super) text: String,
}

/// All tables.
pub(super) fn all() -> Result<Vec<Table>, prometheus::Error> {
    let exporter = procstorm_exporter::args::Args::command();
    let remediator = procstorm_remediator::args::Args::command();
    let mut tables = Vec::new();
    for program in [exporter, remediator] {
        tables.extend(command_line(program));
    }
    tables.push(metrics("procstorm-exporter", procstorm_exporter::exposition::families()));
    tables.push(metrics("procstorm-remediator", procstorm_remediator::metrics::families()?));
    tables.push(policy());
    tables.push(pages("procstorm-exporter", &procstorm_exporter::server::ROUTES));
    tables.push(pages("procstorm-remediator", &procstorm_remediator::web::ROUTES));
    tables.push(verdicts());
    let webhook = WebhookResult::ALL.iter().map(|result| (result.label(), result.meaning()));
    tables.push(results("results of the webhook", webhook));
    let delivery = DeliveryResult::ALL.iter().map(|result| (result.label(), result.meaning()));
    tables.push(results("results of a delivery", delivery));
    Ok(tables)
}

/// The flags of a program, its commands, and their flags.
fn command_line(mut program: Command) -> Vec<Table> {
    program.build();
    let name = program.get_name().to_owned();
    let commands: Vec<_> =
        program.get_subcommands().filter(|command| command.get_name() != "help").collect();
    let mut tables = vec![flags(&name, &program)];
    for command in &commands {
        tables.push(flags(&format!("{name} {}", command.get_name()), command));
    }
    if !commands.is_empty() {
        let entries = commands.iter().map(|command| {
            let usage = usage(command);
            Entry {
                term: format!("Cm {}", command.get_name()),
                cells: vec![format!("`{usage}`"), short(command.get_about())],
                text: long(command.get_long_about(), command.get_about()),
            }
        });
        tables.push(Table {
            name: format!("commands of {name}"),
            header: vec!["command", "what it does"],
            entries: entries.collect(),
        });
    }
    tables
}

/// A command with its own flags, as its help shows them.
fn usage(command: &Command) -> String {
    let mut usage = command.get_name().to_owned();
    for flag in own_flags(command) {
        let flag_usage = format!("--{}", with_value(flag));
        match flag.is_required_set() {
            true => usage.push_str(&format!(" {flag_usage}")),
            false => usage.push_str(&format!(" [{flag_usage}]")),
        }
    }
    usage
}

/// The flags of a command, without those of all commands.
fn own_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_command = command.get_bin_name().is_some_and(|name| name.contains(' '));
    command.get_arguments().filter(move |arg| {
        let is_everywhere = arg.is_global_set() || arg.get_id() == "help";
        arg.get_long().is_some() && !arg.is_hide_set() && !(is_command && is_everywhere)
    })
}

fn flags(program: &str, command: &Command) -> Table {
    let entries = own_flags(command).map(|flag| {
        let (text, default) = default_of(flag);
        let said = if default.is_empty() {
            String::new()
        } else {
            format!(" The default is `{default}`.")
        };
        let mut term = format!("Fl Fl {}", flag.get_long().unwrap_or_default());
        if let Some(value) = value_name(flag) {
            term.push_str(&format!(" Ar {}", value.to_lowercase()));
        }
        let (first, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let rest = if rest.is_empty() { String::new() } else { format!("\n\n{rest}") };
        Entry {
            term,
            cells: vec![
                format!("`--{}`", with_value(flag)),
                sentence(first),
                if default.is_empty() { String::new() } else { format!("`{default}`") },
            ],
            text: format!("{}{said}{rest}", sentence(first)),
        }
    });
    Table {
        name: format!("flags of {program}"),
        header: vec!["flag", "what it does", "default"],
        entries: entries.collect(),
    }
}

/// A flag's whole help text, and its default.
fn default_of(flag: &Arg) -> (String, String) {
    let help = long(flag.get_long_help(), flag.get_help());
    // Where clap must not know the default, the text ends with it.
    let (text, default) = match help.rsplit_once("[default: ") {
        Some((text, default)) => {
            (text.trim_end().to_owned(), default.trim_end_matches(['.', ']']).to_owned())
        }
        None => (help, String::new()),
    };
    let takes_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
    let known = flag.get_default_values().first().filter(|_| takes_value);
    let known = known.map(|value| value.to_string_lossy().into_owned());
    (text, known.unwrap_or(default))
}

fn with_value(flag: &Arg) -> String {
    let name = flag.get_long().unwrap_or_default();
    value_name(flag).map_or_else(|| name.to_owned(), |value| format!("{name} {value}"))
}

fn value_name(flag: &Arg) -> Option<String> {
    let takes_value = matches!(flag.get_action(), ArgAction::Set | ArgAction::Append);
    let names = flag.get_value_names().filter(|_| takes_value)?;
    names.first().map(ToString::to_string)
}

fn short(text: Option<&impl ToString>) -> String {
    sentence(&text.map(ToString::to_string).unwrap_or_default())
}

fn long(long: Option<&impl ToString>, short: Option<&impl ToString>) -> String {
    let text = long.map(ToString::to_string).or_else(|| short.map(ToString::to_string));
    text.unwrap_or_default()
}

/// With the full stop that clap takes from a text of one paragraph.
fn sentence(text: &str) -> String {
    match text.trim_end() {
        "" => String::new(),
        text if text.ends_with('.') => text.to_owned(),
        text => format!("{text}."),
    }
}

/// The metrics of a program.
fn metrics(program: &str, families: Vec<MetricFamily>) -> Table {
    let entries = families.iter().map(|family| {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY => "summary",
            MetricType::UNTYPED => "untyped",
        };
        let metric = family.get_metric().first();
        let labels = metric.map(|metric| metric.get_label()).unwrap_or_default();
        let labels: Vec<_> = labels.iter().map(|label| label.name()).collect();
        let shown = match labels.is_empty() {
            true => family.name().to_owned(),
            false => format!("{}{{{}}}", family.name(), labels.join(",")),
        };
        let (macro_name, name) = macro_of(&shown);
        Entry {
            term: format!("{macro_name} {name}"),
            cells: vec![format!("`{shown}`"), kind.to_owned(), family.help().to_owned()],
            text: family.help().to_owned(),
        }
    });
    Table {
        name: format!("metrics of {program}"),
        header: vec!["metric", "kind", "meaning"],
        entries: entries.collect(),
    }
}

/// The keys of the remediator's policy.
fn policy() -> Table {
    let entries = Config::keys().into_iter().map(|key| {
        let (default, said) = match key.default {
            Fallback::Required => ("required".to_owned(), " Required.".to_owned()),
            Fallback::Nothing => ("none".to_owned(), String::new()),
            Fallback::Value(value) => (format!("`{value}`"), format!(" The default is `{value}`.")),
            Fallback::Words(words) => (words.to_owned(), format!(" The default is {words}.")),
        };
        // A comment's lines, as one paragraph.
        let meaning = key.meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        let (macro_name, name) = macro_of(&key.path);
        Entry {
            term: format!("{macro_name} {name}"),
            cells: vec![format!("`{}`", key.path), key.form.to_owned(), default, meaning.clone()],
            text: format!("{meaning}{said} The value is {}.", key.form),
        }
    });
    Table {
        name: "keys of the policy".to_owned(),
        header: vec!["key", "value", "default", "meaning"],
        entries: entries.collect(),
    }
}

/// What a daemon answers.
fn pages<S>(program: &str, routes: &[Route<S>]) -> Table {
    let entries = routes.iter().map(|route| {
        let (method, path, who) = (&route.method, route.path, route.access.words);
        let (macro_name, name) = macro_of(path);
        let macro_name = if path == "/" { "Pa" } else { macro_name };
        Entry {
            term: format!("{macro_name} {name}"),
            cells: vec![format!("`{method} {path}`"), who.to_owned(), route.about.to_owned()],
            text: format!("{method}. {} For {}", route.about, sentence(who)),
        }
    });
    Table {
        name: format!("pages of {program}"),
        header: vec!["page", "who may ask", "answer"],
        entries: entries.collect(),
    }
}

/// How a remediation ends.
fn verdicts() -> Table {
    let entries = Verdict::ALL.iter().map(|verdict| {
        let mailed = match verdict.mailed() {
            Mailed::Always => "yes",
            Mailed::OncePerUserLimitIfIdle => {
                "yes; if nothing was done, once in the window of `limits.per_user`"
            }
            Mailed::OncePerLimitIfIdle => "once in the limit's window",
            Mailed::HourlyIfIdle => "once an hour",
            Mailed::NeverIfIdle => "only if the processes disappeared just before the kill",
            Mailed::Never => "no",
        };
        let severity = verdict.severity().label();
        Entry {
            term: format!("Li {verdict}"),
            cells: vec![
                format!("`{verdict}`"),
                verdict.meaning().to_owned(),
                format!("`{severity}`"),
                mailed.to_owned(),
            ],
            text: sentence(verdict.meaning()),
        }
    });
    Table {
        name: "verdicts".to_owned(),
        header: vec!["verdict", "meaning", "severity", "mailed"],
        entries: entries.collect(),
    }
}

/// The values of a label `result`.
fn results(name: &str, results: impl Iterator<Item = (&'static str, &'static str)>) -> Table {
    let entries = results.map(|(label, meaning)| Entry {
        term: format!("Li {label}"),
        cells: vec![format!("`{label}`"), meaning.to_owned()],
        text: meaning.to_owned(),
    });
    Table { name: name.to_owned(), header: vec!["result", "meaning"], entries: entries.collect() }
}
