//! Two twins, two policies: one may fetch a page from one host and nothing else, the other nothing at all.
//!
//! The page is served by this program, on an address of this host's. No machine reaches its host unless the operator opens
//! an address, so the server must run with `--network-allow ADDRESS:8137` (`make demo` does; this program says which).
//!
//! Usage: `cargo run -p forkyard --example 04_network`

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use forkyard::{Client, Command, CreateSandbox, ForkSandbox, NetworkEvent, NetworkPolicy, Sandbox};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PORT: u16 = 8137;
const PAGE: &str = "a page from the one host\n";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Answers one request with the page, whatever it asks for.
async fn answer(connection: TcpStream) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut line = String::new();
    while connection.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let reply =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}", PAGE.len());
    connection.write_all(reply.as_bytes()).await
}

async fn serve(listener: TcpListener) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(answer(connection));
    }
}

/// An address of this host's that is not loopback: a machine has a loopback of its own.
fn own_address() -> std::io::Result<IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0")?;
    // Looks the route up and sends nothing.
    probe.connect("203.0.113.7:9")?;
    Ok(probe.local_addr()?.ip())
}

/// What the machine gets.
async fn fetch(machine: &Sandbox, url: &str) -> Outcome<String> {
    let curl = Command::new("curl").args(["--silent", "--show-error", "--max-time", "20", url]);
    let result = machine.run(curl).await?;
    let said = if result.stdout.is_empty() { result.stderr } else { result.stdout };
    Ok(String::from_utf8(said)?.trim().to_owned())
}

/// One line.
fn describe(event: &NetworkEvent) -> String {
    let host = event.name.clone().or(event.address.map(|address| address.to_string())).unwrap_or_default();
    let place = event.port.map_or(host.clone(), |port| format!("{host}:{port}"));
    let rule = event.rule.as_deref().unwrap_or("-");
    format!("{:?} {place} by '{rule}', {} bytes out, {} in", event.kind, event.bytes_out, event.bytes_in)
}

/// Has one twin try its luck.
async fn show(name: &str, machine: &Sandbox, page: &str) -> Outcome<()> {
    println!("the twin that {name}:");
    for url in [page, "http://198.51.100.7/", "http://169.254.169.254/"] {
        println!("  {url:28} {}", fetch(machine, url).await?);
    }
    println!("  its link is {:?}; its events:", machine.network().await?.link);
    let (events, _) = machine.network_events(None, Duration::from_secs(2)).await?;
    for event in &events {
        println!("    {}", describe(event));
    }
    if events.is_empty() {
        println!("    none: nothing left it");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let address = own_address()?;
    tokio::spawn(serve(TcpListener::bind((address, PORT)).await?));
    let page = format!("http://{address}:{PORT}/");
    let client = Client::builder().build()?;
    let request = CreateSandbox { image: Some("base".to_owned()), ..CreateSandbox::default() };
    let original = client.create(request).await?;
    let allowed = NetworkPolicy { allow_out: vec![format!("{address}:{PORT}")], ..NetworkPolicy::default() };
    let guided =
        original.fork(ForkSandbox { network: Some(allowed), ..ForkSandbox::default() }).await?.remove(0);
    let shut = original.fork(ForkSandbox::default()).await?.remove(0);
    let shown = async {
        show("may fetch one page", &guided, &page).await?;
        show("may fetch nothing", &shut, &page).await?;
        fetch(&guided, &page).await
    };
    let got = shown.await;
    for machine in [guided, shut, original] {
        machine.terminate().await?;
    }
    if got? != PAGE.trim() {
        let hint = format!("is the server run with --network-allow {address}:{PORT}?");
        return Err(format!("the page was not reached: {hint}").into());
    }
    Ok(())
}
