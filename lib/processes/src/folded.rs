//! What the exporter calls the processes that it adds together, in the labels of its series. The
//! remediator acts on none of these: each stands for several commands, or for several users.

/// A user's small groups, as a command. The kernel keeps 15 bytes of a name, and this one has 16, so no
/// process can have it: no storm can hide behind it, and no user can forge it.
pub const SMALL: &str = "(smaller-groups)";

/// The users who have few processes in all, as a user.
pub const SMALL_USERS: &str = "(smaller-users)";

/// What is beyond the limits on series, as a command and as a user.
pub const OTHER: &str = "(other)";
