//! `docs/syscalls.md` is generated from the table; this test says when it is out of date, and
//! `POLLUX_BLESS=1 cargo test -p pollux-kernel syscalls::doc` writes it anew.

use alloc::string::String;
use core::fmt::Write;

use super::TABLE;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/syscalls.md");

const INTRO: &str = "\
# System calls

Generated from `kernel/src/syscalls/table.rs`; do not edit.

Numbers and arguments are those of Linux on arm64 (`asm-generic/unistd.h`). Every number that is not listed answers
ENOSYS, and the kernel logs one line per program for the first of them. Flags that are not implemented are refused with
the errno that Linux gives for flags it does not know. What `man 2` says of a listed call holds, but for the notes in
[syscall-notes.md](syscall-notes.md).

| number | name | arguments |
|---:|---|---|
";

fn render() -> String {
    let mut text = String::from(INTRO);
    for entry in TABLE {
        let args: alloc::vec::Vec<String> = entry.args.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
        let _ = writeln!(text, "| {} | {} | {} |", entry.number, entry.name, args.join(", "));
    }
    let _ = writeln!(text, "\n{} system calls.", TABLE.len());
    text
}

#[test]
fn the_table_is_sorted_and_free_of_duplicates() {
    assert!(TABLE.windows(2).all(|pair| pair[0].number < pair[1].number));
}

#[test]
fn the_document_is_up_to_date() {
    let text = render();
    if std::env::var_os("POLLUX_BLESS").is_some() {
        std::fs::write(PATH, &text).expect("docs/syscalls.md can be written");
    }
    let on_disk = std::fs::read_to_string(PATH).unwrap_or_default();
    assert!(
        on_disk == text,
        "docs/syscalls.md is out of date: POLLUX_BLESS=1 cargo test -p pollux-kernel syscalls::doc"
    );
}
