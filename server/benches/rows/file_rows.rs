//! Rows about files.

use std::time::Instant;

use bytes::Bytes;
use forkyard_protocol::RawPath;
use forkyard_server::guest::{Guest, GuestCall, WriteOptions};
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};

use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{Outcome, World, resident, words};

const MIB: u64 = 1 << 20;
const SIZE_MIB: u64 = 256;
const ROUNDS: usize = 3;
const PATH: &str = "/workspace/file";

fn rate(start: Instant) -> f64 {
    // A count of 256.
    #[allow(clippy::cast_precision_loss)]
    let size = SIZE_MIB as f64;
    size / start.elapsed().as_secs_f64()
}

/// A quarter gigabyte up and down through the SDK, against the bare channel, in MiB/s; memory of this process, which is
/// client and server both.
pub async fn file_256mb(world: &World) -> Outcome<[Measured; 2]> {
    let sandbox = world.machine().await?;
    let guest = world.guest(&sandbox)?;
    let local = world.dir.path().join("file");
    let back = world.dir.path().join("back");
    std::fs::write(&local, vec![7; usize::try_from(SIZE_MIB * MIB).map_err(words)?]).map_err(words)?;
    let before = resident();
    let mut peak = before;
    let (mut up, mut down, mut bare_up, mut bare_down) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        sandbox.files().upload(&local, PATH, None, None).await.map_err(words)?;
        up.push(rate(start));
        let start = Instant::now();
        sandbox.files().download(PATH, &back, None).await.map_err(words)?;
        down.push(rate(start));
        peak = peak.max(resident());
        let start = Instant::now();
        bare_write(&guest).await?;
        bare_up.push(rate(start));
        let start = Instant::now();
        bare_read(&guest).await?;
        bare_down.push(rate(start));
    }
    sandbox.terminate().await.map_err(words)?;
    let note = format!("memory grew by {} MiB", peak.saturating_sub(before) / MIB);
    let row = |row, ours, bare| Measured {
        row,
        unit: "MiB/s",
        goal: Goal::AtLeast(0.7),
        note: note.clone(),
        ..Measured::ms(ours, bare)
    };
    Ok([row("file_256mb_up", up, bare_up), row("file_256mb_down", down, bare_down)])
}

async fn bare_write(guest: &Guest) -> Outcome<()> {
    let piece = Bytes::from(vec![7; 256 * 1024]);
    let pieces = stream::iter((0..SIZE_MIB * 4).map(move |_| Ok(http_body::Frame::data(piece.clone()))));
    let body = StreamBody::new(pieces).boxed_unsync();
    let call = GuestCall::WriteFile(RawPath::new(PATH).map_err(words)?, WriteOptions::default(), body);
    let response = guest.send(call.into_request().map_err(words)?).await.map_err(words)?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("the agent answered {}", response.status()))
    }
}

async fn bare_read(guest: &Guest) -> Outcome<()> {
    let call = GuestCall::ReadFile(RawPath::new(PATH).map_err(words)?, None);
    let response = guest.send(call.into_request().map_err(words)?).await.map_err(words)?;
    let (mut body, mut read) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        read += frame.map_err(words)?.data_ref().map_or(0, Bytes::len);
    }
    if read as u64 == SIZE_MIB * MIB { Ok(()) } else { Err(format!("{read} bytes came")) }
}
