//! The fuzz targets without libFuzzer: seeded mutations, so that every test run tries some on a stable compiler. The same bytes
//! each time; `FORKYARD_FUZZ_SECS=600` goes on for so long with each target. With coverage, see `fuzz/src/lib.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, missing_docs)]
mod targets;

use forkyard_gateway::dns::message::{Asked, Resolution, read_answer, read_query};
use forkyard_gateway::sniff::{Sniffed, sniff};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use targets::{TARGETS, Target, frames};

/// Inputs of each target, and how long they may take at the most on a slow machine.
const INPUTS: usize = 20_000;
const PATIENCE: Duration = Duration::from_millis(1200);

#[test]
fn no_bytes_do_what_they_must_not() {
    let longer =
        std::env::var("FORKYARD_FUZZ_SECS").ok().map(|text| text.parse().expect("a number of seconds"));
    for target in TARGETS {
        for seed in target.seeds {
            run(target, seed);
        }
        let (inputs, patience) = match longer {
            Some(seconds) => (usize::MAX, Duration::from_secs(seconds)),
            None => (INPUTS, PATIENCE),
        };
        let end = Instant::now() + patience;
        let mut random = fastrand::Rng::with_seed(0x00f0_4b1d);
        for _ in 0..inputs {
            run(target, &mutated(target, &mut random));
            if Instant::now() >= end {
                break;
            }
        }
    }
}

/// Seeds that are refused at the door would try the door alone.
#[test]
fn the_seeds_are_what_they_say() {
    for query in [targets::A_QUERY, targets::HTTPS_QUERY] {
        assert!(matches!(read_query(query), Asked::Question(_)), "{}", query.escape_ascii());
    }
    let query = Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::A);
    let read = |bytes| Resolution::read(&read_answer(bytes, 0x1234, &query).unwrap(), &query).unwrap();
    assert_eq!(read(targets::A_ANSWER).records.len(), 3);
    let nothing = read(targets::NO_DATA);
    assert_eq!((nothing.code, nothing.ttl), (ResponseCode::NXDomain, Duration::from_mins(1)));
    let name = Some("a.example".to_owned());
    assert_eq!(sniff(targets::HELLO), Sniffed::Tls { sni: name.clone() });
    assert_eq!(sniff(targets::REQUEST), Sniffed::Http { host: name });
}

#[test]
fn the_frames_are_what_they_say() {
    // What is said: its Ethernet type, and its IP protocol where it has one.
    let said = |steps| -> Vec<([u8; 2], u8)> {
        let kind = |frame: &[u8]| match [frame[12], frame[13]] {
            [8, 0] => ([8, 0], frame[23]),
            [0x86, 0xdd] => ([0x86, 0xdd], frame[20]),
            other => (other, 0),
        };
        frames::answers(steps).iter().map(|frame| kind(frame)).collect()
    };
    assert_eq!(said(frames::NEIGHBOURS), [([8, 6], 0), ([0x86, 0xdd], 58)]);
    assert_eq!(said(frames::PINGS), [([8, 0], 1), ([0x86, 0xdd], 58)]);
    assert_eq!(said(frames::REFUSED), [([8, 0], 1), ([8, 0], 6), ([8, 0], 1)]);
    assert_eq!(said(frames::QUERY), [([8, 0], 17)]);
    let data = |frame: &Vec<u8>| frame[34 + usize::from(frame[46] >> 4) * 4..].to_vec();
    let heard: Vec<u8> = frames::answers(frames::CONVERSATION).iter().flat_map(data).collect();
    assert_eq!(heard[2..4], targets::A_QUERY[..2], "the answer to the query");
    for (message, kind) in [(frames::DISCOVER, 2), (frames::REQUEST, 6)] {
        let replies = frames::dhcp_replies(message);
        assert_eq!(replies[0][240..243], [0x35, 1, kind], "{replies:x?}");
    }
}

fn run(target: &Target, bytes: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    assert!(outcome.is_ok(), "{} fails on {}", target.name, bytes.escape_ascii());
}

/// A seed after a few accidents.
fn mutated(target: &Target, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = random.choice(target.seeds).expect("a seed").to_vec();
    for _ in 0..random.usize(1..8) {
        let at = random.usize(..=bytes.len());
        let end = at + random.usize(..=(bytes.len() - at).min(32));
        match random.u8(..9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, random.u8(..)),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let other = random.choice(target.seeds).expect("a seed");
                bytes.splice(at..end, other[random.usize(..other.len())..].iter().copied());
            }
            5 => bytes[at..end]
                .fill(*random.choice(&[0, 1, 0x0d, 0x20, 0x7f, 0x80, 0xc0, 0xff]).expect("a byte")),
            6 if bytes.len() < 20_000 => {
                let byte = random.u8(..);
                bytes.resize(bytes.len() + random.usize(..20_000), byte);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.u8(..8);
                }
            }
        }
    }
    bytes
}
