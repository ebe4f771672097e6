//! The log: one line an event on stderr, as `--log.level` and `--log.format` say.
//!
//! Where stderr is systemd's journal, each line begins with its priority (`man 3 sd-daemon`), which
//! the journal takes off again, and has no time, which the journal has itself.
//!
//! Names in it come from users, so that no control character reaches the terminal or starts a
//! line of its own: each is shown as `\u00XX`, in both formats.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use rustix::fs::fstat;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// How much is logged: `--log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// All there is.
    Debug,
    /// What an administrator wants to know of a healthy system.
    #[default]
    Info,
    /// What may need attention.
    Warn,
    /// What does need attention.
    Error,
}

/// In which form: `--log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// A word that is none of those a flag knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{word}\" is not one of {known}")]
pub struct UnknownWord {
    word: String,
    known: &'static str,
}

impl UnknownWord {
    /// `word` is not one of those in `known`.
    #[must_use]
    pub fn new(word: &str, known: &'static str) -> Self {
        Self { word: word.to_owned(), known }
    }
}

impl FromStr for Level {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(UnknownWord::new(word, "debug, info, warn, error")),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

impl FromStr for Format {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            _ => Err(UnknownWord::new(word, "logfmt, json")),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        })
    }
}

/// Starts the log of this program. Without effect where one was started before (as in tests).
pub fn init(level: Level, format: Format) {
    let level = match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    let journal = stderr_is_journal();
    let stderr = Stderr { journal };
    let json = || tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
    let lines = match (format, journal) {
        (Format::Logfmt, _) => tracing_logfmt::builder()
            .with_target(false)
            .with_timestamp(!journal)
            .layer()
            .with_writer(stderr)
            .boxed(),
        (Format::Json, false) => json().with_writer(stderr).boxed(),
        (Format::Json, true) => json().without_time().with_writer(stderr).boxed(),
    };
    if tracing_subscriber::registry().with(lines.with_filter(level)).try_init().is_err() {
        tracing::debug!("the log was started before");
    }
}

/// Whether stderr is the stream to the journal that systemd has set up: `JOURNAL_STREAM` names its
/// device and inode (`man 5 systemd.exec`). The variable alone says nothing: stderr may have been
/// redirected since.
fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let named = stream.split_once(':').and_then(|(device, inode)| {
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let Some(named) = named else { return false };
    fstat(io::stderr()).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == named)
}

/// Makes one [`Line`] an event.
struct Stderr {
    journal: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { priority: if self.journal { "<6>" } else { "" } }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line {
        Line { priority: if self.journal { priority(event.level()) } else { "" } }
    }
}

/// The priority of a level, as `<linux/kern_levels.h>` and the journal have it.
fn priority(level: &tracing::Level) -> &'static str {
    match *level {
        tracing::Level::ERROR => "<3>",
        tracing::Level::WARN => "<4>",
        tracing::Level::INFO => "<6>",
        tracing::Level::DEBUG | tracing::Level::TRACE => "<7>",
    }
}

/// Writes what it is given as a single line. The formatters hand over a whole event at once.
struct Line {
    priority: &'static str,
}

impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let line = self.priority.to_owned() + &one_line(&String::from_utf8_lossy(event));
        io::stderr().lock().write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// `event` with each control character but the newline at its end made visible.
fn one_line(event: &str) -> String {
    let (text, end) = match event.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (event, ""),
    };
    let mut line = String::with_capacity(event.len());
    for c in text.chars() {
        if c.is_control() {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_without_control_characters() {
        assert_eq!(
            one_line("user=\"a\u{1b}[31m\nb\u{7f}\u{85}\"\n"),
            "user=\"a\\u001b[31m\\u000ab\\u007f\\u0085\"\n"
        );
    }

    #[test]
    fn the_words_of_the_flags_are_read_as_they_are_shown() {
        for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for format in [Format::Logfmt, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "loud".parse::<Level>().expect_err("no such level").to_string(),
            "\"loud\" is not one of debug, info, warn, error"
        );
    }
}
