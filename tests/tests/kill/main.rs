//! Real storms of processes and the library that ends them.
//!
//! - `basics`: exactly the storm ends, and it is proven.
//! - `circumstances`: stuck, frozen and hidden processes, missing rights.
//! - `grace`: SIGTERM, time to exit, then SIGKILL.
//! - `opponents`: storms that fight back.
//! - `reuse`: pids that go to strangers.
//! - `told`: what people hear of storms in containers.

mod basics;
mod circumstances;
mod grace;
mod opponents;
mod reuse;
mod told;
