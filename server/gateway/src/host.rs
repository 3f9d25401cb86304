//! The host's side of connections: ordinary sockets of an ordinary process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu, ipv6_mtu, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};
use crate::wire::Unreachable;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The other end refused it, or the host has no sockets left.
    Reset,
    /// It could not be reached.
    Unreachable(Unreachable),
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                Self::Unreachable(Unreachable::Network)
            }
            Some(Errno::HOSTUNREACH | Errno::HOSTDOWN | Errno::TIMEDOUT) => {
                Self::Unreachable(Unreachable::Host)
            }
            Some(Errno::ACCESS | Errno::PERM) => Self::Unreachable(Unreachable::Prohibited),
            _ => Self::Reset,
        }
    }
}

/// Whether a destination is the host itself. The kernel knows, without a list of interfaces that ages: what it would send from
/// the very address, or from loopback, it would send to itself. Connecting a UDP socket looks the route up and sends nothing.
pub fn is_own(destination: SocketAddr) -> io::Result<bool> {
    let address = destination.ip();
    if address.is_loopback() || address.is_unspecified() {
        return Ok(true);
    }
    let probe = socket(destination, Type::DGRAM, Some(Protocol::UDP))?;
    // Port 0 cannot be connected to, and no port changes the route.
    match probe.connect(&SocketAddr::new(address, destination.port().max(1)).into()) {
        Ok(()) => {}
        // Without a route it is nobody, and the connection will say so itself.
        Err(error) if matches!(Failure::from(&error), Failure::Unreachable(_)) => return Ok(false),
        Err(error) => return Err(error),
    }
    let source = probe.local_addr()?.as_socket().map(|source| source.ip());
    Ok(source.is_none_or(|source: IpAddr| source == address || source.is_loopback()))
}

/// Connects. The kernel gives up after two minutes; the caller may do so earlier.
pub async fn connect(destination: SocketAddr) -> Result<TcpStream, Failure> {
    let attempt = async {
        let socket = if destination.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        let stream = socket.connect(destination).await?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    };
    attempt.await.map_err(|error: io::Error| Failure::from(&error))
}

/// Has dropping the stream reset it.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!("cannot reset a connection: {error}");
    }
}

/// A UDP socket that speaks with one remote alone, and hears of its ICMP errors.
pub fn connect_udp(destination: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(destination, Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&destination.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that sends echo requests to one remote and gets their answers; the host may not allow it
/// (`net.ipv4.ping_group_range`). Read and written like any datagram socket.
pub fn connect_ping(destination: IpAddr) -> io::Result<UdpSocket> {
    let protocol = if destination.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let destination = SocketAddr::new(destination, 0);
    let socket = socket(destination, Type::DGRAM, Some(protocol))?;
    socket.connect(&destination.into())?;
    UdpSocket::from_std(socket.into())
}

/// Lets the kernel fragment, or not: as the guest asked for.
pub fn set_dont_fragment(socket: &UdpSocket, destination: IpAddr, dont: bool) -> io::Result<()> {
    if destination.is_ipv6() {
        return Ok(set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?);
    }
    let discovery = if dont { Ipv4PathMtuDiscovery::DO } else { Ipv4PathMtuDiscovery::WANT };
    Ok(set_ip_mtu_discover(socket, discovery)?)
}

/// What the way to a connected socket's remote carries, in bytes; what every link carries, where the kernel does not say.
pub fn path_mtu(socket: &UdpSocket, destination: IpAddr) -> u16 {
    let (mtu, least) = if destination.is_ipv4() { (ip_mtu(socket), 576) } else { (ipv6_mtu(socket), 1280) };
    mtu.ok().and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(least)
}

/// Sends a datagram now or not at all. The kernel's readiness is not asked first: a new socket's is not known yet.
pub fn send_now(socket: &UdpSocket, payload: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, payload, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for a datagram, or an ICMP error about one that was sent, and has it taken. The kernel does not call a socket readable that
/// has only an error.
pub async fn receive(
    socket: &UdpSocket,
    mut take: impl FnMut(&UdpSocket) -> io::Result<()>,
) -> io::Result<()> {
    socket.async_io(Interest::READABLE | Interest::ERROR, || take(socket)).await
}

/// Takes a datagram or an error that is there; what is longer than the buffer is cut off.
pub fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    let (len, _) = rustix::net::recv(socket, buffer, RecvFlags::DONTWAIT)?;
    Ok(len)
}

fn socket(destination: SocketAddr, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    Socket::new(Domain::for_address(destination), kind.nonblocking().cloexec(), protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_the_hosts_own() {
        for own in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "0.0.0.0:80"] {
            assert!(is_own(own.parse().unwrap()).unwrap(), "{own}");
        }
        // A documentation range: routed to nobody on this host, or not at all.
        assert!(!is_own("203.0.113.7:80".parse().unwrap()).unwrap());
    }

    #[test]
    fn an_interfaces_address_is_the_hosts_own() {
        // What the host would send from to the outside is an interface's address, where it has one.
        let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if probe.connect("203.0.113.7:9").is_ok() {
            assert!(is_own(SocketAddr::new(probe.local_addr().unwrap().ip(), 22)).unwrap());
        }
    }

    #[test]
    fn failures_say_what_is_true() {
        let failure = |errno: Errno| Failure::from(&io::Error::from(errno));
        assert_eq!(failure(Errno::CONNREFUSED), Failure::Reset);
        assert_eq!(failure(Errno::HOSTUNREACH), Failure::Unreachable(Unreachable::Host));
        assert_eq!(failure(Errno::NETUNREACH), Failure::Unreachable(Unreachable::Network));
        assert_eq!(failure(Errno::ACCESS), Failure::Unreachable(Unreachable::Prohibited));
    }

    #[tokio::test]
    async fn a_remote_that_is_gone_without_a_word_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
    }
}
