//! What documents and scripts say and do.
//!
//! - `fuzzing`: the seeds of the fuzz targets.
//! - `plain_english`: phrases that documents must not contain.
//! - `readme`: flags, files, targets of make, metrics in the README.
//! - `tools`: `tests/tools.sh`.
//! - `totals`: `tests/totals.sh`.

mod fuzzing;
mod plain_english;
mod readme;
mod tools;
mod totals;
