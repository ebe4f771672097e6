//! Compressed answers, for clients that ask for them.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::HeaderValue;

/// Whether an `Accept-Encoding` header takes gzip: named (or `*`), and not with a weight of 0.
#[must_use]
pub fn is_accepted(header: &HeaderValue) -> bool {
    header.to_str().unwrap_or_default().split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f64>);
        let name = name.trim();
        (name.eq_ignore_ascii_case("gzip") || name == "*") && weight.is_ok_and(|q| q > 0.0)
    })
}

/// `text` compressed, with the least effort: repeated names make most of its size.
#[must_use]
pub fn compress(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to a Vec does not fail.
    if encoder.write_all(text).is_err() {
        tracing::error!("cannot compress");
    }
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_understood() {
        for (header, accepted) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, identity", false),
            ("identity", false),
            ("xgzip", false),
            ("", false),
        ] {
            assert_eq!(is_accepted(&HeaderValue::from_static(header)), accepted, "{header}");
        }
    }
}
