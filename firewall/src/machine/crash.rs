//! Defects on demand: `crash=panic|exception|stack` on the command line, so that tests see the
//! reports.

use core::arch::asm;
use core::hint::black_box;

/// Does what the word says; returns if it says nothing known.
pub fn on_demand(word: &str) {
    match word {
        "panic" => panic!("asked for by the command line"),
        // SAFETY: an undefined instruction; it ends in the exception report, which does not return.
        "exception" => unsafe { asm!("ud2") },
        "stack" => {
            black_box(overflow(0));
        }
        _ => log::warn!("unknown crash word={word}"),
    }
}

/// Calls itself until the stack ends.
#[expect(unconditional_recursion, reason = "the guard page is what is asked for")]
fn overflow(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    overflow(depth + 1) + room[0]
}
