//! Files that execve(2) is given: what runs, what is refused, and that nothing worse comes of them.

use std::ffi::CStr;

use crate::process::{self, Status};
use crate::sys::{self, sys};
use crate::{say, tests};

tests! { elf_headers, program_headers, segments, interpreters, scripts, argument_lists }

/// Where the first instruction is, in the file and behind the load address; it ends with 42, that at `SECOND` with 7.
const FIRST: u64 = 0x800;
const SECOND: u64 = 0x1800;
const BASE: u64 = 0x40_0000;
/// Where the name of an interpreter is.
const NAME: u64 = 0x2000;

#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
}

const CODE: Segment =
    Segment { kind: 1, flags: 5, offset: 0, address: BASE, in_file: 0x1000, in_memory: 0x1000, align: 0x1000 };

#[derive(Clone)]
struct Elf {
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    headers: u64,
    header_size: u16,
    count: Option<u16>,
    segments: Vec<Segment>,
    name: Vec<u8>,
    length: usize,
}

impl Elf {
    fn new() -> Elf {
        Elf {
            kind: 2,
            machine: 183,
            version: 1,
            entry: BASE + FIRST,
            headers: 64,
            header_size: 56,
            count: None,
            segments: vec![CODE],
            name: Vec::new(),
            length: 0x3000,
        }
    }

    fn with(change: impl FnOnce(&mut Elf)) -> String {
        let mut elf = Elf::new();
        change(&mut elf);
        fate(&elf.bytes())
    }

    fn movable(&mut self) {
        self.kind = 3;
        self.entry = FIRST;
        self.segments[0].address = 0;
    }

    fn interpreter(&mut self, name: &[u8]) {
        let len = name.len() as u64;
        self.name = name.to_vec();
        let segment = Segment { kind: 3, flags: 4, offset: NAME, address: 0, in_file: len, in_memory: len, align: 1 };
        self.segments.insert(0, segment);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 0x3000];
        let mut put = |at: u64, part: &[u8]| bytes[at as usize..][..part.len()].copy_from_slice(part);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &self.kind.to_le_bytes());
        put(18, &self.machine.to_le_bytes());
        put(20, &self.version.to_le_bytes());
        put(24, &self.entry.to_le_bytes());
        put(32, &self.headers.to_le_bytes());
        put(52, &64u16.to_le_bytes());
        put(54, &self.header_size.to_le_bytes());
        put(56, &self.count.unwrap_or(self.segments.len() as u16).to_le_bytes());
        for (index, segment) in self.segments.iter().enumerate() {
            let words =
                [segment.offset, segment.address, segment.address, segment.in_file, segment.in_memory, segment.align];
            put(64 + 56 * index as u64, &segment.kind.to_le_bytes());
            put(68 + 56 * index as u64, &segment.flags.to_le_bytes());
            put(72 + 56 * index as u64, &words.map(u64::to_le_bytes).concat());
        }
        for (at, status) in [(FIRST, 42), (SECOND, 7)] {
            // mov x8, #93 (exit); mov x0, #status; svc 0
            let code = [0xd280_0ba8, 0xd280_0000 | status << 5, 0xd400_0001u32];
            put(at, &code.map(u32::to_le_bytes).concat());
        }
        put(NAME, &self.name);
        bytes.truncate(self.length);
        bytes
    }
}

fn store(path: &str, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let done =
        std::fs::write(path, bytes).and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)));
    done.unwrap_or_else(|error| say!("{path}: {error}"));
}

/// What becomes of a program with this content.
fn fate(bytes: &[u8]) -> String {
    store("program", bytes);
    run(c"program")
}

/// Linux refuses some programs only when the old one is gone, with SIGSEGV; to refuse them before is no worse.
fn run(path: &CStr) -> String {
    let status = process::in_child(|| {
        let argv = [path.as_ptr(), std::ptr::null()];
        128 + sys!(SYS_execve, path, &argv, &argv[1..]).errno()
    });
    match status {
        Status::Exited(code @ 129..) => sys::errno_name(code - 128),
        Status::Exited(code) => format!("exits with {code}"),
        other => other.to_string(),
    }
}

/// For what Linux refuses too late.
fn fails(outcome: String) -> &'static str {
    if outcome.starts_with("exits") { "runs" } else { "fails" }
}

fn elf_headers() {
    say!("as it should be: {}", Elf::with(|_| ()));
    say!("movable: {}", Elf::with(Elf::movable));
    for length in [0, 3, 4, 10, 63, 64, 119, 120] {
        say!("{length} bytes: {}", Elf::with(|elf| elf.length = length));
    }
    say!("version 0: {}", Elf::with(|elf| elf.version = 0));
    say!("another machine: {}", Elf::with(|elf| elf.machine = 62));
    for kind in [0, 1, 4, 0xfe00] {
        say!("type {kind:#x}: {}", Elf::with(|elf| elf.kind = kind));
    }
    say!("size of headers: {}", Elf::with(|elf| elf.header_size = 55));
    for count in [0, 1171, 65535] {
        say!("{count} headers: {}", Elf::with(|elf| elf.count = Some(count)));
    }
    for at in [1 << 40, i64::MAX as u64, u64::MAX] {
        say!("headers at {at:#x}: {}", Elf::with(|elf| elf.headers = at));
    }
    for entry in [0, BASE + FIRST + 2, 1 << 48, u64::MAX] {
        say!("entry at {entry:#x}: {}", fails(Elf::with(|elf| elf.entry = entry)));
    }
}

fn program_headers() {
    let with = |change: fn(&mut Segment)| Elf::with(|elf| change(&mut elf.segments[0]));
    say!("nothing to load: {}", fails(with(|segment| segment.kind = 4)));
    for address in [BASE + 1, 1 << 48, u64::MAX, BASE | 0x5a << 56] {
        say!("at {address:#x}: {}", fails(Elf::with(|elf| elf.segments[0].address = address)));
    }
    let last = (1 << 48) - 0x1000;
    let at_the_end = |elf: &mut Elf| (elf.segments[0].address, elf.entry) = (last, last + FIRST);
    say!("in the last page: {}", Elf::with(at_the_end));
    for size in [0, 0x800, 1 << 46, 1 << 47, u64::MAX] {
        say!("{size:#x} bytes in memory: {}", fails(Elf::with(|elf| elf.segments[0].in_memory = size)));
    }
    say!("size of everything: {}", fails(with(|segment| (segment.in_file, segment.in_memory) = (u64::MAX, u64::MAX))));
    say!("more than the file has: {}", with(|segment| (segment.in_file, segment.in_memory) = (0x10_0000, 0x10_0000)));
    for offset in [0x10_0000, 1 << 63, !0xfff] {
        say!("from {offset:#x} of the file: {}", fails(Elf::with(|elf| elf.segments[0].offset = offset)));
    }
    for flags in [0, 1, 2, 7] {
        say!("flags {flags}: {}", Elf::with(|elf| elf.segments[0].flags = flags));
    }
    for align in [3, u64::MAX, 1 << 40] {
        say!("alignment {align:#x}: {}", Elf::with(|elf| elf.segments[0].align = align));
    }
    let wild = |kind: u32| Segment { kind, flags: 4, offset: !0, address: !0, in_file: !0, in_memory: !0, align: !0 };
    say!("headers in memory: {}", Elf::with(|elf| elf.segments.insert(0, wild(6))));
    say!("thread-local: {}", Elf::with(|elf| elf.segments.insert(0, wild(7))));
}

fn segments() {
    let two = |change: fn(&mut Segment, &mut Segment)| {
        Elf::with(|elf| {
            let (mut first, mut second) = (CODE, CODE);
            change(&mut first, &mut second);
            elf.segments = vec![first, second];
        })
    };
    say!(
        "in one page: {}",
        two(|first, second| {
            (first.in_file, first.in_memory) = (0x900, 0x900);
            (second.address, second.offset) = (BASE + 0x900, 0x900);
            (second.in_file, second.in_memory) = (0x700, 0x700);
        })
    );
    say!("the later one wins: {}", two(|_, second| second.offset = 0x1000));
    say!(
        "in part: {}",
        two(|first, second| {
            (first.in_file, first.in_memory) = (0x2000, 0x2000);
            (second.address, second.offset) = (BASE + 0x1000, 0x1000);
        })
    );
    say!("descending: {}", two(|_, second| (second.address, second.offset) = (BASE - 0x10000, 0x1000)));
    say!(
        "descending and movable: {}",
        Elf::with(|elf| {
            elf.movable();
            elf.entry += 0x10000;
            elf.segments[0].address += 0x10000;
            elf.segments.push(Segment { address: 0, offset: 0x1000, ..CODE });
        })
    );
    say!(
        "zeros behind code: {}",
        Elf::with(|elf| {
            (elf.segments[0].in_file, elf.segments[0].in_memory) = (0x900, 0x5000);
        })
    );
}

fn interpreters() {
    let by = |name: &[u8]| Elf::with(|elf| elf.interpreter(name));
    say!("missing: {}", by(b"/no/where\0"));
    say!("no end of the name: {}, {}", by(b"/no/where"), by(b"/xyz"));
    for size in [0, 1, 4097, u64::MAX] {
        let long = |elf: &mut Elf| {
            elf.interpreter(b"");
            elf.segments[0].in_file = size;
        };
        say!("name of {size} bytes: {}", Elf::with(long));
    }
    let beyond = |elf: &mut Elf| {
        elf.interpreter(b"/no/where\0");
        elf.segments[0].offset = 0x10000;
    };
    say!("name beyond the end: {}", Elf::with(beyond));
    say!("directory: {}, device: {}", by(b"/tmp\0"), by(b"/dev/null\0"));
    store("text", b"no program");
    store("longer", &[b'x'; 1000]);
    say!("text: {}, more of it: {}", by(b"text\0"), by(b"longer\0"));
    say!("itself: {}", by(b"program\0"));
    let mut loader = Elf::new();
    loader.movable();
    loader.entry = SECOND;
    (loader.segments[0].in_file, loader.segments[0].in_memory) = (0x2000, 0x2000);
    store("loader", &loader.bytes());
    say!("movable: {}", by(b"loader\0"));
    (loader.kind, loader.entry, loader.segments[0].address) = (2, 0x50_0000 + SECOND, 0x50_0000);
    store("loader", &loader.bytes());
    say!("fixed: {}", by(b"loader\0"));
    let looping = |elf: &mut Elf| {
        elf.movable();
        elf.interpreter(b"loop\0");
    };
    let mut elf = Elf::new();
    looping(&mut elf);
    store("loop", &elf.bytes());
    say!("that wants an interpreter, too: {}", Elf::with(looping));
}

fn scripts() {
    let lines: [&[u8]; 12] = [
        b"#!",
        b"#!\n",
        b"#! \n",
        b"#! ",
        b"#!\0\n",
        b"#!/no/where\n",
        b"#!program\n",
        b"#!/tmp\n",
        b"#!/dev/null\n",
        b"\n",
        b"",
        b"#!/bin/true\0abc",
    ];
    for line in lines {
        say!("{}: {}", line.escape_ascii(), fate(line));
    }
    let long = [b"#!/".to_vec(), vec![b'x'; 300]].concat();
    say!("a long line: {}", fate(&long));
    // A chain: each is run by the one before.
    store("s0", &Elf::new().bytes());
    for index in 1..8 {
        store(&format!("s{index}"), format!("#!s{}\n", index - 1).as_bytes());
    }
    say!("five scripts: {}, six: {}", run(c"s5"), run(c"s6"));
}

/// Strings that are too long, too many, or not there.
fn argument_lists() {
    let attempt = |argv: &[*const u8], envp: &[*const u8]| {
        store("program", &Elf::new().bytes());
        match process::in_child(|| 128 + sys!(SYS_execve, c"program", argv, envp).errno()) {
            Status::Exited(code @ 129..) => sys::errno_name(code - 128),
            other => other.to_string(),
        }
    };
    let null = std::ptr::null::<u8>();
    let text = |len: usize| [vec![b'x'; len], vec![0]].concat();
    let (longest, too_long, page) = (text(131_071), text(131_072), text(4095));
    say!("the longest string: {}", attempt(&[longest.as_ptr(), null], &[null]));
    say!("one byte more: {}", attempt(&[too_long.as_ptr(), null], &[null]));
    let many = |count: usize, string: &[u8]| [vec![string.as_ptr(); count], vec![null]].concat();
    say!("one and a half MiB: {}", attempt(&many(384, &page), &[null]));
    say!("two MiB: {}", attempt(&many(512, &page), &[null]));
    say!("one and a half MiB of each: {}", attempt(&many(384, &page), &many(384, &page)));
    say!("empty strings: {}", attempt(&many(300_000, &text(0)), &[null]));
    say!("no strings: {}", attempt(&[null], &[null]));
    say!("a string that is not there: {}", attempt(&[8 as *const u8, null], &[null]));
    say!("none of the arrays: {}", process::in_child(|| sys!(SYS_execve, c"program", 0, 0).errno()));
    say!("an array that is not there: {}", process::in_child(|| sys!(SYS_execve, c"program", 8, 0).errno()));
}
