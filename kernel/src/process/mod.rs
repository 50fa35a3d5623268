//! process

/// A user thread. (The full definition follows; see the names below.)
pub struct Thread;
