//! Ends a storm of processes, and proves it.
//!
//! A pid is not an identity. Every process is pinned by a pidfd first, checked after, and
//! signalled through the pidfd alone, so that a reused pid can never bring a stranger to harm.
//!
//! - [`target`]: what is to end, and within which bounds.
//! - [`guard`]: what is never touched, and which processes are a target (pure).
//! - `realm`: whose pid namespace a process lives in.
//! - [`pin`]: a process held by a pidfd; the only place that signals.
//! - [`sweep`]: one walk over /proc; [`survey`] counts without acting.
//! - `held`: the pinned and stopped processes; none of them is ever left stopped.
//! - `errand`: what all hands share: the target, the view of /proc, the bounds.
//! - `hand`: a thread that pins, checks, stops and kills what it meets.
//! - `calm`: whether scans that saw no process alive prove anything (pure).
//! - `storm`: the rounds, [`end_storm`].
//! - [`source()`]: where a storm comes from; only looks.
//! - [`report`]: what was done, and the verdict (pure).
//! - `step`: the step `kill_user_proc`; `run`: how it is taken; `facts`: its record on the status page.
//! - [`told`]: what an outcome says about it (pure).

mod calm;
mod errand;
mod facts;
pub mod guard;
mod hand;
mod held;
pub mod pin;
mod realm;
mod release;
pub mod report;
mod run;
mod source;
mod step;
mod storm;
pub mod sweep;
pub mod target;
pub mod told;

pub use release::{Released, release_stopped};
pub use report::{Changed, KillVerdict, Other, Replacement, Report, Traced, Zombie};
pub(crate) use run::was_interrupted;
pub use source::{Source, source, started_within};
pub(crate) use step::KillUserProc;
pub use storm::end_storm;
pub use sweep::{Survey, SurveyError, survey};
pub use target::{Bounds, Target};
