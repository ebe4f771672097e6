//! Compressed answers, for clients that ask for them.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::HeaderValue;

/// Whether these `Accept-Encoding` headers take gzip: named, or else by `*`, and not with a weight
/// of 0 (RFC 9110, 12.5.3).
#[must_use]
pub fn is_accepted<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let mut by_star = false;
    for header in headers {
        for coding in header.to_str().unwrap_or_default().split(',') {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = weight.trim().to_ascii_lowercase();
            let weight = weight.strip_prefix("q=").map_or(Ok(1.0), str::parse::<f64>);
            let taken = weight.is_ok_and(|q| q > 0.0);
            let name = name.trim();
            if name.eq_ignore_ascii_case("gzip") {
                return taken;
            }
            by_star |= name == "*" && taken;
        }
    }
    by_star
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
            ("gzip;Q=0", false),
            ("*, gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0, gzip", true),
            ("identity", false),
            ("xgzip", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(header);
            assert_eq!(is_accepted([&value]), accepted, "{header}");
        }
    }
}
