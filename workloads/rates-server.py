"""What workloads/rates.toml measures against, on the host's loopback, which guests reach as 10.0.2.2.

Arguments are GUESTPORT=PORT: where on the host's loopback the guest's ports are. Prints a line of NAME=VALUE words once all
listens, and ends with its standard input.

iperf   the port of an iperf3 server
host    an HTTP server; /http/N has 50 connections fetch /small from the guest's port 8080 so often in all, and answers how
        often in a second
"""

import http.server
import selectors
import socket
import subprocess
import sys
import threading
import time

PORTS = dict(map(int, word.split("=")) for word in sys.argv[1:])
LOCAL = "127.0.0.1"
CONNECTIONS = 50
REQUEST = b"GET /small HTTP/1.1\r\nHost: guest\r\n\r\n"


def connect(port):
    connection = socket.create_connection((LOCAL, port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def length(head):
    """Of an answer, from its head: with it."""
    fields = head.lower().split(b"\r\n\r\n")[0]
    return len(fields) + 4 + int(fields.split(b"content-length:")[1].split(b"\r\n")[0])


def rate(total):
    """Requests a second. All answers are as long as the first one."""
    with connect(PORTS[8080]) as first:
        first.sendall(REQUEST)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += first.recv(65536)
        size = length(answer)
    connections = [connect(PORTS[8080]) for _ in range(CONNECTIONS)]
    start = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, [size])
            connection.sendall(REQUEST)
        sent, answered = CONNECTIONS, 0
        while answered < total:
            ready = selector.select(60)
            if not ready:
                raise TimeoutError(f"{answered} answers, and no more")
            for key, _ in ready:
                got = key.fileobj.recv(65536)
                if not got:
                    raise ConnectionError(f"{answered} answers, and an end")
                key.data[0] -= len(got)
                if key.data[0] > 0:
                    continue
                answered += 1
                key.data[0] = size
                if sent < total:
                    sent += 1
                    key.fileobj.sendall(REQUEST)
    took = time.monotonic() - start
    for connection in connections:
        connection.close()
    return total / took


class Requests(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        try:
            status, body = 200, b"%.1f\n" % rate(int(self.path.removeprefix("/http/")))
        except (OSError, ValueError, LookupError) as error:
            status, body = 500, f"the host: {error}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def free_port():
    with socket.create_server((LOCAL, 0)) as listener:
        return listener.getsockname()[1]


def main():
    port = free_port()
    iperf = subprocess.Popen(
        ("iperf3", "--server", "--bind", LOCAL, "--port", str(port)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = http.server.ThreadingHTTPServer((LOCAL, 0), Requests)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"host=http://10.0.2.2:{server.server_address[1]} iperf={port}", flush=True)
    sys.stdin.read()
    iperf.terminate()
    iperf.wait()


main()
