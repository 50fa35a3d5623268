"""The clients on the host of the servers that workloads/servers.toml runs in the guest.

Arguments are GUESTPORT=PORT: where on the host's loopback the guest's ports are. Prints a line with the port on which it waits
for requests of the guest over HTTP, each of which has it do something and answers what came of it; ends with its standard input.

/git    clones from git daemon, commits, pushes
/redis  sets and gets with several connections
/http   fetches /small and /large with several connections, and answers their checksums

/repository/ is a repository of Debian packages, with one: `other`, which has a file of 4 MiB.
"""

import concurrent.futures
import hashlib
import http.client
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading

PORTS = dict(map(int, word.split("=")) for word in sys.argv[1:])
LOCAL = "127.0.0.1"
CONNECTIONS = 8
REPOSITORY = {}


def at_once(client):
    """What so many clients answer."""
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(client, range(CONNECTIONS)))


def git():
    name = {f"GIT_{who}_{what}": "host@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    run = lambda *words: subprocess.run(("git", *words), check=True, capture_output=True, env=os.environ | name).stdout
    with tempfile.TemporaryDirectory() as folder:
        run("clone", "-q", f"git://{LOCAL}:{PORTS[9418]}/served.git", folder)
        run("-C", folder, "fsck", "--full")
        files = len(run("-C", folder, "ls-files").splitlines())
        with open(os.path.join(folder, "of-host"), "w") as file:
            file.write("from the host\n")
        run("-C", folder, "add", "of-host")
        run("-C", folder, "commit", "-qm", "of the host")
        run("-C", folder, "push", "-q", "origin", "HEAD")
        return f"the host has {files} files"


def redis():
    def client(number):
        with socket.create_connection((LOCAL, PORTS[6379]), timeout=60) as connection, connection.makefile("rwb") as file:
            for turn in range(100):
                key, value = f"host:{number}:{turn}".encode(), hashlib.sha256(b"%d %d" % (number, turn)).digest() * 40
                file.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
                file.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
                file.flush()
                expected = b"+OK\r\n$%d\r\n%s\r\n" % (len(value), value)
                if file.read(len(expected)) != expected:
                    return 0
        return 100

    return f"the host got {sum(at_once(client))}"


def fetch():
    def client(_):
        sums = []
        connection = http.client.HTTPConnection(LOCAL, PORTS[8080], timeout=60)
        for path in ("/small", "/large", "/small"):
            connection.request("GET", path)
            sums.append(hashlib.sha256(connection.getresponse().read()).hexdigest())
        connection.close()
        return " ".join(sums)

    return "\n".join(sorted(set(at_once(client))))


def make_repository(folder):
    """Its files by their names."""
    tree = os.path.join(folder, "tree")
    control = "Package: other\nVersion: 1\nArchitecture: all\nMaintainer: m <m@x>\nDescription: other\n"
    content = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(4 << 20 >> 5))
    for name, data in {"DEBIAN/control": control.encode(), "usr/share/other/content": content}.items():
        file = os.path.join(tree, name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as opened:
            opened.write(data)
    package = os.path.join(folder, "other.deb")
    subprocess.run(("dpkg-deb", "--build", "--root-owner-group", tree, package), check=True, capture_output=True)
    with open(package, "rb") as opened:
        data = opened.read()
    fields = f"Filename: ./other.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    return {"Packages": (control + fields).encode(), "other.deb": data}


class Requests(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.startswith("/repository/"):
            body = REPOSITORY.get(self.path.removeprefix("/repository/").removeprefix("./"))
        else:
            body = ({"/git": git, "/redis": redis, "/http": fetch}[self.path]() + "\n").encode()
        self.send_response(200 if body is not None else 404)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    with tempfile.TemporaryDirectory() as folder:
        REPOSITORY.update(make_repository(folder))
    server = http.server.ThreadingHTTPServer((LOCAL, 0), Requests)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"host=http://10.0.2.2:{server.server_address[1]}", flush=True)
    sys.stdin.read()


main()
