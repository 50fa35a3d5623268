"""The servers of workloads/net.toml, on the host's loopback, which guests reach as 10.0.2.2.

Prints a line of NAME=VALUE words once they listen (ports and facts about what they serve), and ends with its standard input.
http and https serve the same: git repositories (/git: git's smart protocol, /dumb: plain files), /big with its checksum
/big.sha256, /huge (ten times that), /ca.pem, and /sum, which answers the checksum of what is sent to it. The certificate authority is made anew each
time; its key does not outlive the run. /medium is a fifth of /big. http6 is http at ::1, which guests reach as fec0::2.

Arguments are GUESTPORT=PORT: where on the host's loopback the guest's ports are. For what the guest has the host do:

/slow        as /sum, but reads a byte every 100 ms for two seconds, and then the rest
/open/P/N    opens N connections to the guest's port P, which sends back what it gets, and drops them
/read/P      reads what the guest's port P sends, as slowly as /slow, and answers the checksum
udp          a port that sends back what it gets
"""

import hashlib
import http.server
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

HOST = "10.0.2.2"
FILES = 5000
BIG = 20 << 20
HUGE = 10
MEDIUM = BIG // 5
PORTS = dict(map(int, word.split("=")) for word in sys.argv[1:])


def run(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more).stdout


def make_certificates(folder):
    extensions = os.path.join(folder, "extensions")
    with open(extensions, "w") as file:
        file.write(f"subjectAltName=IP:{HOST}\nbasicConstraints=CA:FALSE\n")
    path = lambda name: os.path.join(folder, name)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=throw-away CA",
        "-keyout", path("ca.key"), "-out", path("ca.pem"))
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}",
        "-keyout", path("server.key"), "-out", path("server.csr"))
    run("openssl", "x509", "-req", "-in", path("server.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
        "-CAcreateserial", "-days", "3650", "-extfile", extensions, "-out", path("server.pem"))


def make_repository(folder, name, files):
    """So many files in 100 directories and 50 commits, always with the same names of objects."""
    repository = os.path.join(folder, name)
    run("git", "init", "-q", "--bare", "-b", "main", repository)
    stream = []
    for number in range(files):
        text = f"file {number}\n" * (1 + number % 40)
        stream.append(f"blob\nmark :{number + 1}\ndata {len(text)}\n{text}\n")
    for commit in range(50):
        message = f"commit {commit}\n"
        stream.append("commit refs/heads/main\n")
        stream.append(f"committer c <c@x> {1700000000 + commit} +0000\ndata {len(message)}\n{message}\n")
        for number in range(commit, files, 50):
            stream.append(f"M 644 :{number + 1} d{number % 100}/f{number}\n")
    run("git", "-C", repository, "fast-import", "--quiet", input="".join(stream).encode())
    run("git", "-C", repository, "config", "http.receivepack", "true")
    run("git", "-C", repository, "gc", "-q")
    run("git", "-C", repository, "update-server-info")
    return run("git", "-C", repository, "rev-parse", "main").decode().strip()


def read_slowly(read):
    """A byte every 100 ms at first; all there is."""
    parts = []
    for _ in range(20):
        parts.append(read(1))
        time.sleep(0.1)
    while part := read(1 << 16):
        parts.append(part)
    return b"".join(parts)


def open_and_drop(port, count):
    """Opened 100 at a time, each is answered; every second is reset."""
    opened = answered = 0
    for start in range(0, count, 100):
        connections = []
        for _ in range(min(100, count - start)):
            connections.append(socket.create_connection(("127.0.0.1", port), timeout=120))
            # QEMU's port has room for one that waits; more would have to ask again, a second later.
            time.sleep(0.005)
        opened += len(connections)
        for connection in connections:
            connection.sendall(b"hello")
        for number, connection in enumerate(connections):
            answered += connection.recv(5, socket.MSG_WAITALL) == b"hello"
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    return f"{opened} opened, {answered} answered"


def read_from(port):
    with socket.create_connection(("127.0.0.1", port), timeout=240) as connection:
        return hashlib.sha256(read_slowly(connection.recv)).hexdigest()


def send_back():
    """Datagrams; the port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve():
        while True:
            data, client = server.recvfrom(65536)
            server.sendto(data, client)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = None

    def log_message(self, *_):
        pass

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            parts.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(parts)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path.startswith("/git/"):
            return self.git(path[len("/git"):], query, b"")
        words = path.strip("/").split("/")
        if words[0] in ("open", "read"):
            port = PORTS[int(words[1])]
            told = open_and_drop(port, int(words[2])) if words[0] == "open" else read_from(port)
            return self.answer(200, "text/plain", (told + "\n").encode())
        name = path[len("/dumb"):] if path.startswith("/dumb/") else path
        file = os.path.realpath(os.path.join(self.folder, name.lstrip("/")))
        if not file.startswith(self.folder) or not os.path.isfile(file) or file.endswith(".key"):
            return self.answer(404, "text/plain", b"not here\n")
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(os.path.getsize(file)))
        self.end_headers()
        if self.command != "HEAD":
            with open(file, "rb") as opened:
                shutil.copyfileobj(opened, self.wfile, 1 << 20)

    do_HEAD = do_GET

    def do_POST(self):
        path, _, query = self.path.partition("?")
        if path == "/slow":
            left = int(self.headers["Content-Length"])

            def read(most):
                nonlocal left
                data = self.rfile.read1(min(most, left))
                left -= len(data)
                return data

            body = read_slowly(read)
        else:
            body = self.body()
        if path.startswith("/git/"):
            return self.git(path[len("/git"):], query, body)
        self.answer(200, "text/plain", (hashlib.sha256(body).hexdigest() + "\n").encode())

    def do_PUT(self):
        self.do_POST()

    def git(self, path, query, body):
        """git-http-backend(1) is a CGI program."""
        environment = dict(os.environ, GIT_PROJECT_ROOT=self.folder, GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path,
                           QUERY_STRING=query, REQUEST_METHOD=self.command, REMOTE_USER="guest",
                           CONTENT_TYPE=self.headers.get("Content-Type", ""), CONTENT_LENGTH=str(len(body)),
                           HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""),
                           GIT_PROTOCOL=self.headers.get("Git-Protocol", ""))
        output = run("git", "http-backend", input=body, env=environment)
        head, _, content = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512

    def handle_error(self, request, client_address):
        """Clients that trust nobody, and those that go away, are meant to be there."""


class Server6(Server):
    address_family = socket.AF_INET6


def listen(context, kind=Server, address="127.0.0.1"):
    server = kind((address, 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        Handler.folder = folder
        make_certificates(folder)
        head = make_repository(folder, "large.git", FILES)
        small = make_repository(folder, "small.git", FILES // 10)
        block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(BIG // 32))
        with open(os.path.join(folder, "big"), "wb") as file:
            file.write(block)
        with open(os.path.join(folder, "medium"), "wb") as file:
            file.write(block[:MEDIUM])
        huge = hashlib.sha256()
        with open(os.path.join(folder, "huge"), "wb") as file:
            for _ in range(HUGE):
                file.write(block)
                huge.update(block)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(folder, "server.pem"), os.path.join(folder, "server.key"))
        print(f"http={listen(None)} http6={listen(None, Server6, '::1')} huge={huge.hexdigest()} https={listen(context)} udp={send_back()} head={head} small={small}",
              f"big={hashlib.sha256(block).hexdigest()} medium={hashlib.sha256(block[:MEDIUM]).hexdigest()} medium_size={MEDIUM}",
              flush=True)
        sys.stdin.read()


main()
