"""Two twins, two policies: one may fetch a page from one host and nothing else, the other nothing at all.

The page is served by this program, on an address of this host's. No machine reaches its host unless the operator opens
an address, so the server must run with ``--network-allow ADDRESS:8137`` (``make demo`` does; this program says which).

Usage: python 04_network.py
"""

import http.server
import socket
import threading

from forkyard import NetworkEvent, Sandbox

PORT = 8137


class Page(http.server.BaseHTTPRequestHandler):
    """One page, whatever is asked for."""

    def do_GET(self) -> None:
        """Answers."""
        body = b"a page from the one host\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def own_address() -> str:
    """An address of this host's that is not loopback: a machine has a loopback of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Looks the route up and sends nothing.
        probe.connect(("203.0.113.7", 9))
        address: str = probe.getsockname()[0]
    return address


def fetch(machine: Sandbox, url: str) -> str:
    """What the machine gets."""
    result = machine.run("curl", ["--silent", "--show-error", "--max-time", "20", url])
    return (result.stdout or result.stderr).strip()


def describe(event: NetworkEvent) -> str:
    """One line."""
    where = f"{event.name or event.address}{f':{event.port}' if event.port else ''}"
    data = f"{event.bytes_out} bytes out, {event.bytes_in} in" if event.bytes_in else ""
    return f"{event.kind.value:19} {where:22} by '{event.rule}' {data}".rstrip()


address = own_address()
with http.server.ThreadingHTTPServer((address, PORT), Page) as web:
    threading.Thread(target=web.serve_forever, daemon=True).start()
    page = f"http://{address}:{PORT}/"
    with Sandbox.create("base") as original:
        (guided,) = original.fork(allow_out=[f"{address}:{PORT}"])
        (shut,) = original.fork()
        with guided, shut:
            for name, machine in (("may fetch one page", guided), ("may fetch nothing", shut)):
                print(f"the twin that {name}:")
                for url in (page, "http://198.51.100.7/", "http://169.254.169.254/"):
                    print(f"  {url:28} {fetch(machine, url)}")
                print(f"  its link is {machine.network().link.value}; its events:")
                events = machine.network_events(wait=2).events
                for event in events:
                    print(f"    {describe(event)}")
                if not events:
                    print("    none: nothing left it")
            got = fetch(guided, page)
    web.shutdown()
if got != "a page from the one host":
    raise SystemExit(f"the page was not reached: is the server run with --network-allow {address}:{PORT}?")
