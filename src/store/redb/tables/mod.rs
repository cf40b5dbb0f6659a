//! The tables by conversation.

pub(crate) mod index;
pub(crate) mod meta;
pub(crate) mod read;
pub(crate) mod record;
