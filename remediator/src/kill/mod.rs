//! Ends a storm of processes, and proves it.
