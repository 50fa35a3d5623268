//! Tells a wire what to do while it is in use: requests like `GET /loss=1,reorder=1` on the host's loopback, which the guest
//! reaches as 10.0.2.2. The answer is what has happened so far.
//!
//! | word | |
//! |---|---|
//! | `loss=1` and the other rates | from now on |
//! | `link=down`, `link=up` | takes the cable out of the card, puts it in |
//! | `cut=5` | takes it out soon, and puts it in again so many seconds later: for a guest, which must hear the answer |
//! | `flood=8080:1000` | so many SYNs for this port, from machines that are not there |
//! | `counts` | nothing |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::faults::words;
use super::flood::Flood;
use super::monitor::Monitor;
use super::shim::Shim;

/// From the answer to a guest to the moment at which the link goes.
const SOON: Duration = Duration::from_millis(300);
/// A client that says nothing is left alone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request, with all its headers.
const LONGEST: u64 = 8192;
/// The most frames and seconds that can be asked for.
const MOST_FRAMES: u32 = 60_000;
const LONGEST_CUT: f64 = 600.0;

/// Where requests are taken: a port of the host's loopback, perhaps one that is kept, so that nobody else has it meanwhile.
#[derive(Clone, Debug)]
pub struct Door {
    port: u16,
    kept: Option<Arc<TcpListener>>,
}

impl Door {
    pub fn at(port: u16) -> Door {
        Door { port, kept: None }
    }

    /// One that nobody has.
    pub fn any() -> io::Result<Door> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Door { port: listener.local_addr()?.port(), kept: Some(Arc::new(listener)) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn open(&self) -> io::Result<TcpListener> {
        match &self.kept {
            Some(listener) => listener.try_clone(),
            None => TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)),
        }
    }
}

impl PartialEq for Door {
    fn eq(&self, other: &Door) -> bool {
        self.port == other.port
    }
}

/// A server that listens. Dropped, it does not any more.
pub struct Control {
    port: u16,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Control {
    pub fn listen(door: &Door, shim: Arc<Shim>, monitor: Arc<Monitor>) -> Result<Control> {
        let port = door.port;
        let listener = door.open().with_context(|| format!("the wire cannot be controlled on port {port}"))?;
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let serve = move || {
            for client in listener.incoming().flatten() {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                let (shim, monitor) = (shim.clone(), monitor.clone());
                // One that is slow is nobody else's concern; its errors are its own.
                thread::spawn(move || _ = serve(&client, &shim, &monitor));
            }
        };
        let thread = thread::Builder::new().name("wire control".into()).spawn(serve)?;
        Ok(Control { port, over, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // For what it does next.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

fn serve(client: &TcpStream, shim: &Shim, monitor: &Arc<Monitor>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client).take(LONGEST).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of what it says is of no interest, but it wants to be read.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let text = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) = match obey(text, shim, monitor) {
        Ok(()) => ("200 OK", shim.told()),
        Err(refusal) => ("400 Bad Request", refusal),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len() + 1);
    let mut writer = client;
    writer.write_all(format!("{head}{body}\n").as_bytes())?;
    client.shutdown(Shutdown::Write)
}

fn obey(text: &str, shim: &Shim, monitor: &Arc<Monitor>) -> Result<(), String> {
    if text == "counts" {
        return Ok(());
    }
    let mut rates = shim.rates();
    for word in words(text) {
        match word? {
            ("link", "up") => monitor.set_link(true).map_err(|error| error.to_string())?,
            ("link", "down") => monitor.set_link(false).map_err(|error| error.to_string())?,
            ("cut", value) => cut(value, monitor.clone())?,
            ("flood", value) => shim.flood(flood(value)?),
            (name, value) => {
                if !rates.set(name, value)? {
                    return Err(format!("{name}={value} is nothing that a wire can do"));
                }
            }
        }
    }
    shim.set_rates(rates);
    Ok(())
}

fn cut(value: &str, monitor: Arc<Monitor>) -> Result<(), String> {
    let seconds = value.parse::<f64>().ok().filter(|seconds| (0.0..=LONGEST_CUT).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("cut={value}: not a number of seconds from 0 to {LONGEST_CUT}"))?;
    thread::spawn(move || {
        thread::sleep(SOON);
        let _ = monitor.set_link(false);
        thread::sleep(Duration::from_secs_f64(seconds));
        let _ = monitor.set_link(true);
    });
    Ok(())
}

fn flood(value: &str) -> Result<Flood, String> {
    let parsed = value.split_once(':').and_then(|(port, count)| {
        let (port, count) = (port.parse().ok()?, count.parse().ok()?);
        (port > 0 && count <= MOST_FRAMES).then_some(Flood { port, count })
    });
    parsed.ok_or_else(|| format!("flood={value}: not PORT:COUNT with a count of at most {MOST_FRAMES}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn requests_change_the_wire_and_nonsense_is_refused() {
        let (card, _card) = UnixDatagram::pair().unwrap();
        let (network, _network) = UnixDatagram::pair().unwrap();
        let shim = Shim::start(card, network, &"loss=5".parse().unwrap()).unwrap();
        let monitor = Arc::new(Monitor::new(UnixStream::pair().unwrap().0));
        let door = Door::any().unwrap();
        let port = door.port();
        assert!(Control::listen(&Door::at(port), shim.clone(), monitor.clone()).is_err(), "it is kept");
        let control = Control::listen(&door, shim.clone(), monitor).unwrap();
        let ask = |path: &str| {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            write!(client, "GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(ask("counts").ends_with("\r\n\r\nloss=5 reorder=0 duplicate=0 corrupt=0 delay=0 in=0 out=0 lost=0 duplicated=0 reordered=0 corrupted=0 swallowed=0\n"));
        assert!(ask("loss=0,delay=10").contains("loss=0 reorder=0 duplicate=0 corrupt=0 delay=10"));
        assert!(ask("noise=3").starts_with("HTTP/1.1 400") && ask("flood=80").contains("not PORT:COUNT"));
        assert!(ask("cut=601").contains("not a number of seconds from 0 to 600"));
        assert_eq!(shim.rates().loss, 0.0);
        // A line without an end is not waited for: the client is answered before it has stopped.
        let mut endless = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        endless.set_read_timeout(Some(PATIENCE / 2)).unwrap();
        endless.write_all(&[b'x'; LONGEST as usize]).unwrap();
        assert_eq!(endless.read(&mut [0; 4]).unwrap(), 4);
        drop((control, door));
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        shim.stop();
    }
}
