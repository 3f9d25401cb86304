//! What guests with a network get of the operator's: whom to trust, and through whom to reach the outside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use forkyard_gateway::policy::{GivenNames, Operator, Policy, Protocol, Verdict};
use forkyard_protocol::{GuestFile, NetworkPolicy};
use http::Uri;
use sha2::{Digest as _, Sha256};
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::image::hex;

/// The trust store, on the host and in guests: Debian's.
const TRUST_STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What names the trust store to programs that bring one of their own.
const TRUST: [&str; 4] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"];

/// Bytes that a trust store may have: it goes to a guest in one message of at most a mebibyte.
const MAX_TRUST: u64 = 768 * 1024;

/// Variables of the server's own environment that name proxies; programs read them in either case.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// How long the host's resolver has to say where a name leads.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Environment and files for guests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Environment of every process; the caller's own wins.
    pub env: BTreeMap<String, String>,
    /// Files. Templates have them already.
    pub files: Vec<GuestFile>,
}

/// What guests with a network get: the host's trust store and its proxies.
pub async fn given_to_guests(operator: &Operator) -> Given {
    let mut env = reachable(of_environment(&PROXIES), operator).await;
    if !env.is_empty() {
        env.extend(of_environment(&NO_PROXY));
    }
    let source = std::env::var_os("SSL_CERT_FILE").map_or_else(|| PathBuf::from(TRUST_STORE), PathBuf::from);
    let read = std::fs::metadata(&source).and_then(|found| {
        if found.len() > MAX_TRUST {
            return Err(std::io::Error::other(format!("it has more than {MAX_TRUST} bytes")));
        }
        std::fs::read_to_string(&source)
    });
    let files = match read {
        Ok(content) => {
            env.extend(TRUST.map(|name| (name.to_owned(), TRUST_STORE.to_owned())));
            let digest = hex(&Sha256::digest(&content));
            let path = TRUST_STORE.to_owned();
            vec![GuestFile { path, mode: 0o644, digest, content: Some(content) }]
        }
        Err(error) => {
            tracing::warn!(file = %source.display(), %error, "guests get no trust store of the host's");
            Vec::new()
        }
    };
    Given { env, files }
}

/// These variables of the server's own environment, as far as they are set.
pub fn of_environment(names: &[&str]) -> BTreeMap<String, String> {
    let set = names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    set.filter(|(_, value)| !value.is_empty()).collect()
}

/// Leaves out what names an address that no guest can reach: a program that heeds it would only fail. What names none stays, and
/// so does what the host's resolver does not know.
pub async fn reachable(mut env: BTreeMap<String, String>, operator: &Operator) -> BTreeMap<String, String> {
    let open = NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() };
    let Ok(policy) = Policy::new(&open, operator) else { return env };
    let mut unreachable = Vec::new();
    for (name, value) in &env {
        for (host, port) in value.split_whitespace().filter_map(destination) {
            let found = timeout(LOOK_UP, lookup_host((host.as_str(), port))).await;
            let addresses: Vec<SocketAddr> = found.ok().and_then(Result::ok).into_iter().flatten().collect();
            if !addresses.is_empty() && addresses.iter().all(|to| !leads_out(&policy, *to)) {
                // The value may hold a password.
                tracing::warn!(
                    name,
                    "guests do not get this variable: it names an address that they cannot reach"
                );
                unreachable.push(name.clone());
                break;
            }
        }
    }
    env.retain(|name, _| !unreachable.contains(name));
    env
}

fn leads_out(policy: &Policy, to: SocketAddr) -> bool {
    let verdict = policy.decide(Protocol::Tcp, to, &GivenNames::default(), Instant::now());
    !matches!(verdict, Verdict::Refuse { .. })
}

/// Where an address leads: `https://user:password@host:port/path`, or `host:port`.
fn destination(value: &str) -> Option<(String, u16)> {
    let uri: Uri = value.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some((host, uri.port_u16().unwrap_or(usual)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_found_in_what_operators_write() {
        let found = |value| destination(value).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(found("https://user:secret@mirror.example/simple").as_deref(), Some("mirror.example 443"));
        assert_eq!(found("http://127.0.0.1:3141/").as_deref(), Some("127.0.0.1 3141"));
        assert_eq!(found("http://[::1]:3128").as_deref(), Some("::1 3128"));
        assert_eq!(found("proxy:3128").as_deref(), Some("proxy 3128"));
        assert_eq!(found("/a/path"), None);
    }

    #[tokio::test]
    async fn what_leads_to_the_host_itself_is_left_out() {
        let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let all = env(&[
            ("A", "http://127.0.0.1:3128"),
            ("B", "http://8.8.8.8:3128"),
            ("C", "http://10.1.2.3 https://8.8.8.8/simple"),
            ("D", "some.host"),
        ]);
        let kept = |operator: Operator| {
            let all = all.clone();
            async move { reachable(all, &operator).await.into_keys().collect::<String>() }
        };
        let nothing = Operator::default();
        assert_eq!(kept(nothing).await, "BD");
        let opened = Operator { extra_allow: vec!["127.0.0.1:3128".to_owned()], ..Operator::default() };
        assert_eq!(kept(opened).await, "ABD");
    }
}
