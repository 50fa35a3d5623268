//! A terminal with a driver that remembers what it was given.

use super::*;
use alloc::string::ToString;

#[derive(Default)]
struct Wire {
    sent: SpinLock<Vec<u8>>,
    /// How much more it takes.
    room: SpinLock<Option<usize>>,
}

struct WireDriver(Arc<Wire>);

impl TtyDriver for WireDriver {
    fn write(&self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.0.sent.lock().extend(&bytes[..taken]);
        if let Some(room) = &mut *self.0.room.lock() {
            *room -= taken;
        }
        taken
    }

    fn room(&self) -> usize {
        self.0.room.lock().unwrap_or(usize::MAX)
    }
}

fn terminal(change: impl FnOnce(&mut Termios)) -> (Arc<Tty>, Arc<Wire>) {
    let wire = Arc::new(Wire::default());
    let mut termios = Termios::serial();
    change(&mut termios);
    let driver = Box::new(WireDriver(wire.clone()));
    (Tty::new(DeviceId::new(4, 0), "test".to_string(), driver, termios), wire)
}

fn type_in(tty: &Tty, bytes: &[u8]) -> usize {
    let mut bytes = bytes.iter();
    tty.receive(|| bytes.next().copied())
}

fn read(tty: &Tty, len: usize) -> Result<Vec<u8>, TryError> {
    let mut out = vec![0; len];
    let n = tty.try_read(&mut IoBuf::kernel_mut(&mut out), false)?;
    out.truncate(n);
    Ok(out)
}

fn sent(wire: &Wire) -> Vec<u8> {
    core::mem::take(&mut *wire.sent.lock())
}

#[test]
fn lines_are_echoed_and_read() {
    let (tty, wire) = terminal(|_| {});
    assert_eq!(read(&tty, 10), Err(TryError::WouldBlock));
    type_in(&tty, b"ls\r");
    assert_eq!(sent(&wire), b"ls\r\n");
    assert!(tty.ready(None).contains(Events::IN | Events::OUT));
    assert_eq!(read(&tty, 2).as_deref(), Ok(&b"ls"[..]));
    assert_eq!(read(&tty, 10).as_deref(), Ok(&b"\n"[..]));
    assert_eq!(read(&tty, 10), Err(TryError::WouldBlock));
    type_in(&tty, b"\x04");
    assert_eq!(read(&tty, 10).as_deref(), Ok(&b""[..]));
    assert_eq!(read(&tty, 10), Err(TryError::WouldBlock));
}

#[test]
fn long_lines_are_read_in_pieces() {
    let (tty, _) = terminal(|_| {});
    let mut line = vec![b'x'; 1000];
    line.push(b'\n');
    type_in(&tty, &line);
    assert_eq!(read(&tty, 4000), Ok(line));
}

#[test]
fn raw_reads_wait_for_vmin() {
    let (tty, _) = terminal(|t| {
        t.lflag = 0;
        t.cc[raw::VMIN as usize] = 3;
    });
    type_in(&tty, b"ab");
    assert_eq!(read(&tty, 10), Err(TryError::WouldBlock));
    assert!(!tty.ready(None).contains(Events::IN));
    // A shorter read is content with what it asked for; one that must not wait takes what is there.
    assert_eq!(read(&tty, 1).as_deref(), Ok(&b"a"[..]));
    let mut one = [0; 4];
    assert_eq!(tty.try_read(&mut IoBuf::kernel_mut(&mut one), true), Ok(1));
    let mut termios = tty.termios();
    termios.cc[raw::VMIN as usize] = 0;
    tty.set_termios(termios, false);
    assert_eq!(read(&tty, 10).as_deref(), Ok(&b""[..]));
}

#[test]
fn output_stops_and_goes_on() {
    let (tty, wire) = terminal(|_| {});
    assert_eq!(tty.try_write(&mut IoBuf::kernel(b"a\n")), Ok(2));
    type_in(&tty, b"\x13");
    assert_eq!(tty.try_write(&mut IoBuf::kernel(b"b")), Err(TryError::WouldBlock));
    assert!(!tty.ready(None).contains(Events::OUT));
    type_in(&tty, b"x");
    assert_eq!(sent(&wire), b"a\r\n");
    type_in(&tty, b"\x11");
    assert_eq!(sent(&wire), b"x");
    assert_eq!(tty.try_write(&mut IoBuf::kernel(b"b")), Ok(1));
}

#[test]
fn what_the_driver_has_no_room_for_is_not_taken() {
    let (tty, wire) = terminal(|_| {});
    *wire.room.lock() = Some(4);
    assert_eq!(tty.try_write(&mut IoBuf::kernel(b"abc\ndef")), Ok(3));
    assert_eq!(sent(&wire), b"abc");
    *wire.room.lock() = Some(100);
    assert_eq!(tty.try_write(&mut IoBuf::kernel(b"\ndef")), Ok(4));
    assert_eq!(sent(&wire), b"\r\ndef");
}

#[test]
fn a_hang_up_kills_open_files_and_leaves_later_ones_alone() {
    let (tty, _) = terminal(|_| {});
    let old = tty.open();
    tty.hang_up();
    assert!(tty.hung_up(old) && tty.ready(Some(old)).contains(Events::HUP));
    let new = tty.open();
    assert!(!tty.hung_up(new));
}

#[test]
fn input_beyond_the_limit_stays_outside() {
    let (tty, _) = terminal(|t| t.lflag = 0);
    assert_eq!(type_in(&tty, &[b'x'; 5000]), 4095);
    assert_eq!(read(&tty, 95).map(|bytes| bytes.len()), Ok(95));
    assert_eq!(type_in(&tty, &[b'x'; 5000]), 95);
}

#[test]
fn one_call_sends_few_signals_and_leaves_the_rest() {
    let (tty, _) = terminal(|_| {});
    assert_eq!(type_in(&tty, &[3; 100]), SIGNAL_LIMIT);
}

#[test]
fn one_call_shows_a_long_line_again_only_so_often() {
    let (tty, wire) = terminal(|_| {});
    type_in(&tty, &[b'x'; 4000]);
    sent(&wire);
    // ^R, VREPRINT: each makes more than 4,000 bytes of echo.
    let taken = type_in(&tty, &[0x12; 100]);
    assert!((8..=10).contains(&taken), "{taken}");
    let shown = sent(&wire).len();
    assert!((ECHO_LIMIT..=MAX_ECHO).contains(&shown), "{shown}");
}
