//! Counts with their nouns.

use std::fmt::Display;

/// A count with its noun, or its noun and verb, which is in the singular after 1.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(
    count: N,
    one: &str,
    many: &str,
) -> String {
    let noun = if count == N::from(1) { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn the_singular_is_for_one_alone() {
        let hosts = [0_u64, 1, 2].map(|count| counted(count, "host is", "hosts are"));
        assert_eq!(hosts, ["0 hosts are", "1 host is", "2 hosts are"]);
    }
}
