//! YAML as Go's programs read it: the first document of a file, each value with its line.
//! The policy is read elsewhere (`config`), and has its lines from here.
//!
//! - [`read`]: a file's text as a tree; `None` where the document is empty.
//! - [`Node`]: a value; what it must be is asked for with [`Node::text`], [`Node::items`] and
//!   their siblings, each of which says in the file's words what else was found.
//!
//! Faults say where and what kind, and never quote: next to a fault stands a password as easily
//! as a receiver's name.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// What aliases may make of a file. The largest rule files that are known have a tenth of it.
const NODES_MAX: usize = 1_000_000;

/// A fault, and the line that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: u64,
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(line: u64, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

/// A value in a file.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where it begins, from 1.
    pub(crate) line: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A scalar that YAML may read as something else than text.
    Plain(String),
    /// A scalar in quotes, in a block, or with a tag: text.
    Quoted(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// The first document of a text. What comes after it is not looked at, as Go's YAML does not.
pub(crate) fn read(text: &str) -> Result<Option<Node>, Fault> {
    let options = granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    for next in parser {
        let (event, span) = next.map_err(|error| {
            Fault::new(
                line(error.marker().line()),
                format!("not valid YAML (column {}): {}", error.marker().col() + 1, error.info()),
            )
        })?;
        if matches!(event, Event::DocumentEnd | Event::StreamEnd) {
            break;
        }
        builder.take(event, span)?;
    }
    Ok(builder.root.filter(|root| !root.is_null()))
}

fn line(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX).max(1)
}

/// Makes a tree of the parser's events.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    line: u64,
    anchor: usize,
    is_map: bool,
    items: Vec<Node>,
    /// How many nodes there were before it.
    before: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let line = line(span.start.line());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let text = text.into_owned();
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| is_null_tag(&tag));
                let kind = if plain { Kind::Plain(text) } else { Kind::Quoted(text) };
                self.add(Node { line, kind }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => self.open(line, anchor, false),
            Event::MappingStart(_, anchor, _) => self.open(line, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let (node, size) = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or_else(|| Fault::new(line, "an alias within its own anchor"))?;
                self.add(node, 0, size)
            }
            Event::UnresolvedAlias(_) => Err(Fault::new(line, "an alias without an anchor")),
            // The parser was not asked for more, and the rest says nothing of values.
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | _ => Ok(()),
        }
    }

    fn open(&mut self, line: u64, anchor: usize, is_map: bool) -> Result<(), Fault> {
        self.count(line, 1)?;
        self.open.push(Open { line, anchor, is_map, items: Vec::new(), before: self.nodes });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let size = self.nodes.saturating_sub(open.before).saturating_add(1);
        let kind = if open.is_map { map(open.items)? } else { Kind::List(open.items) };
        // Its own nodes are counted already.
        self.nodes = self.nodes.saturating_sub(size);
        self.add(Node { line: open.line, kind }, open.anchor, size)
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Fault> {
        self.count(node.line, size)?;
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn count(&mut self, line: u64, more: usize) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > NODES_MAX {
            return Err(Fault::new(
                line,
                format!("more than {NODES_MAX} values, with its aliases"),
            ));
        }
        Ok(())
    }
}

fn is_null_tag(tag: &Tag) -> bool {
    tag.core_suffix() == Some("null")
}

/// A mapping out of its keys and values in turn. `<<` brings in what has no key of its own.
fn map(items: Vec<Node>) -> Result<Kind, Fault> {
    let mut entries: Vec<(Node, Node)> = Vec::new();
    let mut merged = Vec::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        if matches!(&key.kind, Kind::Plain(text) if text == "<<") {
            merged.push(value);
        } else if let Some(name) = key.scalar()
            && let Some((first, _)) = entries.iter().find(|(other, _)| other.scalar() == Some(name))
        {
            let what = format!("duplicate key {name:?} (first in line {})", first.line);
            return Err(Fault::new(key.line, what));
        } else {
            entries.push((key, value));
        }
    }
    for source in merged {
        let sources = match source.kind {
            Kind::List(sources) => sources,
            Kind::Map(_) | Kind::Plain(_) | Kind::Quoted(_) => vec![source],
        };
        for source in sources {
            let Kind::Map(more) = source.kind else {
                return Err(Fault::new(source.line, "<< must bring in a mapping"));
            };
            for (key, value) in more {
                if !entries.iter().any(|(other, _)| other.scalar() == key.scalar()) {
                    entries.push((key, value));
                }
            }
        }
    }
    Ok(Kind::Map(entries))
}

impl Node {
    /// Whether nothing stands there, or one of YAML's words for it.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar, as it is written.
    fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Plain(text) | Kind::Quoted(text) => Some(text),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// A scalar's text: Go takes each for a text where one is wanted.
    pub(crate) fn text(&self) -> Result<&str, Fault> {
        self.scalar().ok_or_else(|| self.unlike("text"))
    }

    /// `true` or `false`, or one of YAML 1.1's other words for them.
    pub(crate) fn truth(&self) -> Result<bool, Fault> {
        let Kind::Plain(text) = &self.kind else { return Err(self.unlike("true or false")) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" | "" | "~" | "null" => Ok(false),
            _ => Err(self.unlike("true or false")),
        }
    }

    /// The items of a list; nothing is an empty one.
    pub(crate) fn items(&self) -> Result<&[Self], Fault> {
        match &self.kind {
            Kind::List(items) => Ok(items),
            _ if self.is_null() => Ok(&[]),
            Kind::Plain(_) | Kind::Quoted(_) | Kind::Map(_) => Err(self.unlike("a list")),
        }
    }

    /// The keys of a mapping with their values; nothing is an empty one.
    pub(crate) fn entries(&self) -> Result<&[(Self, Self)], Fault> {
        match &self.kind {
            Kind::Map(entries) => Ok(entries),
            _ if self.is_null() => Ok(&[]),
            Kind::Plain(_) | Kind::Quoted(_) | Kind::List(_) => Err(self.unlike("a mapping")),
        }
    }

    /// The value of a key in a mapping, if one stands there.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.get_even_null(key).filter(|value| !value.is_null())
    }

    /// The value of a key in a mapping, if the key is there.
    pub(crate) fn get_even_null(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(name, _)| name.scalar() == Some(key)).map(|(_, value)| value)
    }

    /// The line of the key at the end of a path such as `mail.spool`, or of the last key of it
    /// that is there; or of an item in the list under that key.
    pub(crate) fn line_of(&self, path: &str, item: Option<usize>) -> u64 {
        let (mut node, mut line, mut rest) = (self, self.line, path);
        // A key may hold a dot itself: what stands in the file decides.
        let after = |rest: &'_ str, key: &Self| {
            let key = key.scalar()?.escape_debug().to_string();
            let after = rest.strip_prefix(&key)?;
            let after = if after.is_empty() { "" } else { after.strip_prefix('.')? };
            Some(after.to_owned())
        };
        let mut owned;
        while let Kind::Map(entries) = &node.kind
            && let Some((key, value, left)) =
                entries.iter().find_map(|(key, value)| Some((key, value, after(rest, key)?)))
        {
            (node, line, owned) = (value, key.line, left);
            rest = &owned;
        }
        let item = match &node.kind {
            Kind::List(items) if rest.is_empty() => item.and_then(|index| items.get(index)),
            Kind::List(_) | Kind::Map(_) | Kind::Plain(_) | Kind::Quoted(_) => None,
        };
        item.map_or(line, |item| item.line)
    }

    /// The text under a key.
    pub(crate) fn text_of(&self, key: &str) -> Result<Option<&str>, Fault> {
        self.get(key).map(Self::text).transpose()
    }

    /// The items of the list under a key.
    pub(crate) fn items_of(&self, key: &str) -> Result<&[Self], Fault> {
        self.get(key).map_or(Ok(&[]), Self::items)
    }

    /// A mapping of texts to texts under a key.
    pub(crate) fn texts_of(&self, key: &str) -> Result<BTreeMap<String, String>, Fault> {
        let entries = self.get(key).map_or(Ok(&[][..]), Self::entries)?;
        entries
            .iter()
            .map(|(name, value)| {
                // Of nothing Go makes an empty text.
                let value = if value.is_null() { "" } else { value.text()? };
                Ok((name.text()?.to_owned(), value.to_owned()))
            })
            .collect()
    }

    fn unlike(&self, wanted: &str) -> Fault {
        let found = match &self.kind {
            _ if self.is_null() => "nothing",
            Kind::Plain(_) | Kind::Quoted(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        };
        Fault::new(self.line, format!("must be {wanted}, not {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Node {
        read(text).expect("YAML").expect("a document")
    }

    #[test]
    fn values_have_their_lines_and_aliases_those_of_their_anchors() {
        let doc = root("a: &x {b: '1'}\nc:\n  - *x\n  - <<: *x\n    d: 2\n");
        let c = doc.items_of("c").expect("a list");
        assert_eq!(c.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 4]);
        let merged = c.last().expect("an item");
        assert_eq!(merged.text_of("b"), Ok(Some("1")));
        assert_eq!(merged.text_of("d"), Ok(Some("2")));
        assert_eq!(doc.line_of("c", None), 2);
        assert_eq!(doc.line_of("a.b", None), 1);
        assert_eq!(doc.line_of("c.missing", None), 2);
        let listed = root("a:\n  - 1\n  - 2\n");
        assert_eq!([0, 1, 2].map(|item| listed.line_of("a", Some(item))), [2, 3, 1]);
        let dotted = root("a.b:\n  c:\n    d: 1\n");
        assert_eq!(dotted.line_of("a.b.c.d", None), 3);
    }

    #[test]
    fn only_the_first_document_is_read() {
        assert_eq!(root("a: 1\n---\na: 2\n").text_of("a"), Ok(Some("1")));
        assert_eq!(root("---\na: 1\n...\n{[ no YAML").text_of("a"), Ok(Some("1")));
        for empty in ["", "---", "---\n", "# a comment\n", "~", "--- null\n"] {
            assert!(read(empty).expect("YAML").is_none(), "{empty:?}");
        }
    }

    #[test]
    fn nothing_is_an_empty_list_and_quotes_make_text() {
        let root = root("a:\nb: ''\nc: 'yes'\nd: Yes\ne: 5\n");
        assert_eq!(root.items_of("a").map(<[Node]>::len), Ok(0));
        assert_eq!(root.text_of("b"), Ok(Some("")));
        assert!(root.get("c").expect("there").truth().is_err());
        assert_eq!(root.get("d").expect("there").truth(), Ok(true));
        assert_eq!(root.text_of("e"), Ok(Some("5")));
    }

    #[test]
    fn a_fault_says_where_and_quotes_nothing() {
        let text = "a: 1\nsmtp_auth_password: hunter2\n  b: [\nc: hunter2\n";
        let fault = read(text).expect_err("not YAML");
        assert!(fault.line >= 2 && !fault.what.contains("hunter2"), "{fault:?}");
        let twice = read("a: hunter2\na: hunter2\n").expect_err("twice");
        assert_eq!(twice, Fault::new(2, "duplicate key \"a\" (first in line 1)"));
    }

    #[test]
    fn aliases_do_not_fill_the_memory() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            let items = vec![below; 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        let fault = read(&text).expect_err("a bomb");
        assert!(fault.what.contains("with its aliases"), "{fault:?}");
    }
}
