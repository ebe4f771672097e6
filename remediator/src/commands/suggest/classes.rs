//! To which class a command belongs: as the loaded rules say, else as the shipped ones do.

use std::collections::BTreeMap;

use regex::Regex;

use crate::commands::agreement::go_regex::compile;

/// The rule that gives each command its class.
const CLASSIFIER: &str = "user_command_class:procstorm_processes:watched";

/// The class of commands that match no other.
const DEFAULT: &str = "default";

/// The classes of the shipped rules.
const SHIPPED: [(&str, &str); 3] =
    [("(?s).*imapd.*", "imapd"), ("(?s).*sendmail.*", "sendmail"), ("(?s).*http.*", "http")];

/// The classes, in their order: the first that matches counts.
#[derive(Debug)]
pub(super) struct Classes {
    patterns: Vec<(Regex, String)>,
    /// Whether they are those of the rules that Prometheus has loaded.
    pub(super) are_loaded: bool,
    /// Patterns of the rules that are not understood here.
    pub(super) unknown: Vec<String>,
}

impl Classes {
    /// The classes of these rules.
    pub(super) fn of_rules(rules: &BTreeMap<String, String>) -> Self {
        let mut classes = Self { patterns: Vec::new(), are_loaded: false, unknown: Vec::new() };
        let loaded = rules.get(CLASSIFIER).map(|rule| lines(rule)).unwrap_or_default();
        classes.are_loaded = !loaded.is_empty();
        let shipped = SHIPPED.map(|(pattern, class)| (pattern.to_owned(), class.to_owned()));
        let all = if classes.are_loaded { loaded } else { shipped.to_vec() };
        for (pattern, class) in all {
            match compile(&pattern) {
                Ok(regex) => classes.patterns.push((regex, class)),
                Err(_) => classes.unknown.push(pattern),
            }
        }
        classes
    }

    /// The class of a command.
    pub(super) fn of(&self, command: &str) -> &str {
        let found = self.patterns.iter().find(|(regex, _)| regex.is_match(command));
        found.map_or(DEFAULT, |(_, class)| class)
    }
}

/// The patterns of a classifier, each with its class:
/// `label_replace(...{command=~"PATTERN"}, "class", "CLASS", "", "")`.
fn lines(rule: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in rule.split("label_replace(").skip(1) {
        let pattern = line.split_once("command=~").and_then(|(_, rest)| quoted(rest));
        let class = line.split_once("\"class\",").and_then(|(_, rest)| quoted(rest.trim_start()));
        if let (Some(pattern), Some(class)) = (pattern, class) {
            found.push((pattern, class));
        }
    }
    found
}

/// The text in quotes at the beginning, with its escapes as Prometheus writes them.
fn quoted(text: &str) -> Option<String> {
    let mut texts = serde_json::Deserializer::from_str(text).into_iter::<String>();
    texts.next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_class_that_the_loaded_rules_give_it() {
        let rule = "label_replace(x{command=~\"(?s).*ftpd\\\\.x.*\"}, \"class\", \"ftp\", \"\", \"\") or \
                    ignoring (class) label_replace(x{command=~\"(?s).*http.*\"}, \"class\", \"web\", \
                    \"\", \"\") or ignoring (class) label_replace(x, \"class\", \"default\", \"\", \"\")";
        let rules = BTreeMap::from([(CLASSIFIER.to_owned(), rule.to_owned())]);
        let classes = Classes::of_rules(&rules);
        assert!(classes.are_loaded && classes.unknown.is_empty(), "{classes:?}");
        for (command, class) in
            [("proftpd.x", "ftp"), ("proftpdyx", "default"), ("httpd", "web"), ("imapd", "default")]
        {
            assert_eq!(classes.of(command), class, "{command}");
        }
        let shipped = Classes::of_rules(&BTreeMap::new());
        assert!(!shipped.are_loaded);
        assert_eq!((shipped.of("imapd-ssl"), shipped.of("a\nhttp")), ("imapd", "http"));
    }
}
