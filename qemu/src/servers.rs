//! What the simulated clients talk to: a web server and a DNS responder on the host's loopback.

use crate::dns;
use crate::error::{Context, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How soon a server notices that it shall end.
const NAP: Duration = Duration::from_millis(5);

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest request that is read.
const REQUEST_MAX: usize = 8192;

/// The addresses of those who asked, in order; proof that a request arrived.
type Guests = Arc<Mutex<Vec<SocketAddr>>>;

/// A server in a thread of its own, on a port that the system chose; ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    port: u16,
    guests: Guests,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `page` to every GET, over HTTP/1.0.
    ///
    /// # Errors
    /// The loopback has no port left.
    pub fn web(page: Vec<u8>) -> Result<Self> {
        let context = || "cannot start a web server on 127.0.0.1".to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(context)?;
        listener.set_nonblocking(true).context(context)?;
        let port = listener.local_addr().context(context)?.port();
        let page: Arc<[u8]> = page.into();
        Ok(Self::start(port, move |guests| match listener.accept() {
            Ok((stream, guest)) => {
                note(guests, guest);
                let page = Arc::clone(&page);
                // A client that went away is none of ours.
                thread::spawn(move || drop(serve(stream, &page)));
            }
            Err(_) => thread::sleep(NAP),
        }))
    }

    /// Answers questions for the address of `name` with `address`.
    ///
    /// # Errors
    /// The loopback has no port left.
    pub fn dns(name: &str, address: Ipv4Addr) -> Result<Self> {
        let context = || "cannot start a DNS responder on 127.0.0.1".to_owned();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context(context)?;
        socket.set_read_timeout(Some(NAP)).context(context)?;
        let port = socket.local_addr().context(context)?.port();
        let name = name.to_owned();
        Ok(Self::start(port, move |guests| {
            let mut octets = [0; dns::MESSAGE_MAX];
            let Ok((length, guest)) = socket.recv_from(&mut octets) else { return };
            if let Some(reply) =
                octets.get(..length).and_then(|question| dns::reply(question, &name, address))
            {
                note(guests, guest);
                // A lost reply is asked for again.
                let _ = socket.send_to(&reply, guest);
            }
        }))
    }

    fn start(port: u16, turn: impl Fn(&Guests) + Send + 'static) -> Self {
        let (guests, ends) = (Guests::default(), Arc::new(AtomicBool::new(false)));
        let (their_guests, their_end) = (Arc::clone(&guests), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            while !their_end.load(Ordering::Relaxed) {
                turn(&their_guests);
            }
        });
        Self { port, guests, ends, thread: Some(thread) }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who asked so far.
    pub fn guests(&self) -> Vec<SocketAddr> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there was shown already.
            let _ = thread.join();
        }
    }
}

/// Remembers the last ones; a demo may run for days.
fn note(guests: &Guests, guest: SocketAddr) {
    let mut guests = guests.lock().unwrap_or_else(PoisonError::into_inner);
    if guests.len() >= 4096 {
        guests.drain(..2048);
    }
    guests.push(guest);
}

fn serve(mut stream: TcpStream, page: &[u8]) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut octets = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut octets)?;
        if length == 0 || request.len() > REQUEST_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        request.extend_from_slice(octets.get(..length).unwrap_or_default());
    }
    if request.starts_with(b"GET /") {
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            page.len()
        )?;
        stream.write_all(page)
    } else {
        stream.write_all(b"HTTP/1.0 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    #[test]
    fn the_web_server_gives_the_page_and_remembers_the_guest() {
        let server = Server::web(b"the page".to_vec()).unwrap();
        let reply = ask(&server, "GET /x HTTP/1.0\r\n\r\n");
        assert!(reply.starts_with("HTTP/1.0 200") && reply.ends_with("\r\n\r\nthe page"), "{reply}");
        assert!(ask(&server, "PUT /x HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 405"));
        assert_eq!(server.guests().len(), 2);
    }

    #[test]
    fn the_dns_responder_knows_its_name() {
        let server = Server::dns("page.weir.example", Ipv4Addr::new(192, 0, 2, 1)).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
            .send_to(&dns::query(9, "page.weir.example").unwrap(), (Ipv4Addr::LOCALHOST, server.port()))
            .unwrap();
        let mut octets = [0; 512];
        let length = socket.recv(&mut octets).unwrap();
        assert_eq!(dns::answers(9, &octets[..length]), Some(vec![Ipv4Addr::new(192, 0, 2, 1)]));
        assert_eq!(server.guests(), [socket.local_addr().unwrap()]);
    }
}
