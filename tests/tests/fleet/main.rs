//! A fleet: hosts in namespaces, a pair of Prometheus, a cluster of Alertmanagers.
//!
//! - `eight`: eight hosts, for `make test`.

mod eight;
