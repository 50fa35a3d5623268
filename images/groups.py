"""Datagrams for groups and for everybody, through the card and back: the workload net.groups."""

import socket
import struct
import time

GROUP, NUMBER = "239.77.0.9", 4077
GROUP6 = "ff02::77:9"
CARD = "eth0"


def until_addressed():
    """The name server's address leads through the card, once there is one."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("10.0.2.3", 53))
                own = probe.getsockname()[0]
            except OSError:
                own = ""
        local = [line.split()[0] for line in open("/proc/net/if_inet6") if line.startswith("fe80") and CARD in line]
        if own and local:
            return own, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(local[0]))
        time.sleep(0.2)
    raise SystemExit("no address")


def listener(family):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("", NUMBER))
    one.settimeout(0.5)
    return one


def heard(one):
    try:
        data, sender = one.recvfrom(100)
        return f"{data.decode()} from {sender[0]} {sender[2:]}"
    except TimeoutError:
        return "nothing"


def members(name, group):
    return sum(group in line for line in open(f"/proc/net/{name}"))


def fourth(own):
    one, two, out = listener(socket.AF_INET), listener(socket.AF_INET), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.sendto(b"early", (GROUP, NUMBER))
    print("4 nobody:", heard(one))
    request = socket.inet_aton(GROUP) + struct.pack("=II", 0, 0)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    print("4 listed:", members("igmp", "09004DEF"))
    out.sendto(b"hello", (GROUP, NUMBER))
    print("4 both:", *(heard(each).replace(own, "own") for each in (one, two)))
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    out.sendto(b"away", (GROUP, NUMBER))
    print("4 away:", heard(one))
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
    out.connect((GROUP, NUMBER))
    out.send(b"x" * 3000)
    print("4 long:", len(one.recv(4000)), "from own:", out.getsockname()[0] == own)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, request)
    out.send(b"late")
    print("4 left:", heard(one), members("igmp", "09004DEF"))
    everybody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    everybody.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    two.setblocking(False)
    while True:
        try:
            two.recv(4000)
        except BlockingIOError:
            break
    everybody.sendto(b"all", (".".join(own.split(".")[:3]) + ".255", NUMBER))
    print("4 everybody:", *(heard(each).replace(own, "own") for each in (one,)), two.recv(10))


def sixth(own):
    card = socket.if_nametoindex(CARD)
    one, out = listener(socket.AF_INET6), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    group = socket.inet_pton(socket.AF_INET6, GROUP6)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=I", card))
    print("6 listed:", members("igmp6", group.hex()))
    out.sendto(b"scope", (GROUP6, NUMBER, 0, card))
    print("6 by scope:", heard(one).replace(own, "own"))
    out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, card)
    out.sendto(b"option", (GROUP6, NUMBER))
    print("6 by option:", heard(one).replace(own, "own"))
    out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    out.sendto(b"away", (GROUP6, NUMBER))
    print("6 away:", heard(one))
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, group + struct.pack("=I", card))
    print("6 listed:", members("igmp6", group.hex()))


v4, v6 = until_addressed()
fourth(v4)
sixth(v6)
