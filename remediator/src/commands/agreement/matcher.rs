//! Alertmanager's matchers, and the labels that they are held against.
//!
//! - [`Labels`]: what is known of an alert before it fires.
//! - [`Matcher`]: one of a route's or an inhibit rule's; reads both syntaxes, the classic one and
//!   the one of 0.27 and later that knows all of UTF-8 (`pkg/labels/parse.go`,
//!   `matcher/parse/parse.go`).
//! - [`Answer`]: whether it matches. An alert's user is not known here, so some cannot be told.

use std::collections::BTreeMap;

use regex::Regex;

use super::go_regex::{self, NotCompiled};
use crate::policy::yaml::{Fault, Node};

/// What is known of the value of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// This.
    Known(String),
    /// Most probably this: nothing in the files says otherwise. An absent label is an empty one.
    Assumed(String),
    /// Something, and not nothing; none of `never`.
    Any {
        /// What it is not.
        never: Vec<String>,
    },
}

/// The labels of an alert to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(BTreeMap<String, Value>);

impl Labels {
    /// Says what is known of a label.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Says what a label is.
    pub(super) fn know(&mut self, name: &str, value: &str) {
        self.set(name, Value::Known(value.to_owned()));
    }

    /// What is known of a label; one that is not there is taken to be empty.
    #[must_use]
    pub(super) fn get(&self, name: &str) -> Value {
        self.0.get(name).cloned().unwrap_or_else(|| Value::Assumed(String::new()))
    }
}

/// Whether a matcher matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// It depends on what is not known here.
    Depends,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Answer {
    fn negated_if(self, negated: bool) -> Self {
        match self {
            Self::Yes if negated => Self::No,
            Self::No if negated => Self::Yes,
            Self::Yes | Self::No | Self::Depends => self,
        }
    }
}

/// A matcher.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub(super) label: String,
    /// As one would write it.
    pub(super) text: String,
    negated: bool,
    value: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Equal(String),
    Like(String, Regex),
    /// An expression that Alertmanager takes and that cannot be compiled here.
    Unknown,
}

impl Matcher {
    /// The matchers under `key`, of which one text can hold several.
    pub(super) fn list(node: &Node, key: &str) -> Result<Vec<Self>, Fault> {
        let mut matchers = Vec::new();
        for item in node.items_of(key)? {
            let text = if item.is_null() { "" } else { item.text()? };
            let parsed = classic(text).or_else(|classic| {
                // Since 0.27; where both take it, Alertmanager goes on with the classic reading.
                utf8(text).ok_or(classic)
            });
            let fault = |()| Fault::new(item.line, format!("{text:?} is not a matcher"));
            for (label, operator, value) in parsed.map_err(fault)? {
                matchers.push(Self::new(&label, operator, &value, item.line)?);
            }
        }
        Ok(matchers)
    }

    /// The deprecated mapping of labels to values under `key`.
    pub(super) fn mapping(node: &Node, key: &str, operator: Operator) -> Result<Vec<Self>, Fault> {
        let line = node.get(key).map_or(node.line, |mapping| mapping.line);
        let texts = node.texts_of(key)?;
        texts.iter().map(|(label, value)| Self::new(label, operator, value, line)).collect()
    }

    fn new(label: &str, operator: Operator, value: &str, line: u64) -> Result<Self, Fault> {
        let text = format!("{label}{}{value:?}", operator.sign);
        let wanted = if operator.is_regex {
            match go_regex::compile(value) {
                Ok(regex) => Wanted::Like(value.to_owned(), regex),
                Err(NotCompiled::Unknown(_)) => Wanted::Unknown,
                Err(NotCompiled::Invalid(why)) => {
                    let what = format!("{text} is not a matcher: regex parse error: {why}");
                    return Err(Fault::new(line, what));
                }
            }
        } else {
            Wanted::Equal(value.to_owned())
        };
        let (label, negated) = (label.to_owned(), operator.negated);
        Ok(Self { label, text, negated, value: wanted })
    }

    /// Whether it matches a value.
    pub(super) fn matches(&self, value: &Value) -> Answer {
        match value {
            Value::Known(text) | Value::Assumed(text) => self.matches_text(text),
            Value::Any { never } => self.matches_any(never),
        }
    }

    /// Whether it matches this text.
    pub(super) fn matches_text(&self, text: &str) -> Answer {
        let answer = match &self.value {
            Wanted::Equal(value) => (value == text).into(),
            Wanted::Like(_, regex) => regex.is_match(text).into(),
            Wanted::Unknown => Answer::Depends,
        };
        answer.negated_if(self.negated)
    }

    fn matches_any(&self, never: &[String]) -> Answer {
        let impossible = |text: &str| text.is_empty() || never.iter().any(|one| one == text);
        let answer = match &self.value {
            Wanted::Equal(value) if impossible(value) => Answer::No,
            Wanted::Like(pattern, _) if takes_everything(pattern) => Answer::Yes,
            Wanted::Like(pattern, _)
                if literals(pattern).is_some_and(|mut l| l.all(impossible)) =>
            {
                Answer::No
            }
            Wanted::Equal(_) | Wanted::Like(..) | Wanted::Unknown => Answer::Depends,
        };
        answer.negated_if(self.negated)
    }

    /// The one value with which its label makes the answer of [`Self::matches`] `yes`, if there
    /// is only one.
    pub(super) fn only_value(&self, yes: bool) -> Option<&str> {
        match &self.value {
            Wanted::Equal(value) if yes != self.negated => Some(value),
            Wanted::Equal(_) | Wanted::Like(..) | Wanted::Unknown => None,
        }
    }

    /// The values that it names, if it takes these and no others.
    pub(super) fn names(&self) -> Vec<&str> {
        match &self.value {
            _ if self.negated => Vec::new(),
            Wanted::Equal(value) => vec![value],
            Wanted::Like(pattern, _) => literals(pattern).into_iter().flatten().collect(),
            Wanted::Unknown => Vec::new(),
        }
    }
}

/// Whether an expression takes each text that is not empty and has no line break.
fn takes_everything(pattern: &str) -> bool {
    let mut inner =
        pattern.trim_start_matches("(?s)").trim_start_matches('^').trim_end_matches('$');
    while let Some(group) = inner.strip_prefix("(?:").or_else(|| inner.strip_prefix('(')) {
        let Some(group) = group.strip_suffix(')') else { break };
        inner = group;
    }
    matches!(inner, ".*" | ".+")
}

/// The texts of an expression that is nothing else than texts: `a|b`.
fn literals(pattern: &str) -> Option<impl Iterator<Item = &str>> {
    let literal = |c: char| c.is_alphanumeric() || matches!(c, '|' | '_' | '-' | '@' | '/' | ':');
    pattern.chars().all(literal).then(|| pattern.split('|'))
}

/// What stands between label and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator {
    sign: &'static str,
    is_regex: bool,
    negated: bool,
}

pub(super) const EQUAL: Operator = Operator { sign: "=", is_regex: false, negated: false };
pub(super) const LIKE: Operator = Operator { sign: "=~", is_regex: true, negated: false };

/// Longer ones first.
const OPERATORS: [Operator; 4] = [
    LIKE,
    Operator { sign: "!~", is_regex: true, negated: true },
    Operator { sign: "!=", is_regex: false, negated: true },
    EQUAL,
];

type Parsed = Vec<(String, Operator, String)>;

/// What separates tokens in Go's `\s`.
const SPACES: [char; 5] = [' ', '\t', '\n', '\x0C', '\r'];

fn operator(text: &str) -> Option<(Operator, &str)> {
    OPERATORS.into_iter().find_map(|one| Some((one, text.strip_prefix(one.sign)?)))
}

/// Alertmanager's classic syntax: braces may be left out, commas within quotes do not separate.
fn classic(text: &str) -> Result<Parsed, ()> {
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    let (mut quoted, mut escaped) = (false, false);
    let mut parts: Vec<&str> = text
        .split(move |c: char| {
            match c {
                ',' if !quoted => return true,
                // In Go, too, a comma within quotes leaves an escape open.
                ',' => {}
                '"' if escaped => escaped = false,
                '"' => quoted = !quoted,
                '\\' => escaped = !escaped,
                _ => escaped = false,
            }
            false
        })
        .collect();
    if parts.last().is_some_and(|last| last.trim().is_empty()) {
        parts.pop();
    }
    parts.into_iter().map(|part| classic_one(part).ok_or(())).collect()
}

fn classic_one(text: &str) -> Option<(String, Operator, String)> {
    let text = text.trim_matches(SPACES);
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (label, rest) = text.split_at(text.find(|c| !good(c))?);
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (operator, value) = operator(rest.trim_start_matches(SPACES))?;
    Some((label.to_owned(), operator, classic_value(value.trim_start_matches(SPACES))?))
}

fn classic_value(text: &str) -> Option<String> {
    let (text, mut must_close) = match text.strip_prefix('"') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(c @ ('"' | '\\')) => value.push(c),
                // No escape: the backslash stands for itself.
                Some(c) => value.extend(['\\', c]),
                None => value.push('\\'),
            },
            '"' if must_close && chars.as_str().is_empty() => must_close = false,
            '"' => return None,
            c => value.push(c),
        }
    }
    (!must_close).then_some(value)
}

/// The syntax of 0.27: names of any characters, in quotes where one of them has a meaning here.
fn utf8(text: &str) -> Option<Parsed> {
    let text = text.trim();
    let text = match text.strip_prefix('{') {
        Some(inside) => inside.strip_suffix('}')?,
        None => text,
    };
    let mut parsed = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (label, after) = utf8_token(rest)?;
        let (operator, after) = operator(after.trim_start())?;
        let (value, after) = utf8_token(after.trim_start())?;
        if label.is_empty() {
            return None;
        }
        parsed.push((label, operator, value));
        rest = after.trim();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }
    Some(parsed)
}

/// A word in quotes, or one without any character that has a meaning here; and what follows it.
fn utf8_token(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let reserved = |c: char| c.is_whitespace() || "{}!=~,\\\"'`".contains(c);
        let (word, rest) = text.split_at(text.find(reserved).unwrap_or(text.len()));
        return (!word.is_empty()).then(|| (word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\n' => return None,
            '\\' => value.push(unescaped(&mut chars)?),
            c => value.push(c),
        }
    }
}

/// What stands behind a backslash, as Go's `strconv.Unquote` reads it.
fn unescaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let c = match chars.next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0C',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0B',
        c @ ('\\' | '"') => c,
        // Beyond ASCII it would be a byte, and no character.
        'x' => numbered(chars, 2).filter(char::is_ascii)?,
        'u' => numbered(chars, 4)?,
        'U' => numbered(chars, 8)?,
        _ => return None,
    };
    Some(c)
}

fn numbered(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let (number, rest) = chars.as_str().split_at_checked(digits)?;
    let hex = number.bytes().all(|b| b.is_ascii_hexdigit());
    let c = char::from_u32(u32::from_str_radix(number, 16).ok().filter(|_| hex)?)?;
    *chars = rest.chars();
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::yaml;

    fn parse(text: &str) -> Result<Vec<Matcher>, Fault> {
        let quoted = serde_json::to_string(text).expect("JSON");
        let node = yaml::read(&format!("m: [{quoted}]")).expect("YAML").expect("a mapping");
        Matcher::list(&node, "m")
    }

    /// Each matcher as label, sign and value.
    fn read(text: &str) -> Vec<String> {
        let matchers = parse(text).unwrap_or_else(|fault| panic!("{text:?}: {fault:?}"));
        matchers.into_iter().map(|matcher| matcher.text).collect()
    }

    #[test]
    fn both_syntaxes_are_read() {
        for (text, expected) in [
            ("a=b", vec![r#"a="b""#]),
            (r#"a="b""#, vec![r#"a="b""#]),
            (r#" { a = "b" , c =~ "d,e" , }"#, vec![r#"a="b""#, r#"c=~"d,e""#]),
            (r#"{a="b",c!~d}"#, vec![r#"a="b""#, r#"c!~"d""#]),
            ("", vec![]),
            ("{}", vec![]),
            (r#"a="{b}""#, vec![r#"a="{b}""#]),
            (r#"a="b\"c\\d\ne\f""#, vec![r#"a="b\"c\\d\ne\\f""#]),
            ("a=", vec![r#"a="""#]),
            ("a==b", vec![r#"a="=b""#]),
            ("a=~b=c", vec![r#"a=~"b=c""#]),
            ("a:b=c", vec![r#"a:b="c""#]),
            // The classic one takes what has no quotes, blanks and all.
            ("a=b c", vec![r#"a="b c""#]),
            // Those that only the newer one takes.
            (r#""a b"="c""#, vec![r#"a b="c""#]),
            (r#"größe="\u00e9\x41""#, vec![r#"größe="éA""#]),
            (r#"a.b="c", d!=e"#, vec![r#"a.b="c""#, r#"d!="e""#]),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
        for text in ["a", "=b", "1a", r#"a="b"#, r#"a=b""#, r#"a="b"c"#, "a=b,,c=d", r#"a=~"(""#] {
            assert!(parse(text).is_err(), "{text:?}: {:?}", parse(text));
        }
    }

    #[test]
    fn what_is_not_known_is_told_apart_from_what_is() {
        let user = Value::Any { never: vec!["root".to_owned()] };
        for (matcher, expected) in [
            (r#"user!="""#, Answer::Yes),
            (r#"user="""#, Answer::No),
            (r#"user=~".+""#, Answer::Yes),
            (r#"user=~"(?:.*)""#, Answer::Yes),
            (r#"user!~".*""#, Answer::No),
            (r#"user="root""#, Answer::No),
            (r#"user=~"root|""#, Answer::No),
            (r#"user!~"root""#, Answer::Yes),
            (r#"user="alice""#, Answer::Depends),
            (r#"user!="alice""#, Answer::Depends),
            (r#"user=~"[a-z]+""#, Answer::Depends),
        ] {
            let matchers = parse(matcher).expect("a matcher");
            let answers: Vec<_> = matchers.iter().map(|one| one.matches(&user)).collect();
            assert_eq!(answers, [expected], "{matcher}");
        }
        let absent = Labels::default().get("user");
        let matchers = parse(r#"user="""#).expect("a matcher");
        assert!(matchers.iter().all(|one| one.matches(&absent) == Answer::Yes));
    }
}
