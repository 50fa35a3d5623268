//! Terminal settings, termios(3), in the layouts of the TCGETS and TCGETS2 ioctls.

use linux_raw_sys::general as raw;

/// `_POSIX_VDISABLE`: a special character with this value is off.
const DISABLED: u8 = 0;

/// TABDLY: the tab expansion field of c_oflag; XTABS is its only value with a meaning.
const TABDLY: u32 = 0o14000;

/// The standard rates of c_cflag's CBAUD field, by its value without CBAUDEX.
const RATES: [u32; 16] = [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400];
/// The same with CBAUDEX set; entry 0 is BOTHER (any rate).
const EXTENDED_RATES: [u32; 16] = [
    0, 57600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
    2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// `struct termios2` without padding surprises: what TCGETS2 copies out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; raw::NCCS as usize],
    /// Bits per second.
    pub ispeed: u32,
    pub ospeed: u32,
}

impl Termios {
    /// Bytes of `struct termios` and `struct termios2`.
    pub const SIZE: usize = 36;
    pub const SIZE2: usize = 44;

    /// Linux's `tty_std_termios` with the given c_cflag.
    pub const fn standard(cflag: u32) -> Self {
        let mut cc = [DISABLED; raw::NCCS as usize];
        cc[raw::VINTR as usize] = 0x03;
        cc[raw::VQUIT as usize] = 0x1c;
        cc[raw::VERASE as usize] = 0x7f;
        cc[raw::VKILL as usize] = 0x15;
        cc[raw::VEOF as usize] = 0x04;
        cc[raw::VMIN as usize] = 1;
        cc[raw::VSTART as usize] = 0x11;
        cc[raw::VSTOP as usize] = 0x13;
        cc[raw::VSUSP as usize] = 0x1a;
        cc[raw::VREPRINT as usize] = 0x12;
        cc[raw::VDISCARD as usize] = 0x0f;
        cc[raw::VWERASE as usize] = 0x17;
        cc[raw::VLNEXT as usize] = 0x16;
        let mut termios = Termios {
            iflag: raw::ICRNL | raw::IXON,
            oflag: raw::OPOST | raw::ONLCR,
            cflag,
            lflag: raw::ISIG
                | raw::ICANON
                | raw::ECHO
                | raw::ECHOE
                | raw::ECHOK
                | raw::ECHOCTL
                | raw::ECHOKE
                | raw::IEXTEN,
            line: 0,
            cc,
            ispeed: 0,
            ospeed: 0,
        };
        termios.ospeed = termios.coded_speed();
        termios.ispeed = termios.ospeed;
        termios
    }

    /// The serial console: 115200 baud, 8 bits, no modem control.
    pub const fn serial() -> Self {
        Self::standard(raw::B115200 | raw::CS8 | raw::CREAD | raw::HUPCL | raw::CLOCAL)
    }

    pub const fn pty_slave() -> Self {
        Self::standard(raw::B38400 | raw::CS8 | raw::CREAD)
    }

    const fn coded_speed(&self) -> u32 {
        let index = (self.cflag & 0xf) as usize;
        if self.cflag & raw::CBAUDEX != 0 { EXTENDED_RATES[index] } else { RATES[index] }
    }

    pub fn input(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }

    pub fn output(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }

    pub fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }

    pub fn expands_tabs(&self) -> bool {
        self.oflag & TABDLY == raw::XTABS
    }

    /// The special character `index` (VINTR, VEOF…), or none if it is disabled.
    pub fn special(&self, index: u32) -> Option<u8> {
        Some(self.cc[index as usize]).filter(|&c| c != DISABLED)
    }

    pub fn is_special(&self, index: u32, byte: u8) -> bool {
        byte != DISABLED && self.cc[index as usize] == byte
    }

    pub fn min(&self) -> usize {
        self.cc[raw::VMIN as usize] as usize
    }

    /// VTIME in tenths of a second.
    pub fn time_tenths(&self) -> u64 {
        self.cc[raw::VTIME as usize] as u64
    }

    pub fn to_bytes(self) -> [u8; Self::SIZE2] {
        let mut out = [0; Self::SIZE2];
        for (slot, value) in out.chunks_exact_mut(4).zip([self.iflag, self.oflag, self.cflag, self.lflag]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out[16] = self.line;
        out[17..36].copy_from_slice(&self.cc);
        out[36..40].copy_from_slice(&self.ispeed.to_le_bytes());
        out[40..44].copy_from_slice(&self.ospeed.to_le_bytes());
        out
    }

    /// From `struct termios`: the rates come from the CBAUD field.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let mut cc = [0; raw::NCCS as usize];
        cc.copy_from_slice(&bytes[17..36]);
        let mut termios = Termios {
            iflag: word(0),
            oflag: word(4),
            cflag: word(8),
            lflag: word(12),
            line: bytes[16],
            cc,
            ispeed: 0,
            ospeed: 0,
        };
        termios.ospeed = termios.coded_speed();
        termios.ispeed = termios.ospeed;
        termios
    }

    /// From `struct termios2`: with BOTHER the rates are the explicit fields.
    pub fn from_bytes2(bytes: &[u8; Self::SIZE2]) -> Self {
        let mut first = [0; Self::SIZE];
        first.copy_from_slice(&bytes[..Self::SIZE]);
        let mut termios = Self::from_bytes(&first);
        if termios.cflag & raw::CBAUD == raw::BOTHER {
            termios.ispeed = u32::from_le_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]);
            termios.ospeed = u32::from_le_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]);
        }
        termios
    }
}

/// `struct winsize` of TIOCGWINSZ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WinSize {
    pub rows: u16,
    pub columns: u16,
    pub x_pixels: u16,
    pub y_pixels: u16,
}

impl WinSize {
    pub const SIZE: usize = 8;

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        for (slot, value) in out.chunks_exact_mut(2).zip([self.rows, self.columns, self.x_pixels, self.y_pixels]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        let half = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
        WinSize { rows: half(0), columns: half(2), x_pixels: half(4), y_pixels: half(6) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let mut termios = Termios::serial();
        assert_eq!(termios.ospeed, 115_200);
        assert_eq!(Termios::from_bytes2(&termios.to_bytes()), termios);
        termios.cflag = (termios.cflag & !raw::CBAUD) | raw::BOTHER;
        (termios.ispeed, termios.ospeed) = (12_345, 54_321);
        assert_eq!(Termios::from_bytes2(&termios.to_bytes()), termios);
    }

    #[test]
    fn layout_is_that_of_linux() {
        assert_eq!(size_of::<raw::termios>(), Termios::SIZE);
        assert_eq!(size_of::<raw::termios2>(), Termios::SIZE2);
        assert_eq!(core::mem::offset_of!(raw::termios2, c_cc), 17);
        assert_eq!(size_of::<raw::winsize>(), WinSize::SIZE);
    }
}
