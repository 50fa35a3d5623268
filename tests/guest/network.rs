//! The network card: a guest and servers and clients on the host, which it reaches as 10.0.2.2.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::{lab, run_on};
use xtask::machine::{Bus, KernelKind, MachineOptions};
use xtask::network::Forward;
use xtask::refusal::PortTaken;

use crate::trial;

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
pub const LIMIT: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial> {
    let mmio = || client(Bus::Mmio, 2);
    let pci = || client(Bus::Pci, 1);
    vec![
        trial("network::a_guest_reaches_servers_of_the_host", mmio),
        trial("network::a_guest_reaches_servers_of_the_host_over_pci", pci),
        trial("network::the_host_reaches_a_server_in_a_guest", server),
        trial("network::a_static_address_of_the_command_line", static_address),
    ]
}

fn options() -> MachineOptions {
    MachineOptions { no_net: false, ..lab::options() }
}

/// A port of the host's loopback where nobody is at the moment.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((LOOPBACK, 0))?.local_addr()?.port())
}

/// Sends back what comes, to whoever connects. It ends with the test.
pub fn tcp_echo(at: Ipv4Addr) -> Result<u16> {
    let listener = TcpListener::bind((at, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    Ok(port)
}

pub fn udp_echo(at: Ipv4Addr) -> Result<u16> {
    let socket = UdpSocket::bind((at, 0))?;
    let port = socket.local_addr()?.port();
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = vec![0; 70_000];
        loop {
            let (len, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..len], from)?;
        }
    });
    Ok(port)
}

fn client(bus: Bus, smp: u8) -> Result<()> {
    let (tcp, udp, nobody) = (tcp_echo(LOOPBACK)?, udp_echo(LOOPBACK)?, free_port()?);
    let machine = lab::machine(&MachineOptions { bus, smp: Some(smp), ..options() }, "test")?;
    let ports = [tcp, udp, nobody].map(|port| port.to_string());
    let argv = ["probe", "net", &ports[0], &ports[1], &ports[2]];
    let text = lab::text_of(run_on(&machine, &argv, b"", LIMIT)?)?;
    let expected = "echo: 10485760 bytes back\n\
        datagrams: 1 true true, 512 true true, 1472 true true, 1473 true true, 8000 true true, \n\
        nobody: Some(ConnectionRefused)\n\
        nobody to send to: Some(WouldBlock)\n\
        later: -1 true, 1 4, 0, 10.0.2.15 10.0.2.2\n\
        reset: hello\n\
        many: 100 good\n\
        unreachable: Some(HostUnreachable)\n";
    // Of a datagram that nobody takes QEMU's user mode tells as from 127.0.0.1, which is dropped.
    ensure!(text == expected, "{text}");
    Ok(())
}

fn server() -> Result<()> {
    PortTaken::again(serve)
}

/// A megabyte there and back over each of several connections at the same time, and a datagram.
fn serve() -> Result<()> {
    const CLIENTS: usize = 4;
    let (port, datagrams) = (free_port()?, free_port()?);
    let forward = vec![Forward::tcp(port, 7000), Forward::udp(datagrams, 7000)];
    let machine = lab::machine(&MachineOptions { forward, ..options() }, "test")?;
    let guest = thread::spawn(move || run_on(&machine, &["probe", "serve", "7000", "4"], b"", LIMIT));
    let answer = ask_datagram(datagrams, &guest);
    let joined =
        |guest: thread::JoinHandle<_>| guest.join().map_err(|_| anyhow::anyhow!("the guest's thread has panicked"))?;
    if let Err(error) = answer {
        // Perhaps it knows why.
        return Err(joined(guest).err().unwrap_or(error));
    }
    let clients: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(move || there_and_back(port, number))).collect();
    for client in clients {
        client.join().map_err(|_| anyhow::anyhow!("a client has panicked"))??;
    }
    let output = joined(guest)?;
    let text = lab::text_of(output)?;
    ensure!(text == "listening\nserver: 4194304 bytes\n", "{text}");
    Ok(())
}

/// Until the guest answers: before it listens datagrams are lost.
fn ask_datagram<T>(port: u16, guest: &thread::JoinHandle<T>) -> Result<()> {
    let socket = UdpSocket::bind((LOOPBACK, 0))?;
    socket.connect((LOOPBACK, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let end = Instant::now() + LIMIT;
    let mut back = [0; 100];
    loop {
        ensure!(Instant::now() < end && !guest.is_finished(), "the guest does not answer");
        let _ = socket.send(b"anybody?");
        if let Ok(len) = socket.recv(&mut back) {
            ensure!(&back[..len] == b"anybody?", "another answer");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn there_and_back(port: u16, number: usize) -> Result<()> {
    let data: Vec<u8> = (0..1 << 20).map(|place: usize| (place * 13 + place / 4093 + number) as u8).collect();
    let mut stream = TcpStream::connect((LOOPBACK, port)).context("no connection to the guest")?;
    let mut writer = stream.try_clone()?;
    let sent = data.clone();
    let sender = thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.shutdown(Shutdown::Write)));
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    sender.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
    ensure!(back == data, "{} bytes came back, or others", back.len());
    Ok(())
}

/// `ip=`, and what /proc and the ioctls tell of it; there is no DHCP then.
fn static_address() -> Result<()> {
    if lab::kernel() == KernelKind::Linux {
        // Debian's kernel has the driver as a module, too late for `ip=`.
        return Ok(());
    }
    let append = "ip=10.0.2.99::10.0.2.2:255.255.255.0::eth0:off:10.0.2.3".into();
    let machine = lab::machine(&MachineOptions { append, ..options() }, "test")?;
    let script = "cat /proc/net/pnp; ip=$(ifconfig eth0 | grep 'inet addr'); echo $ip; \
        cut -f 1-4,8 /proc/net/route | tail -n +2 | tr '\\t' ' '; cat /sys/class/net/eth0/address; \
        ls /sys/class/net | tr '\\n' ' '";
    let text = lab::text_of(run_on(&machine, &["sh", "-c", script], b"", LIMIT)?)?;
    let expected = "#MANUAL\nnameserver 10.0.2.3\ninet addr:10.0.2.99 Bcast:10.0.2.255 Mask:255.255.255.0\n\
        eth0 00000000 0202000A 0003 00000000\neth0 0002000A 00000000 0001 00FFFFFF\n\
        52:54:00:12:34:56\neth0 lo ";
    ensure!(text == expected, "{text}");
    Ok(())
}
