//! A host with an outside, both of this test alone: two network namespaces and a cable between. Nothing of the real host's is
//! touched, and an address outside may be any: a private network's, a cloud's metadata service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The host's own addresses.
pub const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1))];
/// Whom the host asks for names.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Where machines may go: a server of one page.
pub const PAGE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 7))];
/// The names that its certificate is for; a resolver that is honest about them knows where they lead.
pub const NAMES: [&str; 2] = ["good.test", "bad.test"];

/// What is outside too, for whoever gets that far: whole networks, each of whose addresses answers.
const NETWORKS: [&str; 8] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
];
const NETWORKS6: [&str; 5] = ["64:ff9b::/32", "2001:0::/32", "2001:db8:2::/48", "2002::/16", "fd00::/8"];

/// The outside, as long as this lives.
pub struct Outside {
    /// The certificate of the authority that the page's is of.
    pub authority: String,
    _end: Sender<()>,
}

impl Outside {
    /// Takes this thread, and those that it will start, to a host with an outside of its own. `None` where the kernel does not
    /// let it.
    pub fn new() -> Option<Self> {
        if !unshare() {
            return None;
        }
        let (tell, told) = channel();
        let (end, ended) = channel();
        let (wire, wired) = channel();
        std::thread::spawn(move || outside(&tell, &wired, &ended));
        let Said::Namespace(namespace) = told.recv().unwrap() else { panic!("it says who it is first") };
        ip("link set lo up");
        ip(&format!("link add out type veth peer name in netns {namespace}"));
        ip(&format!("address add {}/24 dev out", HOST[0]));
        ip(&format!("address add {}/64 dev out nodad", HOST[1]));
        ip("link set out up");
        wire.send(()).unwrap();
        let Said::Serving(authority) = told.recv().unwrap() else { panic!("it serves then") };
        ip(&format!("route add default via {RESOLVER}"));
        ip("route add default via 2001:db8:1::2");
        Some(Self { authority, _end: end })
    }
}

fn unshare() -> bool {
    // SAFETY: no descriptors are split off, and what namespace a thread is in is nothing that Rust relies on.
    match unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
        Ok(()) => true,
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS) => false,
        Err(error) => panic!("no network namespace: {error}"),
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().expect("iproute2 is there");
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

enum Said {
    Namespace(String),
    Serving(String),
}

fn outside(tell: &Sender<Said>, wired: &Receiver<()>, ended: &Receiver<()>) {
    assert!(unshare(), "a second namespace, where there was a first");
    let thread = rustix::thread::gettid().as_raw_nonzero();
    tell.send(Said::Namespace(format!("/proc/{}/task/{thread}/ns/net", std::process::id()))).unwrap();
    wired.recv().unwrap();
    ip("link set lo up");
    ip(&format!("address add {RESOLVER}/24 dev in"));
    ip("address add 2001:db8:1::2/64 dev in nodad");
    ip("link set in up");
    for network in NETWORKS {
        ip(&format!("route add local {network} dev lo"));
    }
    for network in NETWORKS6 {
        ip(&format!("-6 route add local {network} dev lo"));
    }
    let (authority, tls) = certificates();
    for port in [80, 443] {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        let tls = (port == 443).then(|| tls.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls) = (stream.unwrap(), tls.clone());
                std::thread::spawn(move || page(stream, tls));
            }
        });
    }
    let socket = UdpSocket::bind((RESOLVER, 53)).unwrap();
    std::thread::spawn(move || resolver(&socket));
    tell.send(Said::Serving(authority)).unwrap();
    // The namespace is this thread's, and goes with it and its servers' threads.
    let _ = ended.recv();
}

/// An authority of this test's, and what a server of its needs.
fn certificates() -> (String, Arc<ServerConfig>) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    // Certificates' own default is one name for all: OpenSSL would take the page's for its own authority.
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let own = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = NAMES.map(str::to_owned).into();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (own.pem(), Arc::new(config))
}

/// A web server of one page.
fn page(mut stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
    match tls {
        Some(tls) => answer(&mut StreamOwned::new(ServerConnection::new(tls).unwrap(), stream)),
        None => answer(&mut stream),
    }
}

fn answer(stream: &mut (impl std::io::Read + std::io::Write)) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count @ 1..) => request.extend(&piece[..count]),
            // Whoever asked may be gone.
            _ => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
}

/// A resolver that is honest about the page's names, and about others what they say.
fn resolver(socket: &UdpSocket) {
    let elsewhere = UdpSocket::bind((RESOLVER, 0)).unwrap();
    let mut query = [0; 2048];
    let turns = [AtomicUsize::new(0), AtomicUsize::new(0)];
    loop {
        let (count, from) = socket.recv_from(&mut query).unwrap();
        // The question ends behind its name's last, empty label with a type and a class.
        let name_end = 12 + query[12..count].iter().position(|byte| *byte == 0).unwrap();
        let label = &query[13..13 + usize::from(query[12])];
        let is_ipv6 = query[name_end + 1..name_end + 3] == [0, 28];
        let answer = |ttl, address: IpAddr| answered(&query[..name_end + 5], ttl, address);
        let pick = |addresses: [IpAddr; 2]| addresses[usize::from(is_ipv6)];
        let good = answer(60, pick(PAGE));
        let mut bytes = good.clone();
        match label {
            b"good" | b"bad" => {}
            b"rebind" => {
                let turn = turns[usize::from(is_ipv6)].fetch_add(1, Ordering::SeqCst);
                let within = INSIDE[turn / 2 % INSIDE.len()].map(|address| address.parse().unwrap());
                bytes = answer(0, if turn.is_multiple_of(2) { pick(PAGE) } else { pick(within) });
            }
            b"inside" => bytes = answer(60, IpAddr::V4(Ipv4Addr::LOCALHOST)),
            b"metadata" => bytes = answer(60, IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))),
            b"wrongid" => bytes[1] ^= 1,
            b"elsewhere" => {
                elsewhere.send_to(&good, from).unwrap();
                continue;
            }
            // The name points at itself.
            b"loop" => bytes[12..14].copy_from_slice(&[0xc0, 12]),
            b"alias" => {
                let at = name_end + 5;
                bytes.truncate(at);
                bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 0, 0, 2, 0xc0, 12]);
            }
            b"huge" => bytes.resize(20_000, 0),
            // Counts of what is not there.
            b"many" => bytes[6..12].fill(0xff),
            b"chance" => bytes[12..].fill_with(|| fastrand::u8(..)),
            _ => continue,
        }
        socket.send_to(&bytes, from).unwrap();
    }
}

/// Where a name leads that led outside before.
const INSIDE: [[&str; 2]; 3] =
    [["127.0.0.1", "::1"], ["169.254.169.254", "::ffff:169.254.169.254"], ["10.1.2.3", "64:ff9b::7f00:1"]];

fn answered(question: &[u8], ttl: u8, address: IpAddr) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 0]);
    let (kind, octets) = match address {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (28, address.octets().to_vec()),
    };
    answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, ttl, 0]);
    answer.push(u8::try_from(octets.len()).unwrap());
    answer.extend(octets);
    answer
}

/// Where the resolver is asked.
pub fn upstream() -> SocketAddr {
    (RESOLVER, 53).into()
}
