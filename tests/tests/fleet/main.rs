//! A fleet: hosts in namespaces, a pair of Prometheus, a cluster of Alertmanagers.
//!
//! - `eight`: eight hosts, for `make test`.
//! - `twenty`: twenty hosts, and what fails in a fleet, for `make field`.

mod eight;
mod twenty;
