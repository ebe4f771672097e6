//! Counts with their nouns.

/// A count with its noun, which is in the singular after 1.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
