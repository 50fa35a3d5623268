"""Servers of python's standard library and their clients, in one process: the workload servers.python."""

import asyncio
import hashlib
import http.server
import os
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

PAGE = os.urandom(200_000)


class Pages(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(PAGE)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(hashlib.sha256(body).hexdigest().encode())


class Sum(socketserver.StreamRequestHandler):
    """Answers each line with its checksum."""

    def handle(self):
        for line in self.rfile:
            self.wfile.write(hashlib.sha256(line).hexdigest().encode() + b"\n")


class Threads(socketserver.ThreadingTCPServer):
    request_queue_size = 128
    allow_reuse_address = True
    daemon_threads = True


class UnixThreads(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 128
    daemon_threads = True


class serving:
    """A server with a thread of its own, which ends with the block."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self.server.server_address

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def at_once(count, client):
    """How many of so many clients went well."""
    with ThreadPoolExecutor(32) as pool:
        return sum(pool.map(client, range(count)))


def http_client(port, context=None):
    scheme = "https" if context else "http"
    base = f"{scheme}://localhost:{port}/"

    def client(number):
        body = hashlib.sha256(str(number).encode()).digest() * 5_000
        with urllib.request.urlopen(base, context=context, timeout=60) as page:
            if page.read() != PAGE:
                return False
        with urllib.request.urlopen(base, data=body, context=context, timeout=60) as told:
            return told.read().decode() == hashlib.sha256(body).hexdigest()

    return client


def line_client(connect):
    def client(number):
        with connect() as connection, connection.makefile("rwb") as file:
            for line in (f"{number} {turn}\n".encode() for turn in range(20)):
                file.write(line)
                file.flush()
                if file.readline().strip() != hashlib.sha256(line).hexdigest().encode():
                    return False
            return True

    return client


def unix_connection(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection


async def echo(clients):
    """Each client sends 100 kB in pieces and reads it at the same time."""

    async def serve(reader, writer):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def client(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = hashlib.sha256(str(number).encode()).digest() * 3_125

        async def send():
            for start in range(0, len(sent), 10_000):
                writer.write(sent[start:start + 10_000])
                await writer.drain()
            writer.write_eof()

        _, back = await asyncio.gather(send(), reader.read(-1))
        writer.close()
        await writer.wait_closed()
        return back == sent

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    port = server.sockets[0].getsockname()[1]
    async with server:
        return sum(await asyncio.gather(*(client(number) for number in range(clients))))


def tls_server():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", "tls.key", "-out", "tls.pem"], check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("tls.pem", "tls.key")
    server = Pages(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


def main():
    with serving(Pages(("127.0.0.1", 0), Page)) as (_, port):
        print("http:", at_once(64, http_client(port)), flush=True)
    with serving(Threads(("127.0.0.1", 0), Sum)) as address:
        print("socketserver:", at_once(64, line_client(lambda: socket.create_connection(address))), flush=True)
    with serving(UnixThreads("lines.sock", Sum)) as path:
        print("unix:", at_once(64, line_client(lambda: unix_connection(path))), flush=True)
    print("asyncio:", asyncio.run(echo(200)), flush=True)
    with serving(tls_server()) as (_, port):
        print("tls:", at_once(16, http_client(port, ssl.create_default_context(cafile="tls.pem"))), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
