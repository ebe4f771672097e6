//! Saves a user's mail file.
