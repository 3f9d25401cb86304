use std::io;
use std::task::{Context, Poll, Waker};

use smoltcp::wire::{ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol};
use tokio::net::UnixStream;

use crate::address::{GATEWAY_MAC, GUEST_MAC};
use crate::limits::MAX_OUTBOX;

/// Bytes before an IP packet: QEMU's length, and the Ethernet header.
const AHEAD: usize = 4 + ETHERNET_HEADER_LEN;
/// What was written is cut off once it is this long, so that the bytes behind it are not moved for each frame.
const CUT: usize = 64 * 1024;

/// Frames on their way to QEMU, as its socket wants them.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    writer: Option<Waker>,
    waiting: Vec<Waker>,
}

impl Outbox {
    /// Whether TCP should wait.
    pub fn is_full(&self) -> bool {
        self.bytes.len() - self.written >= MAX_OUTBOX
    }

    /// Has a task woken when there is room again.
    pub fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    /// Adds an IP packet of `len` bytes that is made in place; its version says of which kind.
    pub fn packet<R>(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let made = self.frame(EthernetProtocol::Ipv4, len, fill);
        let start = self.bytes.len() - len;
        if self.bytes.get(start).is_some_and(|first| first >> 4 == 6) {
            EthernetFrame::new_unchecked(&mut self.bytes[start - ETHERNET_HEADER_LEN..])
                .set_ethertype(EthernetProtocol::Ipv6);
        }
        made
    }

    /// Adds a frame whose payload of `len` bytes is made in place.
    pub fn frame<R>(
        &mut self,
        protocol: EthernetProtocol,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        if self.written >= CUT {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + AHEAD + len, 0);
        let frame = &mut self.bytes[start..];
        // A frame is at most an IP packet, 64 KiB.
        #[expect(clippy::cast_possible_truncation)]
        frame[..4].copy_from_slice(&((ETHERNET_HEADER_LEN + len) as u32).to_be_bytes());
        let mut ethernet = EthernetFrame::new_unchecked(&mut frame[4..]);
        ethernet.set_src_addr(EthernetAddress(GATEWAY_MAC));
        ethernet.set_dst_addr(EthernetAddress(GUEST_MAC));
        ethernet.set_ethertype(protocol);
        let made = fill(&mut frame[AHEAD..]);
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        made
    }

    /// Writes what there is; ready only when QEMU is gone.
    pub fn poll_write(&mut self, qemu: &UnixStream, context: &mut Context<'_>) -> Poll<io::Error> {
        while self.written < self.bytes.len() {
            match qemu.try_write(&self.bytes[self.written..]) {
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match qemu.poll_write_ready(context) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(error),
                        Poll::Pending => break,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            // What an uncommon burst needed is given back. To give back more, at each drain, cost a tenth of the throughput in page
            // faults.
            self.bytes.shrink_to(2 * MAX_OUTBOX);
        }
        if self.bytes.len() - self.written < MAX_OUTBOX / 2 {
            self.waiting.drain(..).for_each(Waker::wake);
        }
        self.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Frames that have not been written, without QEMU's lengths.
    #[cfg(test)]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let mut rest = &self.bytes[self.written..];
        let mut frames = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            frames.push(frame.to_vec());
            rest = after;
        }
        frames
    }
}
