//! The serial line: where the log goes, and where commands come from.
//!
//! COM1, 115200 baud, 8n1. Written in lots of a FIFO, with a bound on the wait, so that an absent or
//! stuck UART costs time but never stops the machine. Without a UART, port 0xe9 takes the text (Xen
//! and QEMU's debug console).

use super::port::{in8, out8};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use log::{LevelFilter, Log, Metadata, Record};

const BASE: u16 = 0x3f8;
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;
const DEBUG_CONSOLE: u16 = 0xe9;

/// Line status: an octet was received.
const RECEIVED: u8 = 1 << 0;
/// Line status: the transmit FIFO is empty.
const SENT: u8 = 1 << 5;
/// What an absent device reads as.
const ABSENT: u8 = 0xff;

/// Octets the transmit FIFO of a 16550 takes.
const FIFO: usize = 16;
/// Reads of the line status before a FIFO counts as stuck; at 115200 baud it empties in 1.4 ms.
const PATIENCE: u32 = 20_000;

static PRESENT: AtomicBool = AtomicBool::new(false);
/// The last wait ran out: do not wait again until the FIFO was seen empty.
static STUCK: AtomicBool = AtomicBool::new(false);
/// Input may be waiting that raised its interrupt already.
static UNREAD: AtomicBool = AtomicBool::new(true);

/// Sets the line up and makes it the log. Log lines below `level` are not written.
pub fn init(level: LevelFilter) {
    static LOGGER: Logger = Logger;
    out8(INTERRUPT_ENABLE, 0);
    out8(LINE_CONTROL, 0x80);
    out8(DATA, 1);
    out8(INTERRUPT_ENABLE, 0);
    out8(LINE_CONTROL, 3);
    // FIFOs on and empty, an interrupt at the first octet.
    out8(FIFO_CONTROL, 0x07);
    // DTR, RTS, and OUT2, which lets the interrupt through.
    out8(MODEM_CONTROL, 0x0b);
    PRESENT.store(in8(LINE_STATUS) != ABSENT, Relaxed);
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Lets input raise the line's interrupt.
pub fn enable_interrupt() {
    out8(INTERRUPT_ENABLE, 1);
}

/// The next octet that was received, if any. To be called until it returns `None` before sleeping:
/// the interrupt comes only when the FIFO turns from empty to not empty.
pub fn read() -> Option<u8> {
    let octet = (is_present() && in8(LINE_STATUS) & RECEIVED != 0).then(|| in8(DATA));
    UNREAD.store(octet.is_some(), Relaxed);
    octet
}

/// Whether `read` was left before it returned `None`.
pub fn is_unread() -> bool {
    UNREAD.load(Relaxed) && is_present()
}

fn is_present() -> bool {
    PRESENT.load(Relaxed)
}

/// Text for the line; a line feed goes out as CR LF, other control characters as `?`.
#[derive(Default)]
pub struct Writer {
    waiting: heapless::Vec<u8, FIFO>,
}

impl Writer {
    fn push(&mut self, octet: u8) {
        if self.waiting.is_full() {
            self.flush();
        }
        let _ = self.waiting.push(octet);
    }

    fn flush(&mut self) {
        if !is_present() {
            self.waiting.iter().for_each(|&octet| out8(DEBUG_CONSOLE, octet));
        } else if can_send() {
            self.waiting.iter().for_each(|&octet| out8(DATA, octet));
        }
        self.waiting.clear();
    }
}

/// Waits until the FIFO is empty, for as long as is sensible.
fn can_send() -> bool {
    let patience = if STUCK.load(Relaxed) { 1 } else { PATIENCE };
    let is_empty = (0..patience).any(|_| in8(LINE_STATUS) & SENT != 0);
    STUCK.store(!is_empty, Relaxed);
    is_empty
}

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for octet in text.bytes() {
            match octet {
                b'\n' => {
                    self.push(b'\r');
                    self.push(b'\n');
                }
                b'\t' => self.push(octet),
                _ if octet.is_ascii_control() => self.push(b'?'),
                _ => self.push(octet),
            }
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes one line that is not a log line, such as the answer to a command.
pub fn line(text: fmt::Arguments) {
    let mut writer = Writer::default();
    let _ = writer.write_fmt(text);
    let _ = writer.write_str("\n");
}

struct Logger;

/// The last module of a target's path; `weir` for the image itself.
fn module(target: &str) -> &str {
    match target.rsplit("::").next() {
        Some("weir_image") | None => "weir",
        Some(module) => module,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                log::Level::Error => "error",
                log::Level::Warn => "warn",
                log::Level::Info => "info",
                log::Level::Debug => "debug",
                log::Level::Trace => "trace",
            };
            line(format_args!("{level} {}: {}", module(record.target()), record.args()));
        }
    }

    fn flush(&self) {}
}
