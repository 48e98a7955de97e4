//! pinscope, as a library: the user-space side.
