//! The stack on real parts.
