#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pinscope::fuzz::configuration(bytes));
