//! What the kernel tells of the loopback: rtnetlink(7).

use libc::*;

use crate::netlink::*;
use crate::{say, tests};

tests! {
    link_by_index, link_by_name, no_such_link, links, addresses, addresses6, routes, ways, rules, neighbours, strict,
    strict_filters,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What both kernels tell of the loopback.
const SHOWN: [u16; 12] = [
    IFLA_ADDRESS,
    IFLA_BROADCAST,
    IFLA_IFNAME,
    IFLA_MTU,
    IFLA_QDISC,
    IFLA_TXQLEN,
    IFLA_OPERSTATE,
    IFLA_LINKMODE,
    27,
    30,
    31,
    33,
];

fn show_link(link: &Message) {
    say!("{} {:x}: {}", link.kind, link.flags, hex(link.head(16)));
    for (kind, data) in
        link.attributes(16).iter().filter(|(kind, _)| SHOWN.contains(kind)).collect::<std::collections::BTreeSet<_>>()
    {
        say!("  {kind}: {}", hex(data));
    }
    let length = |kind| link.attribute(16, kind).map(|data| data.len());
    say!("  counters: {:?} {:?}", length(IFLA_STATS), length(IFLA_STATS64).is_some_and(|len| len >= 192));
}

fn link_by_index() {
    let fd = route();
    ask(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0))).iter().for_each(show_link);
}

fn link_by_name() {
    let fd = route();
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_IFNAME, b"lo\0"));
    say!("{}", verdict(fd, &message(RTM_GETLINK, REQUEST, &body)));
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_IFNAME, b"lo"));
    say!("without its end: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &body)));
}

fn no_such_link() {
    let fd = route();
    say!("index: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &link_head(4711, 0, 0))));
    say!("negative: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &link_head(u32::MAX, 0, 0))));
    say!("none: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &link_head(0, 0, 0))));
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_IFNAME, b"nosuch\0"));
    say!("name: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &body)));
}

/// The messages of a list about the loopback, whose index is at this place.
fn of_lo(answers: &[Message], at: usize) -> Vec<&Message> {
    answers.iter().filter(|answer| answer.body.get(at..at + 4) == Some(&LO.to_ne_bytes()[..])).collect()
}

fn links() {
    let fd = route();
    for body in
        [link_head(0, 0, 0), vec![AF_UNSPEC as u8], vec![AF_INET as u8, 0, 0, 0], vec![AF_BRIDGE as u8, 0, 0, 0]]
    {
        let answers = ask(fd, &message(RTM_GETLINK, DUMP, &body));
        let links = of_lo(&answers, 4);
        say!(
            "{} {:?}",
            links.len(),
            links.first().map(|link| (link.kind, link.flags, link.seq, link.port == own_port(fd)))
        );
        say!("  {}", answers.last().map_or("nothing".into(), |last| last.verdict()));
    }
}

fn show_addresses(family: i32) {
    let fd = route();
    let answers = ask(fd, &message(RTM_GETADDR, DUMP, &address_head(family, 0, 0)));
    for address in of_lo(&answers, 4) {
        say!("{} {:x}: {}", address.kind, address.flags, hex(address.head(8)));
        for (kind, data) in address
            .attributes(8)
            .iter()
            .filter(|(kind, _)| *kind != IFA_CACHEINFO)
            .collect::<std::collections::BTreeSet<_>>()
        {
            say!("  {kind}: {}", hex(data));
        }
        let times = address.attribute(8, IFA_CACHEINFO).map(|data| hex(&data[..8]));
        say!("  for how long: {times:?}");
    }
    say!("{}", answers.last().map_or("nothing".into(), |last| last.verdict()));
}

fn addresses() {
    show_addresses(AF_INET);
    let fd = route();
    let one = message(RTM_GETADDR, REQUEST, &address_head(AF_INET, 0, LO));
    say!("one: {}", verdict(fd, &one));
}

fn addresses6() {
    show_addresses(AF_INET6);
    let fd = route();
    let of = |last: u8| {
        let mut ip = [0; 16];
        ip[15] = last;
        let mut body = address_head(AF_INET6, 0, 0);
        body.extend(attribute(IFA_ADDRESS, &ip));
        verdict(fd, &message(RTM_GETADDR, REQUEST, &body))
    };
    say!("one: {} {}", of(1), of(9));
}

/// The routes of the loopback in a list, in some order, by family.
fn show_routes(answers: &[Message]) {
    let own = |route: &&Message| route.attribute(12, RTA_OIF).is_some_and(|index| index == LO.to_ne_bytes());
    let mut rows: Vec<String> = answers
        .iter()
        .filter(own)
        .map(|route| {
            let of = |kind| route.attribute(12, kind).map_or("-".into(), |data| hex(&data));
            format!(
                "{} {:x} {} to {} from {} metric {} table {}",
                route.kind,
                route.flags,
                hex(route.head(8)),
                of(RTA_DST),
                of(RTA_PREFSRC),
                of(RTA_PRIORITY),
                of(RTA_TABLE)
            )
        })
        .collect();
    rows.sort();
    rows.iter().for_each(|row| say!("{row}"));
    say!("{}", answers.last().map_or("nothing".into(), |last| last.verdict()));
}

fn routes() {
    let fd = route();
    show_routes(&ask(fd, &message(RTM_GETROUTE, DUMP, &route_head(AF_INET, 0, 0, 0, 0, 0))));
    show_routes(&ask(fd, &message(RTM_GETROUTE, DUMP, &route_head(AF_INET6, 0, 0, 0, 0, 0))));
}

fn ways() {
    let fd = route();
    let to = |ip: [u8; 4], flags: u32| {
        let mut body = route_head(AF_INET, 32, 0, 0, 0, 0);
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body.extend(attribute(RTA_DST, &ip));
        message(RTM_GETROUTE, REQUEST, &body)
    };
    for (ip, flags) in [([127, 0, 0, 1], 0), ([127, 0, 0, 1], 0x1000), ([127, 1, 2, 3], 0x1000)] {
        for way in ask(fd, &to(ip, flags)) {
            let of = |kind| way.attribute(12, kind).map_or("-".into(), |data| hex(&data));
            let head = hex(way.head(12));
            say!(
                "{} {head} to {} by {} from {} over {}",
                way.kind,
                of(RTA_DST),
                of(RTA_OIF),
                of(RTA_PREFSRC),
                of(RTA_GATEWAY)
            );
        }
    }
    let mut body = route_head(AF_INET, 32, 0, 0, 0, 0);
    body.extend(attribute(RTA_DST, &[127, 0, 0]));
    say!("short: {}", verdict(fd, &message(RTM_GETROUTE, REQUEST, &body)));
    body.truncate(12);
    body.extend(attribute(RTA_DST, &[127, 0, 0, 1]));
    body.extend(attribute(RTA_SRC, &[9, 9, 9, 9]));
    say!("from others: {}", verdict(fd, &message(RTM_GETROUTE, REQUEST, &body)));
    say!("of another family: {}", verdict(fd, &message(RTM_GETROUTE, REQUEST, &route_head(AF_UNIX, 0, 0, 0, 0, 0))));
}

fn rules() {
    let fd = route();
    for family in [AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX] {
        let answers = ask(fd, &message(34, DUMP, &[family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        for rule in answers.iter().filter(|answer| answer.kind == 32 && answer.head(1)[0] < 128) {
            let of = |kind| rule.attribute(12, kind).map_or("-".into(), |data| hex(&data));
            say!("{:x} {} table {} priority {} by {}", rule.flags, hex(rule.head(12)), of(15), of(6), of(21));
        }
        say!("{family}: {}", answers.last().map_or("nothing".into(), |last| last.verdict()));
    }
}

fn neighbours() {
    let fd = route();
    let mut head = vec![AF_INET as u8, 0, 0, 0];
    head.extend(LO.to_ne_bytes());
    head.extend([0; 4]);
    say!("none: {}", verdict(fd, &message(RTM_GETNEIGH, REQUEST, &head)));
    let mut body = head.clone();
    body.extend(attribute(NDA_DST, &[9, 9, 9, 9]));
    say!("unknown: {}", verdict(fd, &message(RTM_GETNEIGH, REQUEST, &body)));
    body[4..8].copy_from_slice(&4711u32.to_ne_bytes());
    say!("no link: {}", verdict(fd, &message(RTM_GETNEIGH, REQUEST, &body)));
    let answers = ask(fd, &message(RTM_GETNEIGH, DUMP, &[AF_UNIX as u8, 0, 0, 0]));
    say!("of another family: {}", answers.last().map_or("nothing".into(), |last| last.verdict()));
}

fn strict() {
    let fd = route();
    say!("{}", set(fd, 12, 1));
    let last = |kind: u16, body: &[u8]| {
        let answers = ask(fd, &message(kind, DUMP, body));
        answers.last().map_or("nothing".into(), |last| last.verdict())
    };
    say!("short: {}", last(RTM_GETLINK, &[0; 4]));
    say!("an index: {}", last(RTM_GETLINK, &link_head(LO, 0, 0)));
    say!("flags: {}", last(RTM_GETLINK, &link_head(0, 1, 0)));
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_MTU, &[0; 4]));
    say!("an attribute: {}", last(RTM_GETLINK, &body));
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(29, &[1, 0, 0, 0]));
    say!("a mask: {}", last(RTM_GETLINK, &body));
    say!("addresses, short: {}", last(RTM_GETADDR, &[AF_INET as u8, 0, 0, 0]));
    say!("addresses, a prefix: {}", last(RTM_GETADDR, &address_head(AF_INET, 8, 0)));
    say!("addresses, no link: {}", last(RTM_GETADDR, &address_head(AF_INET, 0, 4711)));
    say!("routes, short: {}", last(RTM_GETROUTE, &[AF_INET as u8, 0, 0, 0]));
    say!("routes, a prefix: {}", last(RTM_GETROUTE, &route_head(AF_INET, 8, 0, 0, 0, 0)));
    say!("routes, a table: {}", last(RTM_GETROUTE, &route_head(AF_INET, 0, 77, 0, 0, 0)));
    let mut body = route_head(AF_INET, 0, 0, 0, 0, 0);
    body.extend(attribute(RTA_OIF, &4711u32.to_ne_bytes()));
    say!("routes, no link: {}", last(RTM_GETROUTE, &body));
    say!("rules: {}", last(34, &[AF_INET as u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

fn strict_filters() {
    let fd = route();
    set(fd, 12, 1).need();
    let answers = ask(fd, &message(RTM_GETADDR, DUMP, &address_head(AF_INET, 0, LO)));
    let flags = answers.first().map(|answer| answer.flags);
    say!("addresses: {} {flags:x?}", of_lo(&answers, 4).len() == answers.len() - 1);
    show_routes(&ask(fd, &message(RTM_GETROUTE, DUMP, &route_head(AF_INET, 0, 255, 0, 0, RTN_BROADCAST))));
    show_routes(&ask(fd, &message(RTM_GETROUTE, DUMP, &route_head(AF_INET, 0, 255, 99, 0, 0))));
}
