//! Pages that move to other addresses, for mremap(2): one by one, or with the table or block that they are in.

use super::super::addr::PAGE;
use super::super::frames::page::Pfn;
use super::blocks::{self, BLOCK, block_down, is_whole};
use super::table::{LEAF, index, note_table_emptied, note_table_filled, pfn_of};
use super::tables::{Leaf, Lowest, Tables, block_end};
use super::tlb::Gather;
use crate::arch::pte::Pte;
use crate::errno::Result;

impl Tables {
    /// Makes all tables that [`Tables::move_pages`] needs: after that it finds everything there and cannot stop half-way.
    pub fn prepare_move(&mut self, old: u64, new: u64, len: u64, gather: &mut Gather) -> Result<()> {
        let mut at = 0;
        while at < len {
            let (from, to) = (old + at, new + at);
            let whole = is_whole(from, &(old..old + len)) && to.is_multiple_of(BLOCK);
            match self.lowest(from, gather)? {
                Lowest::None => at = self.skip(from) - old,
                _ if whole => {
                    self.above(to, gather)?;
                    at += BLOCK;
                }
                Lowest::Block(entry) => {
                    blocks::split(entry, from, gather)?;
                }
                Lowest::Table(_) => {
                    // What one table maps there may lie in two tables here.
                    let last = (block_end(from) - old).min(len) - PAGE;
                    self.leaf(to, gather)?;
                    self.leaf(new + last, gather)?;
                    at = last + PAGE;
                }
            }
        }
        Ok(())
    }

    /// Moves the pages of `len` bytes at `old` to `new`, where nothing is mapped. Whole tables and blocks are moved where
    /// both addresses allow it.
    pub fn move_pages(&mut self, old: u64, new: u64, len: u64, gather: &mut Gather) -> Result<()> {
        let mut at = 0;
        // The table that the last page went to: for most the next goes there, too.
        let mut there: Option<(u64, Pfn)> = None;
        while at < len {
            let (from, to) = (old + at, new + at);
            let whole = is_whole(from, &(old..old + len)) && to.is_multiple_of(BLOCK);
            let table = match self.lowest(from, gather)? {
                Lowest::None => {
                    at = self.skip(from) - old;
                    continue;
                }
                _ if whole => {
                    self.move_whole(from, to, gather)?;
                    at += BLOCK;
                    continue;
                }
                Lowest::Block(entry) => blocks::split(entry, from, gather)?,
                Lowest::Table(table) => table,
            };
            let end = (block_end(from) - old).min(len);
            while at < end {
                let source = Leaf::at(table, index(LEAF, old + at));
                if source.get().is_valid() {
                    let to = new + at;
                    let target = match there {
                        Some((block, table)) if block == block_down(to) => Leaf::at(table, index(LEAF, to)),
                        _ => self.leaf(to, gather)?,
                    };
                    there = Some((block_down(to), target.table));
                    let pte = source.take();
                    gather.note(old + at);
                    target.fill(pte);
                }
                at += PAGE;
            }
        }
        Ok(())
    }

    /// Moves one lowest table, or one block, to where there is none or an empty table.
    fn move_whole(&mut self, from: u64, to: u64, gather: &mut Gather) -> Result<()> {
        // Makes the way to both our own.
        let target = self.above(to, gather)?;
        let source = self.above(from, gather)?;
        let (moved, replaced) = (source.get(), target.get());
        if replaced.is_valid() {
            target.change(Pte::EMPTY);
            note_table_emptied(target.table);
            gather.table(pfn_of(replaced), LEAF);
            gather.flush();
        }
        if moved.is_block() {
            source.take();
            gather.note(from);
            target.fill(moved);
        } else {
            source.change(Pte::EMPTY);
            note_table_emptied(source.table);
            gather.note_all();
            note_table_filled(target.table, target.index);
            target.change(moved);
        }
        Ok(())
    }
}
