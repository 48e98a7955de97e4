//! Raw arguments, and the validated configuration made of them.
