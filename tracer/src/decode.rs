//! Bytes of the ring buffer to records.
