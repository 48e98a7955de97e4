//! The facts of the running kernel, as one value.
