//! What documents and scripts say and do.
//!
//! - `fuzzing`: the seeds of the fuzz targets.
//! - `plain_english`: phrases that documents must not contain.
//! - `readme`: files, modules and targets of make in the README and the project's papers.
//! - `tools`: `tests/tools.sh`.
//! - `totals`: `tests/totals.sh`.

mod fuzzing;
mod plain_english;
mod readme;
mod tools;
mod totals;
