//! Terminals: the line discipline.
#![allow(dead_code)]

mod discipline;
mod output;
mod termios;
