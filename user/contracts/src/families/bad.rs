//! Calls with one bad argument among good ones: what [`super::bad_fd`] and [`super::bad_pointer`] share.

use std::ffi::CStr;

use libc::*;

use crate::memory::{self, PAGE};
use crate::process::{self, Status};
use crate::sys::{self, Ret, sys};
use crate::{file, say, signal};

/// An argument of a call, in a state that the call can work with.
#[derive(Clone, Copy)]
pub enum Arg {
    Int(i64),
    /// An open file.
    Fd(Kind),
    /// Memory that begins with these words, and goes on with zeros to the end of a page.
    Words(&'static [u64]),
    /// A string in such memory.
    Text(&'static CStr),
    /// A `struct iovec` for eight bytes.
    Vector,
    /// A `struct msghdr` with such a vector.
    Message,
}

/// What a descriptor is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    MinusOne,
    Closed,
    Huge,
    Path,
    Directory,
    ReadOnly,
    WriteOnly,
    Both,
    Null,
    PipeReader,
    PipeWriter,
    Event,
    Epoll,
    Timer,
    Socket,
    Process,
    Link,
}

/// Every kind, by name.
pub const KINDS: &[(&str, Kind)] = &[
    ("-1", Kind::MinusOne),
    ("closed", Kind::Closed),
    ("a million", Kind::Huge),
    ("O_PATH", Kind::Path),
    ("O_PATH of a link", Kind::Link),
    ("directory", Kind::Directory),
    ("file, read-only", Kind::ReadOnly),
    ("file, write-only", Kind::WriteOnly),
    ("file", Kind::Both),
    ("/dev/null", Kind::Null),
    ("pipe, read end", Kind::PipeReader),
    ("pipe, write end", Kind::PipeWriter),
    ("eventfd", Kind::Event),
    ("epoll", Kind::Epoll),
    ("timerfd", Kind::Timer),
    ("socket", Kind::Socket),
    ("pidfd", Kind::Process),
];

impl Kind {
    pub fn open(self) -> i32 {
        match self {
            Kind::MinusOne => -1,
            Kind::Closed => 99,
            Kind::Huge => 1_000_000,
            Kind::Path => file::open(c"file", O_PATH).fd(),
            Kind::Link => file::open(c"link", O_PATH | O_NOFOLLOW).fd(),
            Kind::Directory => file::open(c"directory", O_RDONLY | O_DIRECTORY).fd(),
            Kind::ReadOnly => file::open(c"file", O_RDONLY).fd(),
            Kind::WriteOnly => file::open(c"file", O_WRONLY).fd(),
            Kind::Both => file::open(c"file", O_RDWR).fd(),
            Kind::Null => file::open(c"/dev/null", O_RDWR).fd(),
            Kind::PipeReader => {
                let [reader, writer] = file::pipe_with(O_NONBLOCK);
                file::write(writer, "some bytes");
                reader
            }
            Kind::PipeWriter => file::pipe_with(O_NONBLOCK)[1],
            Kind::Event => sys!(SYS_eventfd2, 1, EFD_NONBLOCK).fd(),
            Kind::Epoll => sys!(SYS_epoll_create1, 0).fd(),
            Kind::Timer => sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).fd(),
            Kind::Socket => sys!(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0).fd(),
            Kind::Process => sys!(SYS_pidfd_open, sys!(SYS_getpid).0, 0).fd(),
        }
    }
}

/// What the calls find in their directory.
fn furnish() {
    file::close(file::create(c"file", "the contents of a file"));
    sys!(SYS_mkdirat, AT_FDCWD, c"directory", 0o755);
    sys!(SYS_symlinkat, c"file", AT_FDCWD, c"link");
}

impl Arg {
    fn value(self) -> usize {
        match self {
            Arg::Int(value) => value as usize,
            Arg::Fd(kind) => kind.open() as usize,
            Arg::Words(words) => self.memory(words),
            Arg::Text(text) => {
                let memory = memory::pages(1);
                for (at, byte) in text.to_bytes_with_nul().iter().enumerate() {
                    memory::poke(memory.wrapping_add(at), *byte);
                }
                memory as usize
            }
            Arg::Vector => self.memory(&[memory::pages(1) as u64, 8]),
            Arg::Message => self.memory(&[0, 0, Arg::Vector.value() as u64, 1, 0, 0, 0]),
        }
    }

    fn memory(self, words: &[u64]) -> usize {
        let memory = memory::pages(1);
        for (at, byte) in words.iter().flat_map(|word| word.to_ne_bytes()).enumerate() {
            memory::poke(memory.wrapping_add(at), byte);
        }
        memory as usize
    }

    pub fn is_pointer(self) -> bool {
        !matches!(self, Arg::Int(_) | Arg::Fd(_))
    }
}

/// Makes the call in a process of its own, which it may ruin, with `bad` in the place of one argument; says what it
/// returned. One that does not come back within a second waits for something.
fn attempt(what: &str, number: i64, arguments: &[Arg], bad: (usize, &dyn Fn() -> usize)) {
    let status = process::in_child(|| {
        signal::handle(SIGALRM, signal::count, 0);
        signal::ignore(SIGPIPE);
        let mut values: Vec<usize> = arguments.iter().map(|argument| argument.value()).collect();
        values[bad.0] = bad.1();
        let second = [0i64, 0, 1, 0];
        sys!(SYS_setitimer, ITIMER_REAL, &second, 0);
        let ret = sys::raw(number, &values);
        match ret {
            _ if ret.errno() == EINTR => say!("{what}: waits"),
            Ret(..0) => say!("{what}: {ret}"),
            _ => say!("{what}: ok"),
        }
        0
    });
    if status != Status::Exited(0) {
        say!("{what}: {status}");
    }
}

/// The call with each kind of descriptor in the place of each that it takes.
pub fn descriptors(number: i64, arguments: &[Arg]) {
    furnish();
    let places = arguments.iter().enumerate().filter(|(_, argument)| matches!(argument, Arg::Fd(_)));
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    for place in &places {
        for (name, kind) in KINDS {
            let what = if places.len() > 1 { format!("argument {}: {name}", place + 1) } else { (*name).into() };
            attempt(&what, number, arguments, (*place, &|| kind.open() as usize));
        }
    }
}

/// The call with each kind of bad address in the place of each pointer that it takes.
pub fn pointers(number: i64, arguments: &[Arg]) {
    furnish();
    let places = arguments.iter().enumerate().filter(|(_, argument)| argument.is_pointer());
    for (place, argument) in places {
        let say = |what: &str, bad: &dyn Fn() -> usize| {
            attempt(&format!("argument {}: {what}", place + 1), number, arguments, (place, bad));
        };
        say("null", &|| 0);
        say("unmapped", &|| sys::NOWHERE as usize);
        say("the kernel's", &|| sys::KERNEL as usize);
        say("-1", &|| usize::MAX);
        say("to read only", &|| {
            let memory = argument.value();
            sys!(SYS_mprotect, memory, PAGE, PROT_READ);
            memory
        });
        say("with one byte to the end", &|| {
            let memory = memory::pages(2) as usize;
            sys!(SYS_munmap, memory + PAGE, PAGE);
            memory::poke((memory + PAGE - 1) as *mut u8, 1);
            memory + PAGE - 1
        });
    }
}
