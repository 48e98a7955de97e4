//! From a finished buffer or call to the maps, and to the ring buffer where a session asks. What counts, notes or sends one
//! thing lies in a file of its own beside this folder, and knows nothing of it.

mod buffer;
mod call;

pub use buffer::{NOT_RETURNED, buffer, settle_deferred_buffer};
pub use call::{registration, settle};
