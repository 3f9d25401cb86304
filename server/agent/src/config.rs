use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forkyard_protocol::{ErrorBody, GuestConfig};

use crate::clock;
use crate::identity;
use crate::network;
use crate::reply::{internal, invalid};

/// Where processes look for programs when nobody says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the host said last.
#[derive(Default)]
pub struct Config(RwLock<Arc<GuestConfig>>);

impl Config {
    /// What holds now.
    pub fn get(&self) -> Arc<GuestConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the host's word; on a system of its own also puts seed, clock and names in place.
    pub fn apply(&self, config: GuestConfig, owns_system: bool) -> Result<(), ErrorBody> {
        let config = Arc::new(config);
        if owns_system {
            // Here, on the event loop: nothing else runs yet, and a thread more costs a cold guest milliseconds.
            change_system(&config)?;
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Resets the connections over the network card: whoever carried them is gone.
    pub fn reset_network(&self) -> Result<(), ErrorBody> {
        network::set(self.get().network)
            .map_err(|error| internal(&format!("the network could not be reset: {error}")))
    }

    /// Does what a network needs in advance, for forks that get one.
    pub fn prepare_network() -> Result<(), ErrorBody> {
        network::prepare().map_err(|error| internal(&format!("the network could not be prepared: {error}")))
    }

    /// The environment that every process starts from.
    pub fn base_env(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        env.extend(self.get().env.clone());
        env
    }
}

fn change_system(config: &GuestConfig) -> Result<(), ErrorBody> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| internal(&format!("{what}: {error}"))
    };
    let seed =
        STANDARD.decode(&config.seed_base64).map_err(|error| invalid(format!("seed_base64: {error}")))?;
    reseed(&seed).map_err(failed("the seed could not be fed"))?;
    clock::set(config.unix_time_ns, config.uptime_ns).map_err(failed("the clock could not be set"))?;
    network::set(config.network).map_err(failed("the network could not be set up"))?;
    identity::assume(config).map_err(failed("the machine's identity could not be put in place"))
}

/// Feeds fresh randomness to the kernel and has it used at once: after a fork all twins hold the same state.
fn reseed(seed: &[u8]) -> io::Result<()> {
    // linux/random.h: RNDADDENTROPY takes a header of two ints (bits, bytes) before the bytes; RNDRESEEDCRNG takes nothing.
    const RND_ADD_ENTROPY: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<[i32; 2]>(b'R', 0x03);
    const RND_RESEED_CRNG: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(b'R', 0x07);
    const MAX_SEED: usize = 256;
    let seed = seed.get(..MAX_SEED).unwrap_or(seed);
    let mut block = [0; 2 + MAX_SEED / 4];
    block[0] = i32::try_from(seed.len() * 8).unwrap_or_default();
    block[1] = i32::try_from(seed.len()).unwrap_or_default();
    for (word, bytes) in block[2..].iter_mut().zip(seed.chunks(4)) {
        let mut quad = [0; 4];
        quad[..bytes.len()].copy_from_slice(bytes);
        *word = i32::from_ne_bytes(quad);
    }
    let random = std::fs::File::options().write(true).open("/dev/urandom")?;
    // SAFETY: the operation reads `buf_size` bytes behind its header, all of them inside `block`.
    unsafe {
        let feed = rustix::ioctl::Setter::<RND_ADD_ENTROPY, [i32; 2 + MAX_SEED / 4]>::new(block);
        rustix::ioctl::ioctl(&random, feed)?;
        let reseed = rustix::ioctl::NoArg::<RND_RESEED_CRNG>::new();
        rustix::ioctl::ioctl(&random, reseed)?;
    }
    Ok(())
}
