//! Passes a guest's answer on as it comes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, Response, header};
use bytes::Bytes;
use forkyard_protocol::Frame;
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::action::{GuestReply, lost};
use crate::guest::WholeEnvelopes;
use crate::sandbox::{OpenCall, Slot};

/// Headers of the guest's that reach the client: a guest is hostile, so only those that say what the body is.
const PASSED: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_RANGE, header::ACCEPT_RANGES];

type StreamError = Box<dyn std::error::Error + Send + Sync>;

struct Relay {
    body: Incoming,
    envelopes: Option<WholeEnvelopes>,
    slot: Arc<Slot>,
    done: bool,
    _call: OpenCall,
}

/// The response that carries a guest's answer.
pub fn respond(reply: GuestReply) -> Response<Body> {
    let (guest, body) = reply.response.into_parts();
    let envelopes = (reply.is_stream && guest.status.is_success()).then(WholeEnvelopes::default);
    let relay = Relay { body, envelopes, slot: reply.slot, done: false, _call: reply.call };
    let stream = stream::unfold(relay, |mut relay| async { relay.next().await.map(|item| (item, relay)) });
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = guest.status;
    for name in PASSED {
        if let Some(value) = guest.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

impl Relay {
    async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        while !self.done {
            let piece = match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.pass(data),
                    // Trailers: the agent sends none, and none are passed on.
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    self.done = true;
                    return self.last_words(Some(error.into())).await;
                }
                None => {
                    self.done = true;
                    return self.last_words(None).await;
                }
            };
            match piece {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Some(Ok(bytes)),
                Err(error) => {
                    self.done = true;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }

    fn pass(&mut self, data: Bytes) -> Result<Bytes, &'static str> {
        match &mut self.envelopes {
            Some(envelopes) => envelopes.push(&data),
            None => Ok(data),
        }
    }

    /// How a body ends. A stream that broke off since the machine is gone says so; one whose machine lives just ends, and
    /// the client takes it up again where it was.
    async fn last_words(&mut self, error: Option<StreamError>) -> Option<Result<Bytes, StreamError>> {
        match &self.envelopes {
            Some(envelopes) if envelopes.has_ended() => None,
            Some(_) => lost(&self.slot).await.map(|verdict| Ok(Frame::Failed(verdict).encode().into())),
            None => error.map(Err),
        }
    }
}
