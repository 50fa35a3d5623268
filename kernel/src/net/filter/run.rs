//! What programs do.

use super::Instruction;
use super::check::*;
use crate::arch;
use crate::drivers::random;

/// From here on a place is one behind the network header, or behind the link header (SKF_NET_OFF, SKF_LL_OFF).
const OF_NETWORK: u32 = -0x10_0000i32 as u32;
const OF_LINK: u32 = -0x20_0000i32 as u32;
/// `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// A run looks at so many attributes at most: all there are in a packet that Linux has in one piece (16 KiB), but once.
const ATTRIBUTES: usize = 4096;

/// What a filter sees of a packet.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// All that there is, from the link header on if there is one.
    pub bytes: &'a [u8],
    /// Where the network header begins, and where what the filter is asked about.
    pub network: usize,
    pub start: usize,
    /// ETH_P_*.
    pub protocol: u16,
    /// PACKET_*.
    pub kind: u8,
    /// The interface and its ARPHRD_*.
    pub index: i32,
    pub hardware: u16,
}

/// The registers.
struct Machine<'a> {
    view: &'a View<'a>,
    data: &'a [u8],
    a: u32,
    x: u32,
    words: [u32; WORDS],
    /// How many attributes may still be looked at.
    attributes: usize,
}

/// How many bytes are wanted at most.
pub fn run(code: &[Instruction], view: &View<'_>) -> u32 {
    let data = view.bytes.get(view.start..).unwrap_or(&[]);
    let mut machine = Machine { view, data, a: 0, x: 0, words: [0; WORDS], attributes: ATTRIBUTES };
    let mut at = 0;
    while let Some(one) = code.get(at) {
        at += 1;
        match machine.step(one) {
            // What reaches beyond the packet is refused.
            None => return 0,
            Some(Step::On(distance)) => at += distance,
            Some(Step::Done(answer)) => return answer,
        }
    }
    0
}

enum Step {
    /// So many instructions are passed over.
    On(usize),
    Done(u32),
}

impl Machine<'_> {
    fn step(&mut self, one: &Instruction) -> Option<Step> {
        let Instruction { code, jt, jf, k } = *one;
        let other = if code & X != 0 { self.x } else { k };
        match code & 7 {
            LD => self.a = self.load(code, k)?,
            LDX => self.x = self.load(code, k)?,
            ST => *self.words.get_mut(k as usize)? = self.a,
            STX => *self.words.get_mut(k as usize)? = self.x,
            ALU => self.a = compute(code & 0xf0, self.a, other)?,
            JMP if code & 0xf0 == JA => return Some(Step::On(k as usize)),
            JMP => {
                let holds = match code & 0xf0 {
                    JEQ => self.a == other,
                    JGT => self.a > other,
                    JGE => self.a >= other,
                    _ => self.a & other != 0,
                };
                return Some(Step::On(usize::from(if holds { jt } else { jf })));
            }
            RET => return Some(Step::Done(if code & A != 0 { self.a } else { k })),
            _ if code & TXA != 0 => self.a = self.x,
            _ => self.x = self.a,
        }
        Some(Step::On(0))
    }

    fn load(&mut self, code: u16, k: u32) -> Option<u32> {
        match code & 0xe0 {
            IMM => Some(k),
            LEN => Some(self.data.len() as u32),
            MEM => self.words.get(k as usize).copied(),
            MSH => Some(4 * (self.bytes(B, k)? & 15)),
            IND => self.bytes(code & 0x18, self.x.wrapping_add(k)),
            _ if k >= ELSEWHERE => self.elsewhere(k - ELSEWHERE),
            _ => self.bytes(code & 0x18, k),
        }
    }

    fn bytes(&self, size: u16, place: u32) -> Option<u32> {
        let view = self.view;
        let at = match place {
            OF_NETWORK.. => view.network.checked_add((place - OF_NETWORK) as usize)?,
            OF_LINK.. => (place - OF_LINK) as usize,
            _ => view.start.checked_add(place as usize)?,
        };
        let bytes = view.bytes.get(at..)?;
        Some(match size {
            W => u32::from_be_bytes(*bytes.first_chunk()?),
            H => u16::from_be_bytes(*bytes.first_chunk()?).into(),
            _ => (*bytes.first()?).into(),
        })
    }

    fn elsewhere(&mut self, what: u32) -> Option<u32> {
        let view = self.view;
        Some(match what {
            PROTOCOL => view.protocol.into(),
            PACKET_TYPE => view.kind.into(),
            INTERFACE => view.index as u32,
            HARDWARE => view.hardware.into(),
            ATTRIBUTE => self.attribute(self.a as usize, self.data.len()),
            NESTED => self.nested(),
            CPU => arch::cpu_id() as u32,
            XOR_X => self.a ^ self.x,
            RANDOM => random::u64() as u32,
            // Packets have no marks, hashes or VLANs here, and come through one queue.
            _ => 0,
        })
    }

    /// Where between `from` and `end` the first attribute of netlink is whose type X has; 0: nowhere, or too many have
    /// been looked at.
    fn attribute(&mut self, from: usize, end: usize) -> u32 {
        let mut at = from;
        while let Some(header) = self.data.get(at..end).and_then(|rest| rest.first_chunk::<ATTRIBUTE_HEADER>()) {
            let Some(left) = self.attributes.checked_sub(1) else { break };
            self.attributes = left;
            let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            if len < ATTRIBUTE_HEADER || len > end - at {
                break;
            }
            // Its two upper bits say what is in it.
            if u32::from(u16::from_ne_bytes([header[2], header[3]]) & 0x3fff) == self.x {
                return at as u32;
            }
            at += len.next_multiple_of(4);
        }
        0
    }

    /// The same within the attribute at A.
    fn nested(&mut self) -> u32 {
        let at = self.a as usize;
        let Some(len) = self.data.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { return 0 };
        let end = at + usize::from(u16::from_ne_bytes(*len));
        if end > self.data.len() { 0 } else { self.attribute(at + ATTRIBUTE_HEADER, end) }
    }
}

/// None: a division by 0.
fn compute(operation: u16, a: u32, other: u32) -> Option<u32> {
    Some(match operation {
        ADD => a.wrapping_add(other),
        SUB => a.wrapping_sub(other),
        MUL => a.wrapping_mul(other),
        DIV => a.checked_div(other)?,
        MOD => a.checked_rem(other)?,
        OR => a | other,
        AND => a & other,
        XOR => a ^ other,
        LSH => a.wrapping_shl(other),
        RSH => a.wrapping_shr(other),
        _ => a.wrapping_neg(),
    })
}
