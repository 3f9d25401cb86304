//! A small DNS server on loopback that says what a test wants, by UDP and TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::super::Transport;

/// What goes out for one query, in this order.
pub(super) enum Send {
    /// From the server's own port.
    Own(Vec<u8>),
    /// From another port.
    Foreign(Vec<u8>),
}

type Handler = dyn Fn(&Message, Transport) -> Vec<Send> + std::marker::Send + Sync;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    /// Ends with the server.
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn start(
        handler: impl Fn(&Message, Transport) -> Vec<Send> + std::marker::Send + Sync + 'static,
    ) -> Self {
        let handler: Arc<Handler> = Arc::new(handler);
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, handler.clone(), asked.clone()));
        tasks.spawn(serve_tcp(tcp, handler, asked.clone()));
        Self { address, asked, _tasks: tasks }
    }

    /// One that answers each query with these records, whatever they are.
    pub(super) async fn with(records: Vec<Record>) -> Self {
        Self::start(move |query, _| vec![Send::Own(answer(query, &records).to_vec().unwrap())]).await
    }

    /// How many queries came.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve_udp(socket: UdpSocket, handler: Arc<Handler>, asked: Arc<AtomicUsize>) {
    let foreign = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = vec![0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        for send in handler(&Message::from_vec(&buffer[..length]).unwrap(), Transport::Udp) {
            match send {
                Send::Own(bytes) => socket.send_to(&bytes, from).await.unwrap(),
                Send::Foreign(bytes) => foreign.send_to(&bytes, from).await.unwrap(),
            };
        }
    }
}

async fn serve_tcp(listener: TcpListener, handler: Arc<Handler>, asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut buffer).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        for send in handler(&Message::from_vec(&buffer).unwrap(), Transport::Tcp) {
            let (Send::Own(bytes) | Send::Foreign(bytes)) = send;
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length, &bytes[..]].concat()).await.unwrap();
        }
    }
}

/// An answer to a query with these records.
pub(super) fn answer(query: &Message, records: &[Record]) -> Message {
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    message.add_queries(query.queries.iter().cloned());
    message.add_answers(records.iter().cloned());
    message
}

/// The same without records.
pub(super) fn failure(query: &Message, code: ResponseCode) -> Message {
    let mut message = answer(query, &[]);
    message.metadata.response_code = code;
    message
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

pub(super) fn address(owner: &str, ttl: u32, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        std::net::IpAddr::V4(address) => RData::A(A(address)),
        std::net::IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name(owner), ttl, data)
}

pub(super) fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}
