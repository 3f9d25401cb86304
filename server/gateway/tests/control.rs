//! The server's end: it comes, goes, and comes back; the gateway stays.

mod support;

use std::net::SocketAddr;

use forkyard_gateway::control::{FromGateway, ToGateway};
use forkyard_gateway::limits::{MAX_CONTROL_LINE, MAX_EVENTS};
use forkyard_gateway::policy::Operator;
use forkyard_protocol::{NetworkEventKind, NetworkPolicy};
use support::World;

fn closed() -> World {
    World::start(NetworkPolicy::default(), Operator::default(), Vec::new())
}

/// Has the guest ask for what is refused, so that there is an event for each.
fn refused(world: &mut World, port: u16) {
    let to: SocketAddr = ([192, 0, 2, 1], port).into();
    let connection = world.guest.connect(to);
    world.guest.until("refused", |guest| guest.is_closed(connection));
    world.guest.sockets.remove(connection);
}

#[test]
fn events_wait_for_the_next_server() {
    let mut world = closed();
    refused(&mut world, 1);
    let mut first = world.server();
    assert_eq!(first.event().port, Some(1));
    drop(first);
    refused(&mut world, 2);
    refused(&mut world, 3);
    let mut second = world.server();
    assert_eq!((second.event().port, second.event().port), (Some(2), Some(3)));
    assert_eq!(second.counters().connections_refused, 3);
}

#[test]
fn a_new_server_takes_the_place_of_the_old() {
    let mut world = closed();
    let mut old = world.server();
    assert_eq!(old.counters().connections_refused, 0);
    let mut new = world.server();
    assert_eq!(new.counters().connections_refused, 0);
    assert_eq!(old.hear(), None, "the old one is hung up on");
    refused(&mut world, 1);
    assert_eq!(new.event().kind, NetworkEventKind::ConnectionRefused);
}

#[test]
fn what_is_not_understood_changes_nothing() {
    let world = closed();
    let mut server = world.server();
    for line in ["no json\n", "{\"policy\": {\"allow\": []}}\n", "{\"restart\": 1}\n", "\n"] {
        server.say_raw(line.as_bytes());
        assert!(matches!(server.hear(), Some(FromGateway::Error(_))), "{line}");
    }
    assert_eq!(server.counters().connections_refused, 0);
    server.say_raw(&vec![b' '; MAX_CONTROL_LINE + 1]);
    assert_eq!(server.hear(), None, "too long a line");
    assert_eq!(world.counters().connections_refused, 0);
}

#[test]
fn too_many_events_are_counted() {
    let mut world = closed();
    let more = 10;
    for index in 0..MAX_EVENTS + more {
        refused(&mut world, u16::try_from(index + 1).unwrap());
    }
    let mut server = world.server();
    for index in 0..MAX_EVENTS {
        assert_eq!(server.event().port, Some(u16::try_from(index + 1).unwrap()));
    }
    let counters = server.counters();
    assert_eq!(counters.dropped_events, more as u64);
    assert_eq!(counters.connections_refused, (MAX_EVENTS + more) as u64);
}

#[test]
fn a_server_that_goes_at_once_is_still_heard() {
    let mut world = closed();
    // What it never reads must not keep the gateway from what it said.
    (1..100).for_each(|port| refused(&mut world, port));
    world.server().say(&ToGateway::Stop);
    world.ended();
}

#[test]
fn stop_ends_it() {
    let world = closed();
    let mut server = world.server();
    server.say(&ToGateway::Stop);
    assert_eq!(server.hear(), None);
    world.ended();
}
