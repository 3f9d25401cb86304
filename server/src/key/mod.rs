//! API keys: `fy_<id>_<secret>`. The secret has 256 random bits and is kept as its SHA-256 alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forkyard_protocol::{
    CreateKey, CreatedKey, ErrorBody, ErrorCode, KeyId, KeyInfo, KeyList, ProjectId, Resource, Scope,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::now_ms;
use crate::image::hex;
use crate::quota::TokenBucket;
use crate::store::{Expect, Store, StoreError};

const BUCKET: &str = "keys";

/// A key as the store holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredKey {
    info: KeyInfo,
    secret_sha256: String,
}

struct LiveKey {
    stored: StoredKey,
    bucket: TokenBucket,
}

/// The keys of this server, all in memory; every change is in the store before it counts.
pub struct Keys {
    store: Arc<dyn Store>,
    live: Mutex<HashMap<KeyId, LiveKey>>,
}

impl Keys {
    /// Reads the keys from the store.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let mut live = HashMap::new();
        for entry in store.list(BUCKET).await? {
            let stored: StoredKey = serde_json::from_slice(&entry.value)
                .map_err(|error| StoreError::Failed(format!("key {}: {error}", entry.key)))?;
            live.insert(stored.info.key_id.clone(), LiveKey::new(stored));
        }
        Ok(Self { store, live: Mutex::new(live) })
    }

    /// Whether there is no key at all: the server's first start.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Makes a key. The answer holds its secret, which nothing else ever shows.
    pub async fn create(&self, request: CreateKey, project: ProjectId) -> Result<CreatedKey, ErrorBody> {
        if request.description.len() > 128 || request.description.chars().any(char::is_control) {
            return Err(ErrorBody::new(
                ErrorCode::InvalidArgument,
                "description must be at most 128 bytes without control characters",
            ));
        }
        let ulid = ulid::Ulid::generate().to_string();
        let key_id = KeyId::parse(&format!("{}{ulid}", KeyId::PREFIX))
            .map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))?;
        let secret = URL_SAFE_NO_PAD.encode(crate::random::bytes::<32>()?);
        let info = KeyInfo {
            key_id: key_id.clone(),
            project: request.project.unwrap_or(project),
            scope: request.scope,
            description: request.description,
            max_sandboxes: request.max_sandboxes,
            requests_per_second: request.requests_per_second,
            created_at_ms: now_ms(),
        };
        let stored = StoredKey { info: info.clone(), secret_sha256: digest(&secret) };
        let value = serde_json::to_vec(&stored).map_err(|error| internal(&error))?;
        self.store
            .put(BUCKET, key_id.to_string(), value, Expect::Absent)
            .await
            .map_err(|error| internal(&error))?;
        self.lock().insert(key_id, LiveKey::new(stored));
        Ok(CreatedKey { api_key: format!("fy_{ulid}_{secret}"), info })
    }

    /// The keys, oldest first.
    pub fn list(&self) -> KeyList {
        let mut keys: Vec<KeyInfo> = self.lock().values().map(|key| key.stored.info.clone()).collect();
        keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        KeyList { keys }
    }

    /// Revokes a key at once. Machines made with it go on.
    pub async fn revoke(&self, key_id: &KeyId) -> Result<(), ErrorBody> {
        if !self.lock().contains_key(key_id) {
            return Err(
                ErrorBody::new(ErrorCode::NotFound, format!("there is no key {key_id}")).about(Resource::Key)
            );
        }
        self.store.delete(BUCKET, key_id.to_string(), Expect::Any).await.map_err(|error| internal(&error))?;
        self.lock().remove(key_id);
        Ok(())
    }

    /// Whose key this is. Also counts the request against the key's rate.
    pub fn authenticate(&self, api_key: &str) -> Result<KeyInfo, ErrorBody> {
        let refused =
            || ErrorBody::new(ErrorCode::Unauthenticated, "the API key is not known here, or was revoked");
        let (ulid, secret) =
            api_key.strip_prefix("fy_").and_then(|rest| rest.split_once('_')).ok_or_else(refused)?;
        let key_id = KeyId::parse(&format!("{}{ulid}", KeyId::PREFIX)).map_err(|_| refused())?;
        let mut live = self.lock();
        let key = live.get_mut(&key_id).ok_or_else(refused)?;
        // Digests are compared, so the time this takes says nothing about the secret.
        if key.stored.secret_sha256 != digest(secret) {
            return Err(refused());
        }
        key.bucket.take(Instant::now()).map_err(|wait| {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = key.stored.info.requests_per_second;
            ErrorBody::new(ErrorCode::RateLimited, format!("this key may make {rate} requests a second"))
                .retry_after_ms(millis)
        })?;
        Ok(key.stored.info.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<KeyId, LiveKey>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveKey {
    fn new(stored: StoredKey) -> Self {
        let bucket = TokenBucket::new(stored.info.requests_per_second, Instant::now());
        Self { stored, bucket }
    }
}

/// Refuses what only an admin may do.
pub fn require_admin(caller: &KeyInfo) -> Result<(), ErrorBody> {
    if caller.scope == Scope::Admin {
        return Ok(());
    }
    Err(ErrorBody::new(ErrorCode::PermissionDenied, "this needs a key with scope 'admin'"))
}

fn digest(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn internal(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    async fn keys(dir: &std::path::Path) -> Keys {
        Keys::load(Arc::new(SqliteStore::open(&dir.join("store.sqlite")).unwrap())).await.unwrap()
    }

    fn project() -> ProjectId {
        ProjectId::parse("prj_default").unwrap()
    }

    #[tokio::test]
    async fn a_key_works_until_it_is_revoked_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let keys_a = keys(dir.path()).await;
        assert!(keys_a.is_empty());
        let made = keys_a.create(CreateKey::default(), project()).await.unwrap();
        assert_eq!(keys_a.authenticate(&made.api_key).unwrap(), made.info);
        let mut wrong = made.api_key.clone();
        wrong.pop();
        for bad in ["", "fy_", "fy_x_y", "Bearer", &wrong, &format!("{}x", made.api_key)] {
            assert_eq!(keys_a.authenticate(bad).unwrap_err().code, ErrorCode::Unauthenticated, "{bad}");
        }
        let file = std::fs::read(dir.path().join("store.sqlite-wal")).unwrap();
        // It may hold underscores of its own.
        let secret = made.api_key.splitn(3, '_').nth(2).unwrap().as_bytes();
        assert!(!file.windows(secret.len()).any(|window| window == secret), "the secret is on disk");

        let again = keys(dir.path()).await;
        assert_eq!(again.authenticate(&made.api_key).unwrap(), made.info);
        again.revoke(&made.info.key_id).await.unwrap();
        assert_eq!(again.authenticate(&made.api_key).unwrap_err().code, ErrorCode::Unauthenticated);
        assert_eq!(again.revoke(&made.info.key_id).await.unwrap_err().code, ErrorCode::NotFound);
    }

    #[tokio::test]
    async fn a_key_has_a_rate() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(dir.path()).await;
        let request = CreateKey { requests_per_second: 1, ..CreateKey::default() };
        let made = keys.create(request, project()).await.unwrap();
        let refused = (0..20).find_map(|_| keys.authenticate(&made.api_key).err()).unwrap();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert!(refused.retry_after_ms.is_some_and(|millis| millis > 0));
    }
}
