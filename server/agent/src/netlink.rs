//! The few messages of netlink that the agent speaks (netlink(7), rtnetlink(7), `sock_diag`(7)); each is acknowledged.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Of `nlmsghdr`: length, type, flags, sequence number and port.
const HEADER: usize = 16;
/// What one answer holds at most; the kernel fills pages.
const ANSWER: usize = 64 * 1024;

const REQUEST: u16 = 0x01;
const ACKNOWLEDGE: u16 = 0x04;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Make what is not there, and replace what is.
pub const PUT: u16 = 0x400 | 0x100;

/// A message that is put together.
pub struct Message(Vec<u8>);

impl Message {
    /// One of this kind, with this fixed part.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend(body);
        Self(bytes)
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        // No attribute here is longer than an address.
        #[expect(clippy::cast_possible_truncation)]
        let length = (4 + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(&self, more: u16) -> Vec<u8> {
        let mut bytes = self.0.clone();
        // Nor is any message.
        #[expect(clippy::cast_possible_truncation)]
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) | more;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }
}

/// A netlink socket.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one; without a protocol it is for addresses and routes.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Has things done, one after the other, all of them; the first failure is the answer.
    pub fn ask(&self, messages: &[Message]) -> io::Result<()> {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.finish(ACKNOWLEDGE)).collect();
        self.send(&bytes)?;
        // Each is acknowledged in a datagram of its own, and all have to be read.
        messages.iter().map(|_| self.answers(|_, _| ())).fold(Ok(()), io::Result::and)
    }

    /// Has something listed; `take` gets the body of each entry.
    pub fn list(&self, message: &Message, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(&message.finish(DUMP))?;
        self.answers(|_, body| take(body))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Reads until the acknowledgement or the list's end.
    fn answers(&self, mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; ANSWER];
        loop {
            let (count, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..count];
            while let Some((kind, body, next)) = split(rest) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => return outcome(body),
                    kind => take(kind, body),
                }
                rest = next;
            }
        }
    }
}

/// The first message's kind and body, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// What an error message says; zero is none.
fn outcome(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let bytes = Message::new(16, PUT, &[7; 4]).with(4, &[1, 2, 3]).finish(ACKNOWLEDGE);
        assert_eq!(bytes.len(), 16 + 4 + 8);
        assert_eq!(u32::from_ne_bytes(*bytes.first_chunk().unwrap()), 28);
        assert_eq!(u16::from_ne_bytes([bytes[6], bytes[7]]), PUT | REQUEST | ACKNOWLEDGE);
        assert_eq!(bytes[20..], [7, 0, 4, 0, 1, 2, 3, 0]);
        let (kind, body, rest) = split(&bytes).unwrap();
        assert_eq!((kind, body.len(), rest.len()), (16, 12, 0));
        assert!(split(&bytes[..20]).is_none() && split(&[]).is_none());
    }

    #[test]
    fn the_kernel_understands_them() {
        let netlink = Netlink::open(None).unwrap();
        let mut links = 0;
        // RTM_GETLINK, for every family.
        netlink.list(&Message::new(18, 0, &[0; 16]), |_| links += 1).unwrap();
        assert!(links >= 1, "loopback at least");
        // A link that is not there.
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let error = netlink.ask(&[Message::new(16, 0, &body), Message::new(16, 0, &body)]).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
        // Both answers were read: the next is that of the next question.
        netlink.list(&Message::new(18, 0, &[0; 16]), |_| ()).unwrap();
    }
}
