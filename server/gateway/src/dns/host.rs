//! Whom the host itself asks. For the server, which is not confined: a gateway reads no file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const PORT: u16 = 53;

/// The resolvers of `/etc/resolv.conf`, in their order. Where it names none, that of the host's loopback, as resolv.conf(5)
/// says.
pub fn host_resolvers() -> io::Result<Vec<SocketAddr>> {
    match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(parse("")),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text.lines().filter_map(server).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

fn server(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
    // A link-local server has its interface's name behind it (`fe80::1%eth0`), which needs a look at the interfaces: left out.
    address.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_host_reads_it() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n\tnameserver\t2001:db8::1 # x\nnameserver fe80::1%eth0\nnameserver\nnameservers 192.0.2.8\n";
        assert_eq!(parse(text), ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        assert_eq!(parse("search example\n"), ["127.0.0.1:53".parse().unwrap()]);
    }
}
