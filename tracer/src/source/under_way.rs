//! Whether who made a call is still there.

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use tracer_ebpf::under_way::Call;

use crate::decode::Pid as Number;

/// Whether the call's thread is there: one that is gone ended its call unseen. One of another PID namespace is taken to be.
pub fn is_there(call: &Call) -> bool {
    let number = Number::from(call.tid).here().and_then(|number| Pid::from_raw(number.cast_signed()));
    number.is_none_or(|thread| test_kill_process(thread) != Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::{process, thread};

    use super::*;

    #[test]
    fn a_thread_is_there_until_it_ends() {
        let call = |tid| Call { since_ns: 1, operation: 0, pid: process::id(), tid, comm: [0; 16] };
        let own = || rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        assert!(is_there(&call(own())));
        let (there, gone) = thread::spawn(move || (is_there(&call(own())), own())).join().unwrap();
        assert!(there);
        // Its number is given back a moment after it was joined.
        let ended = || {
            (0..1000).any(|_| {
                !is_there(&call(gone)) || {
                    thread::yield_now();
                    false
                }
            })
        };
        assert!(ended());
        assert!(is_there(&call(gone | tracer_ebpf::record::ELSEWHERE)));
    }
}
