//! Output processing: OPOST and its flags, and the cursor column that tabs and erasing need.

use linux_raw_sys::general as raw;

use super::termios::Termios;

const SPACES: [u8; 8] = [b' '; 8];

/// Most bytes that one byte of output can become (an expanded tab).
pub const MAX_EXPANSION: usize = 8;

/// What one byte of output turns into: at most [`MAX_EXPANSION`] bytes.
pub enum Posted {
    Nothing,
    Byte(u8),
    CrNl,
    Spaces(usize),
}

impl Posted {
    /// Hands the bytes to `put`.
    pub fn emit(self, put: &mut impl FnMut(&[u8])) {
        match self {
            Posted::Nothing => {}
            Posted::Byte(byte) => put(&[byte]),
            Posted::CrNl => put(b"\r\n"),
            Posted::Spaces(n) => put(&SPACES[..n.min(MAX_EXPANSION)]),
        }
    }
}

/// The column of the cursor, as far as the terminal driver can know it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    pub column: usize,
    /// Where the echo of the line being edited began.
    pub line: usize,
}

impl Cursor {
    /// One byte written by a program, or echoed without interpretation. Without OPOST it passes unchanged
    /// and the column is not followed.
    pub fn post(&mut self, termios: &Termios, byte: u8) -> Posted {
        if !termios.output(raw::OPOST) {
            return Posted::Byte(byte);
        }
        match byte {
            b'\n' => {
                if termios.output(raw::ONLRET) {
                    self.column = 0;
                }
                if termios.output(raw::ONLCR) {
                    self.restart();
                    return Posted::CrNl;
                }
                Posted::Byte(b'\n')
            }
            b'\r' if termios.output(raw::ONOCR) && self.column == 0 => Posted::Nothing,
            b'\r' if termios.output(raw::OCRNL) => {
                if termios.output(raw::ONLRET) {
                    self.restart();
                }
                Posted::Byte(b'\n')
            }
            b'\r' => {
                self.restart();
                Posted::Byte(b'\r')
            }
            b'\t' => {
                let width = tab_width(self.column);
                self.column += width;
                if termios.expands_tabs() { Posted::Spaces(width) } else { Posted::Byte(b'\t') }
            }
            0x08 => {
                self.column = self.column.saturating_sub(1);
                Posted::Byte(byte)
            }
            _ => {
                let byte = if termios.output(raw::OLCUC) { to_upper(byte) } else { byte };
                if !is_control(byte) && !is_continuation(termios, byte) {
                    self.column += 1;
                }
                Posted::Byte(byte)
            }
        }
    }
}

impl Cursor {
    fn restart(&mut self) {
        self.column = 0;
        self.line = 0;
    }
}

// Characters beyond ASCII are Latin-1 to the terminal driver.

pub fn to_upper(byte: u8) -> u8 {
    if matches!(byte, b'a'..=b'z' | 0xe0..=0xf6 | 0xf8..=0xfe) { byte - 0x20 } else { byte }
}

pub fn to_lower(byte: u8) -> u8 {
    if matches!(byte, b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde) { byte + 0x20 } else { byte }
}

/// Part of a word, to VWERASE.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (byte >= 0xc0 && byte != 0xd7 && byte != 0xf7)
}

/// Columns from `column` to the next tab stop.
pub fn tab_width(column: usize) -> usize {
    8 - (column & 7)
}

pub fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// A byte that continues a UTF-8 character, on a terminal that was told to care (IUTF8).
pub fn is_continuation(termios: &Termios, byte: u8) -> bool {
    termios.input(raw::IUTF8) && byte & 0xc0 == 0x80
}
