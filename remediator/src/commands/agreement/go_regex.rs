//! Go's regular expressions (RE2's syntax), which Alertmanager's matchers are written in, for
//! Rust's `regex`.
//!
//! The two are near relatives and differ where it shows: `\Q..\E`, `\pL`, octal escapes, a `{`
//! that counts nothing, `\d` `\w` `\s` `\b` of ASCII alone, and the set operations that Rust reads
//! within brackets. What is here walks an expression as Go's `regexp/syntax/parse.go` does and
//! writes each part so that Rust can read it in one way only.
//!
//! - [`compile`]: an expression as Alertmanager compiles it, anchored at both ends.
//! - [`NotCompiled`]: Go would refuse it, or Rust cannot do it.

use std::fmt::Write as _;

use regex::Regex;

/// Why there is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotCompiled {
    /// Go refuses it, so that Alertmanager refuses the file.
    Invalid(String),
    /// Go takes it; what it matches is not known here.
    Unknown(String),
}

/// The largest count of a repetition in Go.
const REPEAT_MAX: u32 = 1000;

/// Compiles an expression as Alertmanager does: all of a value must match it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, NotCompiled> {
    // Put together before it is read, as Alertmanager does: a `\Q` without `\E` takes the end too.
    let anchored = format!("^(?:{pattern})$");
    let translated = Translator::new(&anchored).translate().map_err(NotCompiled::Invalid)?;
    Regex::new(&translated).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => NotCompiled::Unknown("it is too large".to_owned()),
        // Brackets that do not close, operators without operand: Go refuses them too.
        regex::Error::Syntax(_) => NotCompiled::Invalid("it is not well formed".to_owned()),
        _ => NotCompiled::Unknown("it cannot be compiled here".to_owned()),
    })
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    /// What stood last: an operator may not follow an operator.
    last: Last,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing that can be repeated.
    Nothing,
    /// Something that can.
    Atom,
    /// A repetition.
    Repeat,
}

impl<'a> Translator<'a> {
    fn new(pattern: &'a str) -> Self {
        Self { rest: pattern, out: String::new(), last: Last::Nothing }
    }

    fn translate(mut self) -> Result<String, String> {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' if self.rest.starts_with("(?") => self.group()?,
                '(' | '|' => self.copy(c, Last::Nothing),
                '*' | '+' | '?' => {
                    self.bump(c);
                    self.repeat(&c.to_string())?;
                }
                '{' => self.braces()?,
                '^' | '$' | '.' | ')' => self.copy(c, Last::Atom),
                c => {
                    self.bump(c);
                    self.literal(c);
                }
            }
        }
        Ok(self.out)
    }

    fn bump(&mut self, c: char) {
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
    }

    fn copy(&mut self, c: char, last: Last) {
        self.bump(c);
        self.out.push(c);
        self.last = last;
    }

    fn literal(&mut self, c: char) {
        push_literal(&mut self.out, c);
        self.last = Last::Atom;
    }

    /// A repetition, and the `?` that makes it lazy.
    fn repeat(&mut self, operator: &str) -> Result<(), String> {
        match self.last {
            Last::Nothing => return Err(format!("nothing stands before {operator}")),
            Last::Repeat => return Err(format!("{operator} follows another repetition")),
            Last::Atom => {}
        }
        self.out.push_str(operator);
        if self.rest.starts_with('?') {
            self.copy('?', Last::Repeat);
        }
        self.last = Last::Repeat;
        Ok(())
    }

    /// `{2}`, `{2,}`, `{2,5}`; any other brace stands for itself.
    fn braces(&mut self) -> Result<(), String> {
        let counted = self.rest.split_once('}').and_then(|(inside, rest)| {
            let inside = inside.strip_prefix('{')?;
            let (least, most) = match inside.split_once(',') {
                None => (count(inside)?, Some(count(inside)?)),
                Some((least, "")) => (count(least)?, None),
                Some((least, most)) => (count(least)?, Some(count(most)?)),
            };
            Some((inside, rest, least, most))
        });
        let Some((inside, rest, least, most)) = counted else {
            self.bump('{');
            self.literal('{');
            return Ok(());
        };
        if least > REPEAT_MAX || most.is_some_and(|most| most > REPEAT_MAX || most < least) {
            return Err(format!("{{{inside}}} is not a repetition of at most {REPEAT_MAX}"));
        }
        self.rest = rest;
        self.repeat(&format!("{{{inside}}}"))
    }

    /// `(?:`, `(?i)`, `(?i-s:`, `(?P<name>`, `(?<name>`.
    fn group(&mut self) -> Result<(), String> {
        let inside = self.rest.get(2..).unwrap_or_default();
        if let Some(named) = inside.strip_prefix("P<").or_else(|| inside.strip_prefix('<')) {
            let (name, rest) = named.split_once('>').ok_or("a name of a group does not end")?;
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(good) {
                return Err(format!("{name:?} is not the name of a group"));
            }
            // The name plays no part in a match, and Rust allows fewer: numbered instead. Two of
            // one name Go refuses, and so does amtool.
            self.out.push('(');
            self.rest = rest;
            self.last = Last::Nothing;
            return Ok(());
        }
        let end = inside.find([':', ')']).ok_or("a group does not end")?;
        let (flags, rest) = inside.split_at(end);
        let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
        let known = |flags: &str| flags.chars().all(|c| "imsU".contains(c));
        if !known(on) || !known(off) || (flags.contains('-') && off.is_empty()) {
            return Err(format!("(?{flags} has other flags than i, m, s and U"));
        }
        let closes = rest.starts_with(')');
        if !(flags.is_empty() && closes) {
            write!(self.out, "(?{flags}{}", if closes { ')' } else { ':' }).ok();
        }
        self.rest = rest.get(1..).unwrap_or_default();
        if !closes {
            self.last = Last::Nothing;
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let mut after = self.rest.chars();
        after.next();
        let kind = after.next().ok_or("a backslash stands at the end")?;
        if kind == 'Q' {
            let text = after.as_str();
            let (quoted, rest) = text.split_once(r"\E").unwrap_or((text, ""));
            for c in quoted.chars() {
                self.literal(c);
            }
            self.rest = rest;
            return Ok(());
        }
        let whole = match kind {
            'A' => Some(r"\A"),
            'z' => Some(r"\z"),
            // Of ASCII alone, as in Go.
            'b' => Some(r"(?-u:\b)"),
            'B' => Some(r"(?-u:\B)"),
            _ => None,
        };
        if let Some(whole) = whole {
            self.out.push_str(whole);
            self.rest = after.as_str();
        } else if let Some(class) = named_class(self.rest)? {
            write!(self.out, "[{}]", class.text).ok();
            self.rest = class.rest;
        } else {
            let (c, rest) = escaped_char(self.rest)?;
            self.literal(c);
            self.rest = rest;
        }
        self.last = Last::Atom;
        Ok(())
    }

    /// `[...]`, in which Go knows no set operations and no brackets but `[:name:]`.
    fn class(&mut self) -> Result<(), String> {
        let mut rest = self.rest.get(1..).unwrap_or_default();
        self.out.push('[');
        if let Some(negated) = rest.strip_prefix('^') {
            self.out.push('^');
            rest = negated;
        }
        let mut first = true;
        loop {
            if rest.is_empty() {
                return Err("a bracket [ does not end".to_owned());
            }
            if let Some(after) = rest.strip_prefix(']').filter(|_| !first) {
                rest = after;
                break;
            }
            first = false;
            if let Some((class, after)) = posix_class(rest)? {
                self.out.push_str(class);
                rest = after;
                continue;
            }
            if rest.starts_with('\\')
                && let Some(class) = named_class(rest)?
            {
                write!(self.out, "[{}]", class.text).ok();
                rest = class.rest;
                continue;
            }
            let (low, after) = class_char(rest)?;
            rest = after;
            push_literal(&mut self.out, low);
            if let Some(after) = rest.strip_prefix('-').filter(|after| !after.starts_with(']')) {
                let (high, after) = class_char(after)?;
                if high < low {
                    return Err(format!("{low}-{high} is not a range"));
                }
                self.out.push('-');
                push_literal(&mut self.out, high);
                rest = after;
            }
        }
        self.out.push(']');
        self.rest = rest;
        self.last = Last::Atom;
        Ok(())
    }
}

/// A number as Go reads it in a repetition: no leading zero.
fn count(text: &str) -> Option<u32> {
    let good = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // One that is too large is a fault, not a brace.
    (good && digits).then(|| text.parse().unwrap_or(u32::MAX))
}

fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || (!c.is_ascii() && !c.is_control()) {
        out.push(c);
    } else {
        write!(out, r"\x{{{:X}}}", u32::from(c)).ok();
    }
}

fn class_char(rest: &str) -> Result<(char, &str), String> {
    if rest.starts_with('\\') {
        return escaped_char(rest);
    }
    let mut chars = rest.chars();
    let c = chars.next().ok_or("a bracket [ does not end")?;
    Ok((c, chars.as_str()))
}

/// One character behind a backslash.
fn escaped_char(rest: &str) -> Result<(char, &str), String> {
    let mut chars = rest.chars();
    chars.next();
    let kind = chars.next().ok_or("a backslash stands at the end")?;
    let c = match kind {
        'a' => '\x07',
        'f' => '\x0C',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0B',
        '0'..='7' => return octal(kind, chars.as_str()),
        'x' => return hexadecimal(chars.as_str()),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
        c => return Err(format!(r"\{c} is not an escape")),
    };
    Ok((c, chars.as_str()))
}

/// `\012`; a single digit but 0 would be a back reference, which there is not.
fn octal(first: char, rest: &str) -> Result<(char, &str), String> {
    let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
    if first != '0' && more == 0 {
        return Err(format!(r"\{first} is not an escape"));
    }
    let (digits, after) = rest.split_at(more);
    let number = u32::from_str_radix(&format!("{first}{digits}"), 8).unwrap_or(u32::MAX);
    let c = char::from_u32(number).ok_or("a number of no character")?;
    Ok((c, after))
}

fn hexadecimal(rest: &str) -> Result<(char, &str), String> {
    let fault = || r"\x without a character's number".to_owned();
    let (digits, after) = match rest.strip_prefix('{') {
        Some(inside) => inside.split_once('}').ok_or_else(fault)?,
        None => rest.split_at_checked(2).ok_or_else(fault)?,
    };
    let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| hex).ok_or_else(fault)?;
    Ok((char::from_u32(number).ok_or_else(fault)?, after))
}

/// What stands within the brackets of a class, and what follows it in the expression.
struct NamedClass<'a> {
    text: String,
    rest: &'a str,
}

/// `\d`, `\pL`, `\p{Greek}` and their like; `None` where it is another escape.
fn named_class(rest: &str) -> Result<Option<NamedClass<'_>>, String> {
    let mut chars = rest.chars();
    chars.next();
    let Some(kind) = chars.next() else { return Ok(None) };
    let text = match kind {
        'd' => "0-9",
        'D' => "^0-9",
        'w' => "0-9A-Za-z_",
        'W' => "^0-9A-Za-z_",
        // Go's has no vertical tab.
        's' => r"\t\n\x0C\r ",
        'S' => r"^\t\n\x0C\r ",
        'p' | 'P' => return unicode_class(kind == 'P', chars.as_str()).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(NamedClass { text: text.to_owned(), rest: chars.as_str() }))
}

/// The general categories, by the names that Go knows: the short ones, and from 1.25 on the long
/// ones as well, in any case and without blanks, `_` and `-`.
const CATEGORIES: [(&str, &str); 38] = [
    ("c", "other"),
    ("cc", "control"),
    ("cf", "format"),
    ("cn", "unassigned"),
    ("co", "privateuse"),
    ("cs", "surrogate"),
    ("l", "letter"),
    ("lc", "casedletter"),
    ("ll", "lowercaseletter"),
    ("lm", "modifierletter"),
    ("lo", "otherletter"),
    ("lt", "titlecaseletter"),
    ("lu", "uppercaseletter"),
    ("m", "mark"),
    ("mc", "spacingmark"),
    ("me", "enclosingmark"),
    ("mn", "nonspacingmark"),
    ("n", "number"),
    ("nd", "decimalnumber"),
    ("nl", "letternumber"),
    ("no", "othernumber"),
    ("p", "punctuation"),
    ("pc", "connectorpunctuation"),
    ("pd", "dashpunctuation"),
    ("pe", "closepunctuation"),
    ("pf", "finalpunctuation"),
    ("pi", "initialpunctuation"),
    ("po", "otherpunctuation"),
    ("ps", "openpunctuation"),
    ("s", "symbol"),
    ("sc", "currencysymbol"),
    ("sk", "modifiersymbol"),
    ("sm", "mathsymbol"),
    ("so", "othersymbol"),
    ("z", "separator"),
    ("zl", "lineseparator"),
    ("zp", "paragraphseparator"),
    ("zs", "spaceseparator"),
];

fn unicode_class(negated: bool, rest: &str) -> Result<NamedClass<'_>, String> {
    let (name, rest) = match rest.strip_prefix('{') {
        Some(inside) => inside.split_once('}').ok_or(r"\p{ does not end")?,
        None => {
            let mut chars = rest.chars();
            let length = chars.next().map_or(0, char::len_utf8);
            rest.split_at_checked(length).unwrap_or_default()
        }
    };
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, !negated),
        None => (name, negated),
    };
    let plain: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect();
    let plain = plain.to_ascii_lowercase();
    let category = CATEGORIES.iter().find(|(short, long)| *short == plain || *long == plain);
    let class = match (plain.as_str(), category) {
        ("any" | "ascii" | "assigned", _) => format!(r"\p{{{plain}}}"),
        // Go's has no unassigned characters in it, and no text has surrogates.
        (_, Some(("c", _))) => r"\p{Cc}\p{Cf}\p{Co}".to_owned(),
        (_, Some(("cs", _))) => "a&&b".to_owned(),
        (_, Some((short, _))) => format!(r"\p{{gc={short}}}"),
        (script, None) if is_script(script) => format!(r"\p{{sc={script}}}"),
        _ => return Err(format!(r"\p{{{name}}} is not a class of Unicode")),
    };
    let text = if negated { format!("^{class}") } else { class };
    Ok(NamedClass { text, rest })
}

/// Whether Go may know a script by this name: it has the long ones. Rust then says whether there
/// is one.
fn is_script(name: &str) -> bool {
    const SHORT: [&str; 11] =
        ["lao", "mro", "nko", "vai", "yi", "ahom", "cham", "kawi", "lisu", "thai", "toto"];
    let letters = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase());
    letters && (name.len() > 4 || SHORT.contains(&name))
}

/// `[:alpha:]` or `[:^alpha:]`, both of which Rust has too; `None` where it is something else.
fn posix_class(rest: &str) -> Result<Option<(&str, &str)>, String> {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
        "space", "upper", "word", "xdigit",
    ];
    let Some(inside) = rest.strip_prefix("[:") else { return Ok(None) };
    let Some(end) = inside.find(":]") else { return Ok(None) };
    let name = inside.get(..end).unwrap_or_default();
    if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Err(format!("[:{name}:] is not a class"));
    }
    Ok(rest.split_at_checked(end.saturating_add(4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all of a text matches.
    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap_or_else(|fault| panic!("{pattern}: {fault:?}")).is_match(text)
    }

    #[test]
    fn what_go_matches_is_matched() {
        // Each with what matches, and what does not.
        for (pattern, yes, no) in [
            ("(?i)procnumchk.+", "ProcNumChkRed", "ProcNumChk"),
            ("(?i)STRASSE", "straſſe", "straße"),
            ("(?i)ΣΊΣΥΦΟΣ", "σίσυφος", "sisyphos"),
            ("(?i)k", "\u{212A}", "q"),
            (r"\pL+", "imapdé", "imapd1"),
            (r"\p{Greek}+", "σίσυφος", "imapd"),
            (r"\p{^Greek}+", "imapd", "σ"),
            (r"\P{Greek}+", "imapd", "σ"),
            (r"\p{greek}+", "σ", "a"),
            (r"\p{Uppercase_Letter}", "Σ", "σ"),
            (r"\p{Old_Italic}", "\u{10300}", "a"),
            (r"\PL+", "123", "a"),
            (r"[\pL\d]+", "imapé9", "-"),
            (r"[^\pL]", "1", "a"),
            (r"\pC", "\u{7}", "\u{378}"),
            (r"a\p{Cs}?", "a", "b"),
            (r"\Qa.b*\E+", "a.b**", "aXb*"),
            (r"\Q(\E|x", "(", "y"),
            ("a{", "a{", "a"),
            ("a{x}", "a{x}", "a"),
            ("a{,2}", "a{,2}", "aa"),
            ("a{01}", "a{01}", "a"),
            ("a{2}", "aa", "a{2}"),
            ("a{2,}", "aaa", "a"),
            ("a{1,2}?", "aa", "aaa"),
            ("{a}", "{a}", "a"),
            (r"\w+", "az_9", "é"),
            (r"\W", "é", "e"),
            (r"\d", "9", "٣"),
            (r"\D", "٣", "9"),
            (r"\s", "\t", "\u{B}"),
            (r"\S", "\u{A0}", " "),
            (r"[\s\S]", "\n", ""),
            (r"a\b.*", "aé", "ab"),
            (r".*\B.", "éé", "a"),
            (r"[[:alpha:]]+", "ab", "é"),
            (r"[[:^alpha:]]", "é", "a"),
            ("[[a]+", "[a", "b"),
            ("[a&&b]+", "a&b", "c"),
            ("[+--b]+", ",-b", "a"),
            ("[a~~b]+", "a~b", "c"),
            ("[]a]+", "]a", "b"),
            ("[^]a]", "b", "]"),
            ("[a-]+", "a-", "b"),
            (r"[\-a]+", "-a", "b"),
            (r"\<a\>", "<a>", "a"),
            (r"\_\-\/", "_-/", "a"),
            (r"\x41\x{1F600}", "A😀", "A"),
            (r"\101\0", "A\0", "A"),
            (r"\a\f\v", "\x07\x0C\x0B", ""),
            ("a|b", "b", "ab"),
            ("(?P<x>a)(?<y>b)", "ab", "a"),
            ("(?s).+", "a\nb", ""),
            (".+", "a", "a\nb"),
            ("(?s:.)(?-s:.)", "\na", "\n\n"),
            ("(?)a", "a", ""),
            ("(?U)a+", "aaa", ""),
            ("(?m)a$\n^b", "a\nb", "ab"),
            ("x)(?:y", "xy", "x"),
            ("", "", "a"),
            (r"\Aa\z", "a", "aa"),
        ] {
            assert!(matches(pattern, yes), "{pattern:?} matches {yes:?}");
            assert!(!matches(pattern, no), "{pattern:?} does not match {no:?}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in [
            "(",
            ")",
            "a**",
            "a*+",
            "a{2}{3}",
            "*a",
            "a|*",
            "(?x)a",
            "(?u)a",
            "(?<>a)",
            "(?=a)",
            "(?!a)",
            "(?i-)a",
            r"\E",
            r"\Z",
            r"\C",
            r"\1",
            r"\8",
            r"\é",
            r"\q",
            r"\Qa",
            r"\pX",
            r"\p{Alphabetic}",
            r"\p{Grek}",
            r"\p{Greek",
            r"\x4",
            r"\x{110000}",
            r"\x{+41}",
            "[",
            "[a",
            "[]",
            "[z-a]",
            "[a--b]",
            r"[\Qa\E]",
            "[[:foo:]]",
            r"[a-\d]",
            "a{1001}",
            "a{3,2}",
            "a\\",
        ] {
            assert!(
                matches!(compile(pattern), Err(NotCompiled::Invalid(_))),
                "{pattern:?}: {:?}",
                compile(pattern)
            );
        }
    }

    #[test]
    fn what_is_too_large_is_not_judged() {
        assert!(matches!(compile(r"(?:\pL{1000}){1000}"), Err(NotCompiled::Unknown(_))));
    }
}
