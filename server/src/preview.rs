//! Addresses that reach a port without a key: signed, and good until they expire.

use std::io::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forkyard_protocol::{ErrorBody, ErrorCode, SandboxId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Bytes of the key that previews are signed with.
const KEY_LEN: usize = 32;

/// What this key signs, so that no signature means anything else.
const PURPOSE: &str = "forkyard preview 1";

/// Signs previews and knows its own signatures again.
#[derive(Clone)]
pub struct Previews(Hmac<Sha256>);

impl Previews {
    /// Takes the key in this file, which only its owner may read; makes one where there is none. Without the file every preview
    /// that was given out ends.
    pub fn open(file: &Path) -> io::Result<Self> {
        let key = match std::fs::read(file) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(file)?,
            Err(error) => return Err(error),
        };
        if key.len() != KEY_LEN {
            let message =
                format!("{} does not hold {KEY_LEN} bytes; delete it to have another made", file.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(Hmac::new_from_slice(&key).map_err(io::Error::other)?))
    }

    /// A word that names a port of a machine until then, in seconds since 1970.
    pub fn sign(&self, id: &SandboxId, port: u16, expires: u64) -> String {
        let claim = format!("{id}.{port}.{expires}");
        let signature = self.mac(&claim).finalize().into_bytes();
        format!("{claim}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The port that such a word names, if this server signed it and its time is not up.
    pub fn check(&self, token: &str, now: u64) -> Result<(SandboxId, u16), ErrorBody> {
        let refused = |message: &str| ErrorBody::new(ErrorCode::Unauthenticated, message);
        let unknown = || refused("this is no preview of this server's");
        let (claim, signature) = token.rsplit_once('.').ok_or_else(unknown)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| unknown())?;
        // Compares in constant time.
        self.mac(claim).verify_slice(&signature).map_err(|_| unknown())?;
        let mut fields = claim.split('.');
        let (Some(id), Some(port), Some(expires)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(unknown());
        };
        let id = SandboxId::parse(id).map_err(|_| unknown())?;
        let (port, expires) =
            (port.parse().map_err(|_| unknown())?, expires.parse::<u64>().map_err(|_| unknown())?);
        if now >= expires {
            return Err(refused("this preview has expired; whoever gave it out can make another"));
        }
        Ok((id, port))
    }

    fn mac(&self, claim: &str) -> Hmac<Sha256> {
        self.0.clone().chain_update(PURPOSE).chain_update([0]).chain_update(claim)
    }
}

fn make_key(file: &Path) -> io::Result<Vec<u8>> {
    let key = crate::random::bytes::<KEY_LEN>().map_err(io::Error::other)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    // Beside, and only its owner's; whoever reads finds all of it or nothing.
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(&key)?;
    beside.as_file().sync_all()?;
    beside.persist(file).map_err(|error| error.error)?;
    Ok(key.to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn id() -> SandboxId {
        SandboxId::parse("sbx_01M89KZKX9VJW2TDSPNPVTQB92").unwrap()
    }

    #[test]
    fn a_signature_holds_for_what_was_signed_and_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("preview-key");
        let previews = Previews::open(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let token = previews.sign(&id(), 8000, 1000);
        assert_eq!(previews.check(&token, 999).unwrap(), (id(), 8000));
        let expired = previews.check(&token, 1000).unwrap_err();
        assert!(expired.message.contains("expired"), "{expired}");
        for (from, to) in [(".8000.", ".8001."), (".1000.", ".9000."), ("QB92", "QB93")] {
            let forged = previews.check(&token.replace(from, to), 0).unwrap_err();
            assert_eq!(forged.code, ErrorCode::Unauthenticated);
        }
        for broken in ["", ".", "a.b.c.d", &token[..token.len() - 1], &format!("{token}A")] {
            assert!(previews.check(broken, 0).is_err(), "{broken}");
        }
        // The same key after a restart, another one elsewhere.
        assert!(Previews::open(&file).unwrap().check(&token, 0).is_ok());
        assert!(Previews::open(&dir.path().join("other")).unwrap().check(&token, 0).is_err());
        std::fs::write(&file, "short").unwrap();
        assert!(Previews::open(&file).is_err());
    }
}
