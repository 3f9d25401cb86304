"""A guest that has root and means harm: it tries everything that is refused, and prints what it got for it as JSON.

It is given what it may not reach and, to abuse it, what it may: ``guest.py '{"forbidden": [...], "allowed": [...]}'``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import random
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator

CARD = "eth0"
MTU = 1500
OWN_MAC, GATEWAY_MAC = bytes.fromhex("525400123456"), bytes.fromhex("52550a000202")
ALL = b"\xff" * 6
OWN, GATEWAY, NEIGHBOUR = "10.0.2.15", "10.0.2.2", "10.0.2.16"
OWN6, GATEWAY6 = "fd67:7761:7900::15", "fd67:7761:7900::2"
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
# What listens outside, where anybody does; and a port that only forged frames name.
PORTS, FORGED_PORT = (80, 53), 6666
chance = random.Random(7)


# Packets by hand.


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ip(source: str, to: str, protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    if ":" in to:
        return (
            struct.pack("!IHBB", 6 << 28, len(payload) & 0xFFFF, protocol, 255) + packed(source) + packed(to) + payload
        )
    first = 0x45 + len(options) // 4
    length = min(20 + len(options) + len(payload), 0xFFFF)
    head = (
        struct.pack("!BBHHHBBH", first, 0, length, 7, fragment, 64, protocol, 0) + packed(source) + packed(to) + options
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def over(source: str, to: str, protocol: int, segment: bytes, at: int) -> bytes:
    """Puts in the checksum that covers the addresses too."""
    pseudo = packed(source) + packed(to) + struct.pack("!II", len(segment), protocol)
    return segment[:at] + struct.pack("!H", checksum(pseudo + segment) or 0xFFFF) + segment[at + 2 :]


def udp(source: str, to: str, port: int, data: bytes, own_port: int = 5000) -> bytes:
    head = struct.pack("!HHHH", own_port, port, 8 + len(data) & 0xFFFF, 0)
    return ip(source, to, UDP, over(source, to, UDP, head + data, 6))


def tcp(source: str, to: str, port: int, flags: int, data: bytes = b"", options: bytes = b"") -> bytes:
    head = struct.pack(
        "!HHIIBBHHH", chance.randrange(1024, 65536), port, 1, 0, (20 + len(options)) << 2, flags, 65535, 0, 0
    )
    return ip(source, to, TCP, over(source, to, TCP, head + options + data, 16))


def echo(source: str, to: str) -> bytes:
    if ":" in to:
        return ip(source, to, ICMP6, over(source, to, ICMP6, b"\x80\0\0\0\0\x01\0\x01ping", 2))
    message = b"\x08\0\0\0\0\x01\0\x01ping"
    return ip(source, to, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])


def frame(packet: bytes, source: bytes = OWN_MAC, to: bytes = GATEWAY_MAC) -> bytes:
    return to + source + (b"\x86\xdd" if packet[:1] and packet[0] >> 4 == 6 else b"\x08\0") + packet


def arp(operation: int, mac: bytes, address: str, of: str) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x800, 6, 4, operation) + mac + packed(address) + OWN_MAC + packed(of)
    return ALL + mac + b"\x08\x06" + body


def dhcp(kind: int, mac: bytes, operation: int = 1, options: bytes = b"") -> bytes:
    head = struct.pack("!BBBBIHH", operation, 1, 6, 0, chance.getrandbits(32), 0, 0) + bytes(16)
    return head + mac + bytes(10 + 192) + b"\x63\x82\x53\x63\x35\x01" + bytes([kind]) + options + b"\xff"


# What is tried.


def everything_to(to: str) -> Iterator[bytes]:
    own = OWN6 if ":" in to else OWN
    for port in PORTS:
        yield tcp(own, to, port, 0x02)
        yield tcp(own, to, port, 0x18, b"GET / HTTP/1.0\r\n\r\n")
        yield udp(own, to, port, b"datagram")
    yield echo(own, to)
    yield ip(own, to, 132, bytes(12))
    yield ip(own, to, 47, bytes(4) + ip(own, to, UDP, bytes(8)))


def forged(to: str) -> Iterator[bytes]:
    """From whom the guest is not, to whom it may speak."""
    for _ in range(20):
        yield frame(udp(OWN, to, FORGED_PORT, b"forged"), source=bytes([2]) + chance.randbytes(5))
    for mac in (GATEWAY_MAC, ALL, bytes(6), OWN_MAC[:5] + b"\x57"):
        yield frame(udp(OWN, to, FORGED_PORT, b"forged"), source=mac)
    for source in (NEIGHBOUR, GATEWAY, "127.0.0.1", "203.0.113.1", to, "255.255.255.255", "224.0.0.1", "0.0.0.0"):
        yield frame(udp(source, to, FORGED_PORT, b"forged"))
        yield frame(tcp(source, to, FORGED_PORT, 0x02))
        yield frame(echo(source, to))
    for source in ("fe80::15", "::1", "2001:db8:1::1", f"::ffff:{OWN}", GATEWAY6):
        yield frame(udp(source, "2001:db8:2::7", FORGED_PORT, b"forged"))


def tricks(to: str) -> Iterator[bytes]:
    """Packets that say one thing and mean another."""
    # Loose source route: by way of an allowed host to one that is not.
    route = b"\x83\x0b\x04" + packed("127.0.0.1") + packed("169.254.169.254") + b"\0"
    yield frame(
        ip(OWN, "127.0.0.1", UDP, over(OWN, "127.0.0.1", UDP, b"\x13\x88\0\x35\0\x0c\0\0data", 6), options=route)
    )
    # Routing headers, hop by hop, and fragments in IPv6.
    for header in (43, 0, 60, 44):
        yield frame(ip(OWN6, "2001:db8:2::7", header, bytes([UDP, 2, 0, 1, 0, 0, 0, 0]) + packed("::1") + bytes(16)))
    # IPv6 in IPv4 and the other way round.
    yield frame(ip(OWN, to, 41, udp(OWN6, "::1", 53, b"inner")))
    yield frame(ip(OWN6, "2001:db8:2::7", 4, udp(OWN, "127.0.0.1", 53, b"inner")))
    # Fragments: the first, one that overlaps it, the last, a lonely one at the end.
    whole = udp(OWN, to, FORGED_PORT, bytes(64))[20:]
    for at, piece, more in (
        (0, whole[:32], True),
        (1, whole[:32], True),
        (4, whole[32:], False),
        (8191, bytes(64), False),
    ):
        yield frame(ip(OWN, to, UDP, piece, fragment=at | (0x2000 if more else 0)))
    # VLAN tags, one and two; what has no IP version or the wrong one.
    for tag in (b"\x81\0\0\x01", b"\x88\xa8\0\x01\x81\0\0\x02"):
        yield GATEWAY_MAC + OWN_MAC + tag + b"\x08\0" + udp(OWN, to, FORGED_PORT, b"tagged")
    yield GATEWAY_MAC + OWN_MAC + b"\x86\xdd" + udp(OWN, to, FORGED_PORT, b"wrong type")
    yield GATEWAY_MAC + OWN_MAC + b"\x08\0" + udp(OWN6, "::1", FORGED_PORT, b"wrong type")
    # Flags of TCP that nobody sends together, options that never end.
    for flags in (0x00, 0x03, 0x06, 0x29, 0x3F, 0xFF):
        yield frame(tcp(OWN, to, FORGED_PORT, flags))
    for options in (b"\x02\x00\x00\x00", b"\xfe\xff\x01\x01", b"\x02\x04\0\0", b"\x03\x03\xff\0", b"\x08\x0a\0\0"):
        yield frame(tcp(OWN, GATEWAY, 53, 0x02, options=options))
    # Lengths that lie.
    for length in (0, 7, 9, 0xFFFF):
        lying = udp(OWN, GATEWAY, 53, b"lying")
        yield frame(lying[:24] + struct.pack("!H", length) + lying[26:])
    # Redirects, router advertisements, neighbours: the guest would be somebody's router.
    yield frame(ip(GATEWAY, OWN, ICMP, b"\x05\x01" + bytes(6) + bytes(28)))
    advert = over("fe80::1", "ff02::1", ICMP6, b"\x86\0\0\0\x40\0\x07\x08" + bytes(8), 2)
    yield frame(ip("fe80::1", "ff02::1", ICMP6, advert), to=bytes.fromhex("333300000001"))
    claim = over(OWN6, "ff02::1", ICMP6, b"\x88\0\0\0\xa0\0\0\0" + packed(GATEWAY6) + b"\x02\x01" + OWN_MAC, 2)
    yield frame(ip(OWN6, "ff02::1", ICMP6, claim), to=bytes.fromhex("333300000001"))
    # Multicast of every kind: spanning tree, mDNS, LLDP, IGMP.
    yield bytes.fromhex("0180c2000000") + OWN_MAC + b"\0\x26\x42\x42\x03" + bytes(35)
    yield frame(udp(OWN, "224.0.0.251", 5353, b"mdns"), to=bytes.fromhex("01005e0000fb"))
    yield bytes.fromhex("0180c200000e") + OWN_MAC + b"\x88\xcc" + bytes(50)
    yield frame(ip(OWN, "224.0.0.22", 2, b"\x22\0\xf9\x02\0\0\0\x01\x04\0\0\0" + packed("239.1.1.1")))


def neighbours() -> Iterator[bytes]:
    for address in (GATEWAY, NEIGHBOUR, OWN, "203.0.113.1", "0.0.0.0", "255.255.255.255"):
        yield arp(2, OWN_MAC, address, GATEWAY)
        yield arp(1, OWN_MAC, address, address)
        yield arp(2, GATEWAY_MAC, address, OWN)
    for last in range(256):
        yield arp(1, OWN_MAC, OWN, f"10.0.2.{last}")


def leases(own: str = "0.0.0.0") -> Iterator[bytes]:
    for turn in range(100):
        mac = OWN_MAC if turn % 3 == 0 else bytes([2]) + chance.randbytes(5)
        wants = b"\x32\x04" + packed(f"10.0.2.{turn}")
        yield frame(udp(own, "255.255.255.255", 67, dhcp(turn % 9, mac, options=wants), own_port=68), to=ALL)
    for kind in (2, 5, 6):
        offer = dhcp(kind, OWN_MAC, operation=2, options=b"\x36\x04" + packed(GATEWAY) + b"\x03\x04" + packed(OWN))
        yield frame(udp(GATEWAY, "255.255.255.255", 68, offer, own_port=67), to=ALL)
        yield frame(udp(OWN, "255.255.255.255", 68, offer, own_port=67), to=ALL)
    for options in (b"\x32\xff", b"\x32\x01\x01", b"\x37\xff" + bytes(255), b"\x3d\x00", b"\x34\x01\x03"):
        yield frame(udp(own, "255.255.255.255", 67, dhcp(1, OWN_MAC, options=options), own_port=68), to=ALL)


def chaff(to: str) -> Iterator[bytes]:
    """Cut off, changed by chance, and made of nothing but chance."""
    seeds = [*tricks(to), *everything_to("10.1.2.3"), arp(1, OWN_MAC, OWN, GATEWAY)]
    seeds = [seed if seed[6:12] == OWN_MAC else frame(seed) for seed in seeds]
    for _ in range(600):
        seed = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(6)):
            # Not whom an allowed packet is for: what chance makes of it may be allowed too.
            at = chance.choice([*range(12, 30), *range(34, len(seed))]) if len(seed) > 34 else 12
            seed[at] = chance.randrange(256)
        yield bytes(seed[: chance.randrange(len(seed) + 1)] if chance.random() < 0.5 else seed)
    for length in range(0, 400, 3):
        yield GATEWAY_MAC + OWN_MAC + chance.choice([b"\x08\0", b"\x86\xdd", b"\x08\x06"]) + chance.randbytes(length)


def giants(to: str) -> Iterator[bytes]:
    for size in (1501, 4096, 9000, 32768, 65400):
        for address in (to, GATEWAY, "127.0.0.1"):
            yield frame(udp(OWN, address, FORGED_PORT, bytes(size - 28)))
            yield frame(ip(OWN, address, TCP, bytes(size - 20)))
            yield frame(ip(OWN, address, ICMP, b"\x08\0" + bytes(size - 22)))
        yield frame(ip(OWN6, "2001:db8:2::7", UDP, bytes(size - 40)))
        yield frame(udp("0.0.0.0", "255.255.255.255", 67, dhcp(1, OWN_MAC) + bytes(size - 300), own_port=68), to=ALL)


def set_mtu(mtu: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8922, struct.pack("16sI", CARD.encode(), mtu) + bytes(12))  # SIOCSIFMTU


class Raw:
    """The card, without a stack between."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.socket.bind((CARD, 0))
        self.sent = 0
        self.kept_back = 0

    def send(self, frames: Iterator[bytes]) -> int:
        before = self.sent
        for one in frames:
            try:
                self.socket.send(one)
                self.sent += 1
            except OSError as error:
                # The guest's own kernel has bounds too.
                if error.errno not in (errno.EMSGSIZE, errno.EINVAL, errno.ENOBUFS, errno.ENXIO):
                    raise
                self.kept_back += 1
        return self.sent - before


def connects(to: str, port: int) -> str:
    """How an ordinary program fares."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(10)
        try:
            attempt.connect((to, port))
            return "connected"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, type(error).__name__)


def says(to: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as attempt:
        attempt.settimeout(5)
        try:
            attempt.connect((to, port))
            attempt.send(b"datagram")
            attempt.recv(2048)
            return "answered"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, type(error).__name__)


def looks_up(name: str, kind: int = 1) -> tuple[int, list[str]]:
    """The code of the answer to a query, and the addresses in it. The C library would ask again and again."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", random.getrandbits(16), 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        attempt.settimeout(10)
        attempt.connect((GATEWAY, 53))
        answer = b""
        for _ in range(3):
            attempt.send(query)
            try:
                answer = attempt.recv(4096)
                break
            except TimeoutError:
                # Datagrams may be lost, in a flood of others above all.
                continue
    if answer[:2] != query[:2]:
        raise ValueError("an answer to something else")
    addresses, at = [], len(query)
    for _ in range(struct.unpack("!H", answer[6:8])[0]):
        # Names in answers are compressed here: a pointer of two bytes.
        found, _, _, length = struct.unpack("!HHIH", answer[at + 2 : at + 12])
        data = answer[at + 12 : at + 12 + length]
        if found in (1, 28):
            addresses.append(socket.inet_ntop(socket.AF_INET if found == 1 else socket.AF_INET6, data))
        at += 12 + length
    return answer[3] & 0xF, addresses


def converses(to: str, count: int) -> int:
    """How many of so many connections that are open at once get an answer."""
    streams = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    for stream in streams:
        stream.setblocking(False)
        stream.connect_ex((to, 80))
    for stream in streams:
        stream.settimeout(30)
        # Returns once it is connected, or says why it is not.
        stream.sendall(b"GET / HTTP/1.1\r\n")
    for stream in streams:
        stream.sendall(b"\r\n")
    answered = 0
    for stream in streams:
        with stream, stream.makefile("rb") as answer:
            answered += answer.read().endswith(b"hello")
    return answered


def at_once(act: Callable[[str], object], arguments: list[str]) -> dict[str, object]:
    results: dict[str, object] = {}
    threads = [threading.Thread(target=lambda one=one: results.update({one: act(one)})) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def main() -> None:
    asked = json.loads(sys.argv[1])
    forbidden, allowed = asked["forbidden"], asked["allowed"]
    # Some of these take as long as a resolver may; frames are the same in each run, so chance is theirs alone.
    names: dict[str, object] = {}
    asking = threading.Thread(target=lambda: names.update(at_once(looks_up, asked["names"])))
    asking.start()
    report: dict[str, object] = {
        "tcp": at_once(lambda to: [connects(to, port) for port in PORTS], forbidden),
        "udp": at_once(lambda to: [says(to, port) for port in PORTS], forbidden),
        "conversed": converses(allowed, 500),
        "rebound": [looks_up(asked["rebinds"], kind) for kind in (1, 28) * 6],
    }
    raw = Raw()
    for to in [*forbidden, *asked["only_raw"]]:
        raw.send(frame(packet) for packet in everything_to(to))
    for frames in (forged(allowed), tricks(allowed), neighbours(), leases(), leases(OWN), chaff(allowed)):
        raw.send(frames)
    set_mtu(65535)
    report["giants"] = raw.send(giants(allowed))
    set_mtu(MTU)
    asking.join()
    print(json.dumps({**report, "names": names, "sent": raw.sent, "kept_back": raw.kept_back}))


if __name__ == "__main__":
    main()
