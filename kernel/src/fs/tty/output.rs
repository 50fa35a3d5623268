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
                if termios.output(raw::ONLRET | raw::ONLCR) {
                    self.column = 0;
                }
                if termios.output(raw::ONLCR) { Posted::CrNl } else { Posted::Byte(b'\n') }
            }
            b'\r' if termios.output(raw::ONOCR) && self.column == 0 => Posted::Nothing,
            b'\r' if termios.output(raw::OCRNL) => {
                if termios.output(raw::ONLRET) {
                    self.column = 0;
                }
                Posted::Byte(b'\n')
            }
            b'\r' => {
                self.column = 0;
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
                let byte = if termios.output(raw::OLCUC) { byte.to_ascii_uppercase() } else { byte };
                if !is_control(byte) && !is_continuation(termios, byte) {
                    self.column += 1;
                }
                Posted::Byte(byte)
            }
        }
    }
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
