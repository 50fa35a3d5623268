//! Sockets: socket(7), unix(7), ip(7).
//!
//! * [`socket`]: the trait of all families and [`socket::Common`], what every socket has: type, options, pending error.
//! * [`transfer`]: the loops of sendmsg and recvmsg. A family only makes attempts that do not wait; blocking, O_NONBLOCK,
//!   MSG_DONTWAIT and the timeouts of SO_RCVTIMEO and SO_SNDTIMEO are made of them here. read(2) and write(2) use the
//!   same attempts through [`crate::fs::FileOps`].
//! * [`address`], [`control`], [`options`]: `struct sockaddr`, ancillary data and socket options in user memory.
//! * [`device`]: sockets that use one interface only.
//! * [`rights`]: descriptors on their way (SCM_RIGHTS), and the collector of sockets that only lead to each other.
//! * [`unix`] is AF_UNIX, [`inet`] AF_INET and AF_INET6, and [`interface`] what addresses the machine has.
//! * [`netlink`] is AF_NETLINK: how programs ask about the network, and change it.
//! * [`link`] is AF_PACKET: frames as they come and go; [`filter`]: programs that say which of what comes a socket wants.
//! * [`card`]: the network behind a card, with a task of its own that stands in for the sockets of other machines.
//! * [`limits`]: what /proc/sys/net says of all sockets.
//! * [`counted`]: how many sockets there are.
//! * [`listeners`]: who wants what comes under a key.
//! * [`packet`]: the bytes of a datagram on their way from user memory and into it.
//!
//! Locks: `rights::IN_FLIGHT` → the state of a Unix socket, of two the one at the lower address first → leaves (wait
//! queues, the table of abstract names). Nothing that holds an open file is dropped under any of them.

pub mod address;
pub mod card;
pub mod control;
pub mod counted;
pub mod device;
pub mod filter;
pub mod inet;
pub mod interface;
pub mod limits;
pub mod link;
mod listeners;
pub mod netlink;
pub mod options;
mod packet;
pub mod rights;
pub mod socket;
pub mod transfer;
pub mod unix;
