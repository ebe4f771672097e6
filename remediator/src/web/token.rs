//! The bearer token: who knows it may ask.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hyper::header::{AUTHORIZATION, HeaderMap};
use subtle::ConstantTimeEq;

/// The largest token file.
const FILE_MAX: u64 = 4096;

/// The shortest token: one that is shorter can be guessed.
const TOKEN_MIN: usize = 16;

/// A token. It shows in no log: its `Debug` hides it, and it has no `Display`.
#[derive(Clone)]
pub struct Token(Vec<u8>);

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read token file {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others than its owner can read or write it.
    #[error("token file {path} has mode {mode:04o}: others can reach it; chmod 600 it", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else owns it, who so knows it and can change it.
    #[error("token file {path} belongs to uid {owner}: it must belong to root or to the daemon", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It holds no token.
    #[error(
        "token file {path} must hold one line of {TOKEN_MIN} to {FILE_MAX} visible characters",
        path = .0.display()
    )]
    Content(PathBuf),
}

impl Token {
    /// Reads a token file: one line. A symlink is followed, since deployments make them; what
    /// counts is the file at its end.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let fault = |source| TokenError::Read { path: path.to_owned(), source };
        // Opened first, then looked at, so that both are about the same file.
        let file = File::open(path).map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        if !metadata.is_file() {
            return Err(fault(io::Error::other("it is not a regular file")));
        }
        let owner = metadata.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(TokenError::Owner { path: path.to_owned(), owner });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Mode { path: path.to_owned(), mode });
        }
        let mut text = Vec::new();
        file.take(FILE_MAX.saturating_add(1)).read_to_end(&mut text).map_err(fault)?;
        let token = text.trim_ascii().to_owned();
        let length = u64::try_from(token.len()).unwrap_or(u64::MAX);
        if token.len() < TOKEN_MIN || length > FILE_MAX || !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Content(path.to_owned()));
        }
        Ok(Self(token))
    }

    /// Whether a request carries this token, and no other beside it. Takes the same time for every
    /// wrong token of the right length.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, given)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.ct_eq(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use hyper::header::HeaderValue;

    use super::*;

    const SECRET: &str = "correct-horse-battery-staple";

    fn file(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("token");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        (folder, path)
    }

    #[test]
    fn only_the_whole_token_alone_is_taken() {
        let (_folder, path) = file(&format!("{SECRET}\n"), 0o600);
        let token = Token::read(&path).expect("a token");
        assert!(!format!("{token:?}").contains(SECRET));
        let is_in = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
            }
            token.is_in(&headers)
        };
        let good = format!("Bearer {SECRET}");
        assert!(is_in(&[&good]));
        assert!(is_in(&[&good.replace("Bearer", "bearer")]));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            SECRET,
            "Bearer x",
            &format!("{good}x"),
            &format!("Basic {SECRET}"),
        ] {
            assert!(!is_in(&[bad]), "{bad}");
        }
        assert!(!is_in(&[]));
        assert!(!is_in(&[&good, &good]));
    }

    #[test]
    fn files_that_others_can_reach_are_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            let (_folder, path) = file(SECRET, mode);
            let error = Token::read(&path).expect_err("refused").to_string();
            assert!(
                error.contains(path.to_str().expect("text")) && !error.contains(SECRET),
                "{error}"
            );
        }
    }

    #[test]
    fn files_without_a_token_are_refused() {
        for content in ["", "\n", "short", "two words of sufficient length", &"x".repeat(5000)] {
            let (_folder, path) = file(content, 0o600);
            assert!(matches!(Token::read(&path), Err(TokenError::Content(_))), "{content}");
        }
        assert!(Token::read(Path::new("/nowhere")).is_err());
        assert!(Token::read(Path::new("/dev/null")).is_err());
    }
}
