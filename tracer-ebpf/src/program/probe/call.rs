//! Entry and return of the system call itself:
//!
//! ```c
//! long __x64_sys_io_uring_register(const struct pt_regs *);
//! ```
//!
//! It is entered for every opcode of `io_uring_register(2)`, and by nobody else.

use tracer_ebpf::{operation::Operation, record::Stage};

use super::{Arguments, entry, exit};
use crate::program::{calls, frame, session, settings::setting};

entry!(call_enter_kprobe, call_enter_fentry, |context| enter(context.member(0, setting!(offset.second_argument))));
exit!(call_exit_kretprobe, call_exit_fexit, || leave());

#[inline(always)]
fn enter(opcode: u32) {
    let Some(operation) = Operation::from_opcode(opcode) else { return };
    if !session::wants_current() {
        return frame::note_early();
    }
    // One that is lost is counted at the function's entry.
    let Some(frame) = frame::open() else { return };
    frame.early = 0;
    frame.call_ns = calls::begin(frame, operation);
}

/// The tracepoint has closed the frame as a rule; not where the kernel found no ring under the fd. One that is open missed it,
/// which the next call of the task counts.
#[inline(always)]
fn leave() {
    let Some(frame) = frame::current().filter(|frame| frame.call_ns != 0 || frame.place != 0) else { return };
    if frame.stage == Stage::Idle as u32 {
        return frame::close(frame);
    }
    calls::end(frame);
    frame.call_ns = 0;
}
