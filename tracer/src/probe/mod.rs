//! From the facts of a kernel to attached programs: table, plan, attach, health.
