"""Many connections of TCP over loopback, and what is left of them: the workload servers.connections.

The argument is for how many seconds connections are opened and dropped.
"""

import errno
import hashlib
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time

MANY = 1000
LOCAL = ("127.0.0.1", 0)


def listener(backlog):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(LOCAL)
    server.listen(backlog)
    return server


def pair(server):
    client = socket.create_connection(server.getsockname())
    return client, server.accept()[0]


def reset(connection):
    """Drops it without a word but a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def left():
    """Sockets that ss(8) lists, but for those that wait for their time to be over."""
    listed = subprocess.run(["ss", "-H", "-t", "-a", "-n"], check=True, capture_output=True, text=True).stdout
    return sum(not line.startswith("TIME-WAIT") for line in listed.splitlines())


def none_left():
    """What goes its last steps goes them soon."""
    end = time.monotonic() + 10
    while (count := left()) and time.monotonic() < end:
        time.sleep(0.1)
    return count


def opened_and_dropped(seconds):
    """So many at the same time; half of them are closed, half reset."""
    end = time.monotonic() + seconds
    rounds = good = 0
    while rounds == 0 or time.monotonic() < end and rounds < 15:
        rounds += 1
        with listener(MANY) as server:
            clients = [socket.create_connection(server.getsockname()) for _ in range(MANY)]
            served = [server.accept()[0] for _ in range(MANY)]
            if rounds == 1:
                # Both ends of each, and who listens.
                print("ss lists", left(), flush=True)
            by_port = {client.getsockname()[1]: client for client in clients}
            for number, connection in enumerate(served):
                connection.sendall(b"%d" % number)
            seen = {}
            poll = select.epoll()
            for client in clients:
                poll.register(client, select.EPOLLIN | select.EPOLLET)
            files = {client.fileno(): client for client in clients}
            while len(seen) < MANY:
                for file, _ in poll.poll():
                    seen[files[file].getsockname()[1]] = int(files[file].recv(64))
            good += sum(seen[connection.getpeername()[1]] == number for number, connection in enumerate(served))
            poll.close()
            ends = {}
            for number, connection in enumerate(served):
                client = by_port[connection.getpeername()[1]]
                (reset if number % 2 else socket.socket.close)(client)
            for connection in served:
                try:
                    end_of_it = connection.recv(1)
                except ConnectionResetError:
                    end_of_it = "reset"
                ends[end_of_it] = ends.get(end_of_it, 0) + 1
                connection.close()
            if ends != {b"": MANY // 2, "reset": MANY // 2}:
                print("wrong ends", ends)
    return good == rounds * MANY


def not_accepted():
    """More than the queue takes; then nobody listens any more."""
    server = listener(16)
    clients = []
    for _ in range(200):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(server.getsockname())
        clients.append(client)
    time.sleep(0.5)
    connected = [client for client in clients if not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) and has_peer(client)]
    accepted = 0
    for _ in range(10):
        server.accept()[0].close()
        accepted += 1
    server.close()
    refused = 0
    for client in connected:
        client.settimeout(5)
        try:
            refused += client.recv(1) not in (b"",)
        except ConnectionResetError:
            refused += 1
    for client in clients:
        client.close()
    return len(connected) >= 17 and refused >= 7 and accepted == 10


def has_peer(client):
    try:
        client.getpeername()
        return True
    except OSError:
        return False


def slow_readers():
    """The buffers of fifty connections are filled; what was sent then arrives, a bit at a time."""
    with listener(64) as server:
        pairs = [pair(server) for _ in range(50)]
        sums, sizes = [], []
        for number, (_, sender) in enumerate(pairs):
            sender.setblocking(False)
            digest, size, block = hashlib.sha256(), 0, hashlib.sha256(b"%d" % number).digest() * 1024
            try:
                while True:
                    sent = sender.send(block)
                    digest.update(block[:sent])
                    size += sent
            except BlockingIOError:
                sums.append(digest.hexdigest())
                sizes.append(size)
            sender.shutdown(socket.SHUT_WR)
        read = [hashlib.sha256() for _ in pairs]
        waiting = {client.fileno(): number for number, (client, _) in enumerate(pairs)}
        while waiting:
            for file in select.select(list(waiting), [], [])[0]:
                number = waiting[file]
                data = pairs[number][0].recv(7000)
                read[number].update(data)
                if not data:
                    del waiting[file]
        for ends in pairs:
            for end in ends:
                end.close()
        return min(sizes) > 100_000 and [digest.hexdigest() for digest in read] == sums


def killed():
    """A process that has 100 connections, some with data that it has not read, is killed."""
    with listener(128) as server:
        child = os.fork()
        if child == 0:
            connections = [socket.create_connection(server.getsockname()) for _ in range(100)]
            signal.pause()
            sys.exit(len(connections))
        served = [server.accept()[0] for _ in range(100)]
        for connection in served[:50]:
            connection.sendall(b"not read")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ends = {}
        for connection in served:
            try:
                end = connection.recv(1)
            except OSError as error:
                end = errno.errorcode[error.errno]
            ends[end] = ends.get(end, 0) + 1
            connection.close()
        return ends == {"ECONNRESET": 50, b"": 50}


def half_closed():
    """One direction is closed; the other still carries a megabyte."""
    with listener(8) as server:
        client, served = pair(server)
        client.shutdown(socket.SHUT_WR)
        if served.recv(1) != b"" or (child := os.fork()) == 0:
            client.close()
            served.sendall(bytes(1 << 20))
            os._exit(0)
        served.close()
        total = 0
        while data := client.recv(1 << 16):
            total += len(data)
        os.waitpid(child, 0)
        client.close()
        return total == 1 << 20


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    for name, check in [
        ("opened and dropped", lambda: opened_and_dropped(int(sys.argv[1]))),
        ("not accepted", not_accepted),
        ("slow readers", slow_readers),
        ("killed", killed),
        ("half closed", half_closed),
    ]:
        print(f"{name}: {'good' if check() else 'BAD'}, {none_left()} left", flush=True)


main()
