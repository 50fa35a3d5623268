//! What happened: lines of time, CPU, task and event; and a hash over everything that happened.

use std::collections::VecDeque;

use pollux_kernel::{arch, process};

/// Lines kept; a longer run loses its beginning.
const KEPT: usize = 200_000;

#[derive(Default)]
pub struct Trace {
    lines: VecDeque<Line>,
    hash: Hash,
}

struct Line {
    time: u64,
    cpu: Option<usize>,
    task: Option<u32>,
    text: String,
}

/// FNV-1a over 64-bit words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub fn add_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }
}

impl Trace {
    /// Something that is worth a line. No host addresses, host times or the like: they would differ in the next run.
    pub fn event(&mut self, cpu: Option<usize>, text: String) {
        let time = arch::now_ns();
        self.hash.add(time);
        self.hash.add(cpu.map_or(u64::MAX, |cpu| cpu as u64));
        self.hash.add_bytes(text.as_bytes());
        self.note(cpu, text);
    }

    /// A line for people that may be different next time.
    pub fn note(&mut self, cpu: Option<usize>, text: String) {
        let time = arch::now_ns();
        let task = cpu.and_then(|_| process::with_current(|task| task.map(|task| task.tid())));
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { time, cpu, task, text });
    }

    /// Something that counts but is not shown.
    pub fn silent(&mut self, word: u64) {
        self.hash.add(word);
    }

    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The last lines, for people.
    pub fn tail(&self, lines: usize) -> String {
        let skipped = self.lines.len().saturating_sub(lines);
        let mut out = String::from("        time  cpu   task  event\n");
        for line in self.lines.iter().skip(skipped) {
            let cpu = line.cpu.map_or("-".into(), |cpu| cpu.to_string());
            let task = line.task.map_or("-".into(), |task| task.to_string());
            let micros = line.time as f64 / 1000.0;
            out += &format!("{micros:>12.3}  {cpu:>3}  {task:>5}  {}\n", line.text);
        }
        out
    }
}
