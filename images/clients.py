"""Clients of the host's servers (workloads/net-server.py), and servers for clients of the host: the workloads faults and net.

The first argument is what to do, or `soak` with a number of seconds: then all of it, several at a time, as often as there is
time for. The environment says where: http, wire (of `cargo xtask workload`), and the checksums of what is served. At the end no
socket may be left that was not there before.
"""

import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

HOST = "10.0.2.2"
HTTP = f"http://{HOST}:{os.environ['http']}"
WIRE = os.environ.get("wire")
MEDIUM, MEDIUM_SIZE, SMALL = os.environ["medium"], int(os.environ["medium_size"]), os.environ["small"]
# Ports of the guest's servers, which the host reaches.
ECHO, SOURCE = 8080, 8081
MANY = 1000
# Nothing takes so long, however bad the wire is.
PATIENCE = 240


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE, **more)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ends with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def curl(*words):
    return run("curl", "-sS", *words)


def ask(path):
    """Has the host do something; what it answers."""
    return curl(f"{HTTP}/{path}").decode().strip()


def wire(words):
    return curl(f"{WIRE}/{words}").decode().strip()


def expect(seen, expected):
    if seen != expected:
        raise RuntimeError(f"{seen!r}, not {expected!r}")


def checksum(data):
    return hashlib.sha256(data).hexdigest()


def download(*words):
    expect(checksum(curl(*words, f"{HTTP}/medium")), MEDIUM)


def fetched():
    """The same as a file, for who sends it."""
    with lock:
        if not os.path.exists("/var/tmp/medium"):
            data = curl(f"{HTTP}/medium")
            expect(checksum(data), MEDIUM)
            with open("/var/tmp/medium.new", "wb") as file:
                file.write(data)
            os.rename("/var/tmp/medium.new", "/var/tmp/medium")
    return "/var/tmp/medium"


def upload(*words):
    expect(curl(*words, "-T", fetched(), f"{HTTP}/sum").decode().strip(), MEDIUM)


def clone():
    folder = f"/var/tmp/clone-{threading.get_ident()}"
    try:
        run("git", "clone", "-q", f"{HTTP}/git/small.git", folder)
        expect(run("git", "-C", folder, "rev-parse", "HEAD").decode().strip(), SMALL)
        run("git", "-C", folder, "fsck", "--full")
    finally:
        subprocess.run(["rm", "-rf", folder])


def reset(connection):
    """Drops it without a word but a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def opened(count=MANY, together=100):
    """Connections to the host, so many together; every third is reset, and every third says something before."""
    address = (HOST, int(os.environ["http"]))
    for start in range(0, count, together):
        connections = [socket.create_connection(address, timeout=PATIENCE) for _ in range(min(together, count - start))]
        for number, connection in enumerate(connections):
            if number % 3 == 1:
                connection.sendall(b"HEAD /none HTTP/1.1\r\nConnection: close\r\n\r\n")
                expect(connection.recv(12), b"HTTP/1.1 404")
            (reset if number % 3 == 2 else socket.socket.close)(connection)


def short():
    opened(20, 5)


def opened_by_host():
    expect(ask(f"open/{ECHO}/{MANY}"), f"{MANY} opened, {MANY} answered")


def flooded():
    """Half-open connections; who comes after them is served."""
    before = int(wire("counts").rsplit("swallowed=", 1)[1])
    wire(f"flood={ECHO}:{MANY}")
    expect(ask(f"open/{ECHO}/20"), "20 opened, 20 answered")
    time.sleep(2)
    answers = int(wire("counts").rsplit("swallowed=", 1)[1]) - before
    print("flooded:", "answered" if answers else "NOT ANSWERED", flush=True)
    expect(ask(f"open/{ECHO}/100"), "100 opened, 100 answered")


def connected_from(port):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.bind(("", port))
    # Far less than SYNs are repeated for.
    connection.settimeout(30)
    connection.connect((HOST, int(os.environ["http"])))
    return connection


def until_addressed():
    """A card that comes into use has an address again, by DHCP."""
    end = time.monotonic() + 30
    while b" inet " not in run("ip", "-4", "addr", "show", "dev", "eth0"):
        if time.monotonic() > end:
            raise RuntimeError("no address in 30 seconds")
        time.sleep(0.05)


def missed():
    """The host does not hear that connections have ended; the next ones from the same ports are made nevertheless."""
    for port in range(20000, 20012):
        old = connected_from(port)
        old.sendall(b"GET /small")
        run("ip", "link", "set", "eth0", "down")
        reset(old)
        run("ip", "link", "set", "eth0", "up")
        until_addressed()
        # QEMU's stack refuses a connection whose number is in the window of the one that it still knows. So long numbers need to
        # leave that behind, however soon the address is there.
        time.sleep(0.5)
        connected_from(port).close()


def slow_host():
    """The host reads a byte every 100 ms for two seconds before it reads the rest."""
    expect(curl("-T", fetched(), f"{HTTP}/slow").decode().strip(), MEDIUM)


def slow_guest():
    connection = socket.create_connection((HOST, int(os.environ["http"])), timeout=PATIENCE)
    connection.sendall(b"GET /medium HTTP/1.1\r\nConnection: close\r\n\r\n")
    data = b""
    for _ in range(20):
        data += connection.recv(1)
        time.sleep(0.1)
    digest = b""
    parts = [data]
    while digest := connection.recv(1 << 16):
        parts.append(digest)
    connection.close()
    expect(checksum(b"".join(parts).partition(b"\r\n\r\n")[2]), MEDIUM)


def slow_host_reads():
    """The same of what a server of the guest sends."""
    expect(ask(f"read/{SOURCE}"), MEDIUM)


def datagrams():
    """Those that come back are right, and most of them do."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(2)
    client.connect((HOST, int(os.environ["udp"])))
    sent = {struct.pack("!I", number) + os.urandom(50 + 13 * number) for number in range(100)}
    back = 0
    for message in sent:
        client.send(message)
        try:
            answer = client.recv(4096)
            back += 1
            if answer not in sent:
                raise RuntimeError("a datagram that nobody has sent")
        except TimeoutError:
            pass
    client.close()
    if back < 80:
        raise RuntimeError(f"{back} of {len(sent)} datagrams came back")


def loopback():
    """Servers of the guest, by the guest itself."""
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", ECHO), timeout=PATIENCE) as connection:
            data = os.urandom(100_000)
            sender = threading.Thread(target=connection.sendall, args=(data,))
            sender.start()
            parts, size = [], 0
            while size < len(data):
                parts.append(connection.recv(1 << 16))
                size += len(parts[-1])
            sender.join()
            expect(b"".join(parts) == data, True)


def carrier():
    with open("/sys/class/net/eth0/carrier") as file:
        return file.read().strip()


def cut(transfer):
    """The cable is taken out for three seconds in the middle of a transfer, which ends well."""
    # It may be out before it is looked at again.
    wrong, seen = [], [carrier()]

    def work():
        try:
            transfer("--limit-rate", "500k")
        except Exception as error:
            wrong.append(error)

    fetched()
    worker = threading.Thread(target=work)
    worker.start()
    # Of its eight seconds; the connection is made by then.
    time.sleep(2)
    wire("cut=3")
    end = time.monotonic() + 10
    watch = lambda: [time.sleep(0.1) or seen.append(carrier()) for _ in iter(lambda: time.monotonic() < end, False)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    worker.join()
    watcher.join()
    if wrong:
        raise wrong[0]
    # Whoever does not look at it hears nothing of it.
    print("carrier:", " ".join(mark for index, mark in enumerate(seen) if [mark] != seen[index - 1:index]), flush=True)


# Servers of the guest.


def answer(connection, _):
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def give(connection, _):
    with open(fetched(), "rb") as file, connection:
        connection.sendfile(file)


def serve(port, service):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(512)

    def one(connection):
        try:
            # A reset that the wire has lost is not sent again: who waits for more has to ask.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            service(connection, None)
        except OSError:
            # Clients go away as they like.
            connection.close()

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def sockets():
    """By /proc/net/sockstat: those in use, those that no program has any more, and all of TCP."""
    words = open("/proc/net/sockstat").read().replace("\n", " ").split()
    tcp = words.index("TCP:")
    numbers = dict(zip(words[tcp + 1::2], words[tcp + 2::2]))
    return {name: int(numbers[name]) for name in ("inuse", "orphan", "alloc")}


def left(before):
    """What is more than before; it goes soon, but for what the wire has lost the end of."""
    end = time.monotonic() + 130
    while True:
        now = sockets()
        more = {name: now[name] - before[name] for name in now if now[name] > before[name]}
        if not more or time.monotonic() > end:
            return more
        time.sleep(0.5)


TASKS = {
    "download": download,
    "upload": upload,
    "clone": clone,
    "opened": opened,
    "opened-by-host": opened_by_host,
    "flooded": flooded,
    "missed": missed,
    "slow-host": slow_host,
    "slow-guest": slow_guest,
    "slow-host-reads": slow_host_reads,
    "datagrams": datagrams,
    "loopback": loopback,
    "short": short,
    "cut-download": lambda: cut(download),
    "cut-upload": lambda: cut(upload),
}
SOAK = ["download", "upload", "clone", "short", "datagrams", "loopback", "slow-host", "slow-guest", "slow-host-reads"]
lock = threading.Lock()


def soak(seconds):
    """Each of them again and again, and one after another beside that."""
    end = time.monotonic() + seconds
    counts, wrong, since = dict.fromkeys(SOAK, 0), [], {}

    def client(name):
        while time.monotonic() < end and not wrong:
            since[name] = time.monotonic()
            try:
                TASKS[name]()
                counts[name] += 1
            except Exception:
                wrong.append(f"{name}: {traceback.format_exc()}")
        del since[name]

    clients = [threading.Thread(target=client, args=(name,), daemon=True) for name in SOAK]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(max(0, end - time.monotonic()) + PATIENCE + 30)
    wrong += [f"{name} HANGS for {time.monotonic() - at:.0f} s" for name, at in since.items()]
    print("soak:", ", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
    print("\n".join(wrong) or "no hang, no wrong byte", flush=True)
    return not wrong


def main():
    before = sockets()
    listeners = [serve(ECHO, answer), serve(SOURCE, give)]
    # With these two servers: what they are asked for by the host must be there.
    fetched()
    began = time.monotonic()
    good = True
    if sys.argv[1] == "soak":
        good = soak(float(sys.argv[2]))
    else:
        for name in sys.argv[1:]:
            TASKS[name]()
            print(f"{name}: good", flush=True)
    print(f"{time.monotonic() - began:.1f} s", flush=True)
    if WIRE:
        print(wire("loss=0,reorder=0,duplicate=0,corrupt=0,delay=0"), flush=True)
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    print("left:", left(before) or "nothing", flush=True)
    sys.exit(not good)


main()
