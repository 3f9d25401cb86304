//! QEMU's `-netdev stream`: frames, each with its length before it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use tokio::net::UnixStream;

use crate::gateway::Gateway;
use crate::limits::{INBOX, MAX_FRAME};

/// Carries frames both ways until QEMU is gone.
pub async fn run(gateway: &Rc<Gateway>, qemu: &UnixStream) -> io::Result<()> {
    let write = poll_fn(|context| gateway.out.borrow_mut().poll_write(qemu, context));
    tokio::select! {
        done = read(gateway, qemu) => done,
        error = write => if is_gone(&error) { Ok(()) } else { Err(error) },
    }
}

async fn read(gateway: &Rc<Gateway>, qemu: &UnixStream) -> io::Result<()> {
    let mut inbox = vec![0; INBOX + 4 + MAX_FRAME];
    let mut filled = 0;
    loop {
        qemu.readable().await?;
        let room = inbox.len().min(filled + INBOX);
        match qemu.try_read(&mut inbox[filled..room]) {
            Ok(0) => return Ok(()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let mut taken = 0;
        while let Some(end) = frame_end(&inbox[taken..filled])? {
            // A guest that does not take its answers asks no more questions until it does.
            room_for_answers(gateway).await;
            gateway.frame_in(&inbox[taken + 4..taken + end]);
            taken += end;
        }
        inbox.copy_within(taken..filled, 0);
        filled -= taken;
        // What was taken in moves on before more is taken.
        tokio::task::yield_now().await;
    }
}

/// Where the first frame ends, if all of it is there.
fn frame_end(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(len) = bytes.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_be_bytes(*len) as usize;
    if len > MAX_FRAME {
        let why = format!("a frame of {len} bytes, more than the {MAX_FRAME} that QEMU can send");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok((bytes.len() >= 4 + len).then_some(4 + len))
}

async fn room_for_answers(gateway: &Gateway) {
    poll_fn(|context| {
        let mut out = gateway.out.borrow_mut();
        if out.is_full() {
            out.wait(context.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_or_not_yet() {
        assert_eq!(frame_end(&[0, 0, 0]).unwrap(), None);
        assert_eq!(frame_end(&[0, 0, 0, 2, 1]).unwrap(), None);
        assert_eq!(frame_end(&[0, 0, 0, 2, 1, 2, 3]).unwrap(), Some(6));
        assert_eq!(frame_end(&[0, 0, 0, 0]).unwrap(), Some(4));
        assert!(frame_end(&[0xff; 8]).is_err());
    }
}
