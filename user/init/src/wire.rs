//! The protocol between `cargo xtask qemu -- CMD` and the guest's init, over a serial console.
//!
//! A console is a poor wire: the kernel's log may appear on it at any moment, in the middle of
//! anything else, and its receiver may drop bytes when it is not read in time. So:
//!
//! * **Every byte of the protocol has its top bit set**, every byte of a kernel's log has not.
//!   The two can be mixed byte by byte and still be told apart. Six bits of payload travel in
//!   each byte `0x80..=0xbf`; [`START`] and [`END`], which occur nowhere in UTF-8, delimit frames.
//! * Each frame ends with a CRC-32, so damage is noticed and never taken for data.
//! * The host keeps at most [`WINDOW`] bytes on the way that the guest has not acknowledged.
//!
//! The conversation: the guest says [`Frame::Hello`]; the host sends the encoded [`Request`] in
//! [`Frame::Request`] pieces and then [`Frame::Start`]; then [`Frame::Stdin`] … [`Frame::StdinEnd`]
//! go one way and [`Frame::Stdout`], [`Frame::Stderr`], [`Frame::Trace`] and at last [`Frame::Exit`] the other.
//! The guest answers each frame it has consumed with [`Frame::Ack`].

/// First byte of a frame.
pub const START: u8 = 0xc0;
/// Last byte of a frame.
pub const END: u8 = 0xc1;
/// Unacknowledged bytes that may be on the way to the guest; a tty holds at least 4095.
pub const WINDOW: usize = 2048;
/// Payload of one frame towards the guest: a few of them fit into [`WINDOW`].
pub const HOST_CHUNK: usize = 480;
/// Payload of one frame towards the host.
pub const GUEST_CHUNK: usize = 4096;

/// Longest encoded frame that a decoder puts up with before it starts over.
const MAX_ENCODED: usize = 16 * 1024;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called `exit` with this status.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl Exit {
    /// The status a shell shows for it.
    pub fn status(self) -> i32 {
        match self {
            Exit::Code(code) => i32::from(code),
            Exit::Signal(signal) => 128 + i32::from(signal),
        }
    }
}

/// One message, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Guest: ready for a request; repeats the nonce of its command line.
    Hello(String),
    /// Guest: this many bytes, as they were on the wire, are consumed.
    Ack(u32),
    /// Guest: the program's standard output.
    Stdout(Vec<u8>),
    /// Guest: the program's standard error.
    Stderr(Vec<u8>),
    /// Guest: records of system calls, whole lines.
    Trace(Vec<u8>),
    /// Guest: the program is gone and all its output has been sent.
    Exit(Exit),
    /// Host: a piece of the encoded [`Request`].
    Request(Vec<u8>),
    /// Host: the request is complete, run it.
    Start,
    /// Host: bytes for the program's standard input.
    Stdin(Vec<u8>),
    /// Host: end of the standard input.
    StdinEnd,
}

impl Frame {
    fn tag(&self) -> u8 {
        match self {
            Frame::Hello(_) => b'h',
            Frame::Ack(_) => b'a',
            Frame::Stdout(_) => b'o',
            Frame::Stderr(_) => b'e',
            Frame::Trace(_) => b't',
            Frame::Exit(_) => b'x',
            Frame::Request(_) => b'r',
            Frame::Start => b's',
            Frame::Stdin(_) => b'i',
            Frame::StdinEnd => b'z',
        }
    }

    /// The frame as it travels, delimiters included.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.tag()];
        match self {
            Frame::Hello(nonce) => body.extend_from_slice(nonce.as_bytes()),
            Frame::Ack(bytes) => body.extend_from_slice(&bytes.to_le_bytes()),
            Frame::Stdout(data)
            | Frame::Stderr(data)
            | Frame::Trace(data)
            | Frame::Request(data)
            | Frame::Stdin(data) => body.extend_from_slice(data),
            Frame::Exit(Exit::Code(code)) => body.extend_from_slice(&[b'c', *code]),
            Frame::Exit(Exit::Signal(signal)) => body.extend_from_slice(&[b's', *signal]),
            Frame::Start | Frame::StdinEnd => {}
        }
        body.extend_from_slice(&crc32(&body).to_le_bytes());
        let mut wire = Vec::with_capacity(body.len() * 4 / 3 + 4);
        wire.push(START);
        for group in body.chunks(3) {
            let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            // n bytes need n + 1 sextets; the decoder recovers n from their number.
            for sextet in 0..=group.len() {
                wire.push(0x80 | (bits >> (18 - 6 * sextet) & 0x3f) as u8);
            }
        }
        wire.push(END);
        wire
    }

    fn parse(body: &[u8]) -> Option<Frame> {
        let (body, crc) = body.split_last_chunk::<4>()?;
        if crc32(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (tag, data) = body.split_first()?;
        Some(match (tag, data) {
            (b'h', nonce) => Frame::Hello(String::from_utf8(nonce.to_vec()).ok()?),
            (b'a', bytes) => Frame::Ack(u32::from_le_bytes(bytes.try_into().ok()?)),
            (b'o', data) => Frame::Stdout(data.to_vec()),
            (b'e', data) => Frame::Stderr(data.to_vec()),
            (b't', data) => Frame::Trace(data.to_vec()),
            (b'r', data) => Frame::Request(data.to_vec()),
            (b'i', data) => Frame::Stdin(data.to_vec()),
            (b'x', [b'c', code]) => Frame::Exit(Exit::Code(*code)),
            (b'x', [b's', signal]) => Frame::Exit(Exit::Signal(*signal)),
            (b's', []) => Frame::Start,
            (b'z', []) => Frame::StdinEnd,
            _ => return None,
        })
    }
}

/// What a [`Decoder`] made of a byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet.
    None,
    /// The byte does not belong to the protocol.
    Plain(u8),
    /// It completed this frame, which took so many bytes on the wire.
    Frame(Frame, usize),
    /// It completed a frame that was damaged on the way.
    Damaged,
}

/// Finds the frames in what comes over a console.
#[derive(Default)]
pub struct Decoder {
    inside: bool,
    sextets: Vec<u8>,
}

impl Decoder {
    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> Event {
        match byte {
            START => {
                self.inside = true;
                self.sextets.clear();
                Event::None
            }
            END if self.inside => {
                self.inside = false;
                match self.body().and_then(|body| Frame::parse(&body)) {
                    Some(frame) => Event::Frame(frame, self.sextets.len() + 2),
                    None => Event::Damaged,
                }
            }
            0x80..=0xbf if self.inside => {
                self.sextets.push(byte & 0x3f);
                if self.sextets.len() > MAX_ENCODED {
                    self.inside = false;
                    return Event::Damaged;
                }
                Event::None
            }
            other => Event::Plain(other),
        }
    }

    fn body(&self) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(self.sextets.len());
        for group in self.sextets.chunks(4) {
            if group.len() < 2 {
                return None;
            }
            let bits =
                group.iter().fold(0u32, |bits, sextet| bits << 6 | u32::from(*sextet)) << (6 * (4 - group.len()));
            body.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
        }
        Some(body)
    }
}

/// What the host wants the guest to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The program and its arguments; the program is looked up in PATH.
    pub argv: Vec<Vec<u8>>,
    /// Variables set on top of init's own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory; empty for init's.
    pub cwd: Vec<u8>,
    /// Have the system calls recorded, and send the records.
    pub trace: bool,
}

impl Request {
    /// Strings with their lengths, lists with their counts.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut string = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        string(&(self.argv.len() as u32).to_le_bytes());
        self.argv.iter().for_each(|arg| string(arg));
        string(&(self.env.len() as u32).to_le_bytes());
        for (name, value) in &self.env {
            string(name);
            string(value);
        }
        string(&self.cwd);
        string(&[u8::from(self.trace)]);
        out
    }

    /// The inverse of [`Request::encode`].
    pub fn decode(mut bytes: &[u8]) -> Option<Request> {
        fn string(bytes: &mut &[u8]) -> Option<Vec<u8>> {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let (string, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            *bytes = rest;
            Some(string.to_vec())
        }
        fn count(bytes: &mut &[u8]) -> Option<u32> {
            Some(u32::from_le_bytes(string(bytes)?.try_into().ok()?))
        }
        let bytes = &mut bytes;
        let mut request = Request::default();
        for _ in 0..count(bytes)? {
            request.argv.push(string(bytes)?);
        }
        for _ in 0..count(bytes)? {
            request.env.push((string(bytes)?, string(bytes)?));
        }
        request.cwd = string(bytes)?;
        request.trace = string(bytes)? == [1];
        bytes.is_empty().then_some(request)
    }
}

/// The CRC of Ethernet and zip (reflected 0x04c11db7).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Hello("nonce".into()),
            Frame::Ack(77),
            Frame::Stdout(vec![0, 1, 2, 0xc0, 0xc1, 0xff, b'\n']),
            Frame::Stderr(vec![]),
            Frame::Stdin((0..=255).collect()),
            Frame::Start,
            Frame::StdinEnd,
            Frame::Exit(Exit::Code(3)),
            Frame::Exit(Exit::Signal(9)),
        ]
    }

    #[test]
    fn crc_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn frames_survive_a_log_written_between_all_their_bytes() {
        let mut decoder = Decoder::default();
        let mut log = Vec::new();
        let mut seen = Vec::new();
        for frame in frames() {
            for byte in frame.encode() {
                for byte in [byte, b'L'] {
                    match decoder.push(byte) {
                        Event::Plain(byte) => log.push(byte),
                        Event::Frame(frame, _) => seen.push(frame),
                        Event::None => {}
                        Event::Damaged => panic!("damaged"),
                    }
                }
            }
        }
        assert_eq!(seen, frames());
        assert!(log.iter().all(|byte| *byte == b'L'));
    }

    #[test]
    fn a_lost_or_changed_byte_never_passes_for_data() {
        let frame = Frame::Stdout(b"some output".to_vec());
        let wire = frame.encode();
        for position in 1..wire.len() - 1 {
            let mut lost = wire.clone();
            lost.remove(position);
            let mut changed = wire.clone();
            changed[position] ^= 0x04;
            for bytes in [lost, changed] {
                let mut decoder = Decoder::default();
                let last = bytes.iter().map(|byte| decoder.push(*byte)).last();
                // The spare bits of the last sextet carry nothing.
                match last {
                    Some(Event::Frame(seen, _)) => assert_eq!(seen, frame),
                    other => assert_eq!(other, Some(Event::Damaged)),
                }
            }
        }
    }

    #[test]
    fn requests_come_back_as_they_were() {
        let request = Request {
            argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"echo \xff; exit 3".to_vec(), vec![]],
            env: vec![(b"A".to_vec(), b"1".to_vec())],
            cwd: b"/tmp".to_vec(),
            trace: true,
        };
        assert_eq!(Request::decode(&request.encode()), Some(request.clone()));
        assert_eq!(Request::decode(&request.encode()[..9]), None);
    }
}
