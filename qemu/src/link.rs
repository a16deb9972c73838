//! The host's end of a QEMU `stream` netdev: Ethernet frames over a unix stream socket, each behind its length.

use crate::error::{Context, Error, Result};
use crate::scratch::Scratch;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

/// The largest frame QEMU carries (`NET_BUFSIZE`).
pub const FRAME_MAX: usize = 4096 + 65536;

/// Frames that wait to be looked at before the reader stops reading.
const QUEUE: usize = 4096;

/// How long QEMU may leave a frame of ours unread before the link counts as broken.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// The direction of a frame, seen from the simulated host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Towards the appliance.
    Sent,
    /// From the appliance.
    Received,
}

/// Sees every frame that passes a link.
pub type Observer = Box<dyn FnMut(Way, &[u8]) + Send>;

/// Writes one frame with its length in front, big endian, in 4 octets.
///
/// # Errors
/// Empty and oversized frames are refused with `InvalidInput` (an empty one would stop QEMU's reader for good);
/// otherwise what writing gives.
pub fn write_frame(mut to: impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| ErrorKind::InvalidInput)?;
    if frame.is_empty() || frame.len() > FRAME_MAX {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut octets = Vec::with_capacity(frame.len() + 4);
    octets.extend_from_slice(&length.to_be_bytes());
    octets.extend_from_slice(frame);
    to.write_all(&octets)
}

/// Reads one frame.
///
/// # Errors
/// `InvalidData` when the length is none that QEMU writes; otherwise what reading gives.
pub fn read_frame(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| ErrorKind::InvalidData)?;
    if length == 0 || length > FRAME_MAX {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

/// Waits for QEMU to connect. It has to listen before QEMU starts.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    _scratch: Scratch,
}

impl Listener {
    /// Listens on a fresh socket.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let path = scratch.join("link");
        let socket = UnixListener::bind(&path).context(|| format!("cannot listen on {}", path.display()))?;
        socket.set_nonblocking(true).context(|| "cannot poll a socket".to_owned())?;
        Ok(Self { socket, path, _scratch: scratch })
    }

    /// What QEMU connects to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes QEMU's connection, if it has connected.
    ///
    /// # Errors
    /// The system has no sockets left.
    pub fn try_accept(&self) -> Result<Option<Link>> {
        match self.socket.accept() {
            Ok((stream, _)) => Link::new(stream).map(Some),
            Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(cause) => Err(Error::new(format!("cannot accept QEMU's connection: {cause}"))),
        }
    }
}

enum Event {
    Frame(Vec<u8>),
    Wake,
    Closed,
}

/// Ends a [`Link::wait`] from another thread.
#[derive(Clone)]
pub struct Waker(SyncSender<Event>);

impl Waker {
    /// Wakes the owner of the link.
    pub fn wake(&self) {
        // A full queue holds frames, which wake as well; a closed one has nobody to wake.
        let _ = self.0.try_send(Event::Wake);
    }
}

/// One end of a wire. Also a smoltcp [`Device`] without offloads: frames carry complete checksums both ways.
pub struct Link {
    stream: UnixStream,
    events: Receiver<Event>,
    waker: Waker,
    waiting: VecDeque<Vec<u8>>,
    observer: Option<Observer>,
    is_closed: bool,
}

impl Link {
    /// Takes over a connected socket; a thread of its own reads it.
    ///
    /// # Errors
    /// The socket cannot be shared with the reading thread.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let context = || "cannot set up a link".to_owned();
        stream.set_nonblocking(false).context(context)?;
        stream.set_write_timeout(Some(WRITE_PATIENCE)).context(context)?;
        let reading = stream.try_clone().context(context)?;
        let (sender, events) = mpsc::sync_channel(QUEUE);
        let waker = Waker(sender.clone());
        thread::Builder::new()
            .name("link".into())
            .spawn(move || read_all(reading, &sender))
            .context(context)?;
        Ok(Self { stream, events, waker, waiting: VecDeque::new(), observer: None, is_closed: false })
    }

    /// Two ends of a wire, without QEMU.
    ///
    /// # Errors
    /// The system has no sockets left.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, two) = UnixStream::pair().context(|| "cannot make a pair of sockets".to_owned())?;
        Ok((Self::new(one)?, Self::new(two)?))
    }

    /// Lets `observer` see every frame from now on, in both directions.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// A handle that ends [`Link::wait`].
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether the other end is gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed && self.waiting.is_empty()
    }

    /// Sends one frame, from the Ethernet header on and without a check sequence. A frame for a broken link is lost.
    pub fn send(&mut self, frame: &[u8]) {
        if let Some(observer) = &mut self.observer {
            observer(Way::Sent, frame);
        }
        match write_frame(&self.stream, frame) {
            Ok(()) => {}
            Err(cause) if cause.kind() == ErrorKind::InvalidInput => {}
            // After part of a frame the framing is lost, and with it the link.
            Err(_) => self.is_closed = true,
        }
    }

    /// Waits until there is a frame, a wake-up, the end of the link, or nothing for `timeout`; true when there is a
    /// frame to receive.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        if !self.waiting.is_empty() {
            return true;
        }
        match self.events.recv_timeout(timeout) {
            Ok(event) => self.take(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.is_closed = true,
        }
        !self.waiting.is_empty()
    }

    /// The next frame, if there is one already.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        while self.waiting.is_empty() {
            let event = self.events.try_recv().ok()?;
            self.take(event);
        }
        let frame = self.waiting.pop_front()?;
        if let Some(observer) = &mut self.observer {
            observer(Way::Received, &frame);
        }
        Some(frame)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Frame(frame) => self.waiting.push_back(frame),
            Event::Wake => {}
            Event::Closed => self.is_closed = true,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Ends the reading thread; a socket that is closed already is as good.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn read_all(mut from: UnixStream, to: &SyncSender<Event>) {
    while let Ok(frame) = read_frame(&mut from) {
        if to.send(Event::Frame(frame)).is_err() {
            return;
        }
    }
    // Nobody listens any more when this fails.
    let _ = to.send(Event::Closed);
}

/// A received frame.
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// The right to send a frame.
pub struct Sending<'a>(&'a mut Link);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = Link::receive(self)?;
        Some((Received(frame), Sending(self)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Sending<'_>> {
        (!self.is_closed).then_some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        // smoltcp counts the Ethernet header in.
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn the_length_is_four_octets_big_endian() {
        let mut octets = Vec::new();
        write_frame(&mut octets, &[7; 258]).unwrap();
        assert_eq!(octets[..5], [0, 0, 1, 2, 7]);
        assert_eq!(read_frame(&octets[..]).unwrap(), [7; 258]);
    }

    #[test]
    fn empty_and_oversized_frames_are_never_written() {
        let mut octets = Vec::new();
        for length in [0, FRAME_MAX + 1] {
            let refused = write_frame(&mut octets, &vec![0; length]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        }
        assert!(octets.is_empty());
    }

    #[test]
    fn lengths_that_qemu_never_writes_end_the_stream() {
        for octets in [[0, 0, 0, 0], [0xff; 4]] {
            assert_eq!(read_frame(&octets[..]).unwrap_err().kind(), ErrorKind::InvalidData);
        }
        assert_eq!(read_frame(&[0, 0, 0, 9, 1][..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn frames_cross_in_order_and_the_end_shows() {
        let (mut one, mut two) = Link::pair().unwrap();
        for length in 1..=100 {
            one.send(&vec![length; usize::from(length)]);
        }
        for length in 1..=100 {
            assert!(two.wait(SOON));
            assert_eq!(two.receive().unwrap(), vec![length; usize::from(length)]);
        }
        drop(one);
        assert!(!two.wait(SOON));
        assert!(two.is_closed());
    }

    #[test]
    fn a_waker_ends_a_wait() {
        let (one, _two) = Link::pair().unwrap();
        let waker = one.waker();
        let waiting = thread::spawn(move || {
            let mut one = one;
            let began = std::time::Instant::now();
            (one.wait(SOON), began.elapsed())
        });
        waker.wake();
        let (has_frame, waited) = waiting.join().unwrap();
        assert!(!has_frame && waited < SOON);
    }

    #[test]
    fn a_listener_gives_the_link_once_somebody_connects() {
        let listener = Listener::new().unwrap();
        assert!(listener.try_accept().unwrap().is_none());
        let stream = UnixStream::connect(listener.path()).unwrap();
        let mut link = listener.try_accept().unwrap().unwrap();
        write_frame(&stream, b"frame").unwrap();
        assert!(link.wait(SOON));
        assert_eq!(link.receive().unwrap(), b"frame");
    }

    #[test]
    fn an_observer_sees_both_ways() {
        let (mut one, mut two) = Link::pair().unwrap();
        let (sender, seen) = mpsc::channel();
        one.observe(Box::new(move |way, frame| sender.send((way, frame.to_vec())).unwrap()));
        one.send(b"out");
        assert!(two.wait(SOON));
        two.send(b"in");
        assert!(one.wait(SOON));
        one.receive();
        assert_eq!(
            seen.try_iter().collect::<Vec<_>>(),
            [(Way::Sent, b"out".to_vec()), (Way::Received, b"in".to_vec())]
        );
    }
}
