//! Journals that were left behind: debugfs writes transactions, the mount carries them out, e2fsck agrees.

use super::device::{debugfs_output, debugfs_session};
use super::*;

const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

/// An image with a file of so many blocks of 1 KiB, and the numbers of the blocks.
fn image_with_file(arguments: &[&str], blocks: usize) -> (Vec<u8>, Vec<u32>) {
    let image = mke2fs(&[arguments, &["-b", "1024"]].concat(), 16 * MIB);
    let image = debugfs_session(&image, &vec![b'o'; blocks * 1024], &["write FILE file"]);
    let text = debugfs_output(&image, "blocks file");
    let numbers = text.lines().next().unwrap().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (image, numbers)
}

fn content(pieces: &[u8]) -> Vec<u8> {
    pieces.iter().flat_map(|byte| [*byte; 1024]).collect()
}

/// Mounts and reads the file; the image afterwards has to be sound.
fn recovered(image: &[u8], what: &str) -> Vec<u8> {
    assert_eq!(image[1024 + 96] & 4, 4, "{what}: it needs no recovery");
    let disk = TestDisk::new(image.to_vec(), 3);
    let inner = disk.clone();
    let data = run(async move {
        let fs = mount(&inner).await;
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        let data = read(&file).await.unwrap();
        drop(file);
        unmount(fs).await;
        data
    });
    let image = disk.image();
    assert_eq!(image[1024 + 96] & 4, 0, "{what}: it still needs recovery");
    check_clean(&image, what);
    data
}

fn file_of(image: &[u8], blocks: &[u32]) -> Vec<u8> {
    blocks.iter().flat_map(|block| image[*block as usize * 1024..][..1024].to_vec()).collect()
}

const KINDS: [(&str, &[&str], &str); 4] = [
    ("ext3", &["-t", "ext3"], "jo"),
    ("ext4", &["-t", "ext4"], "jo -c"),
    ("ext4, no checksums", &["-t", "ext4", "-O", "^metadata_csum,^64bit"], "jo"),
    ("ext4, narrow", &["-t", "ext4", "-O", "^64bit"], "jo -c -v 2"),
];

#[test]
fn transactions_are_carried_out() {
    for (what, arguments, open) in KINDS {
        let (image, blocks) = image_with_file(arguments, 4);
        let list = |from: usize, to: usize| {
            blocks[from..to].iter().map(|block| format!("{block}")).collect::<Vec<_>>().join(",")
        };
        let mut new = content(b"abc");
        // As if it were a block of the journal itself.
        new[1024..1028].copy_from_slice(&MAGIC);
        let image = debugfs_session(&image, &new, &[open, &format!("jw -b {} FILE", list(0, 3)), "jc"]);
        let again = content(b"z");
        let image = debugfs_session(&image, &again, &[open, &format!("jw -b {} FILE", list(2, 3)), "jc"]);
        let mut expected = [new[..2048].to_vec(), content(b"zo")].concat();
        assert!(recovered(&image, what) == expected, "{what}");
        let repaired = repair(&image);
        assert!(file_of(&repaired, &blocks[..4]) == expected, "{what}: e2fsck has another opinion");
        expected.clear();
    }
}

#[test]
fn what_was_revoked_is_left_alone() {
    for (what, arguments, open) in KINDS {
        let (image, blocks) = image_with_file(arguments, 4);
        let (one, two) = (blocks[0], blocks[1]);
        let commands = |lines: &[String]| -> Vec<String> {
            let mut all = vec![String::from(open)];
            all.extend_from_slice(lines);
            all.push("jc".into());
            all
        };
        let session = |image: &[u8], byte: &[u8], lines: &[String]| {
            let commands = commands(lines);
            let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
            debugfs_session(image, &content(byte), &commands)
        };
        let image = session(&image, b"ab", &[format!("jw -b {one},{two} FILE")]);
        let image = session(&image, b"", &[format!("jw -r {one},{two}")]);
        let image = session(&image, b"n", &[format!("jw -b {two} FILE")]);
        let data = recovered(&image, what);
        assert!(data == content(b"onoo"), "{what}: {:?}", data.iter().step_by(1024).collect::<Vec<_>>());
        assert!(file_of(&repair(&image), &blocks[..4]) == data, "{what}: e2fsck has another opinion");
    }
}

/// Where in the image the journal's blocks are.
fn journal_blocks(image: &[u8]) -> Vec<u32> {
    let text = debugfs_output(image, "blocks <8>");
    text.lines().next().unwrap().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_transaction_without_its_commit_is_none() {
    for (what, arguments, open) in KINDS {
        let (image, blocks) = image_with_file(arguments, 2);
        let image = debugfs_session(&image, &content(b"a"), &[open, &format!("jw -b {} FILE", blocks[0]), "jc"]);
        let image = debugfs_session(&image, &content(b"b"), &[open, &format!("jw -b {} FILE", blocks[1]), "jc"]);
        assert!(recovered(&image, what) == content(b"ab"), "{what}");
        // The last commit: the last block of the journal that begins with its magic number and says 2.
        let commit = journal_blocks(&image).into_iter().map(|block| block as usize * 1024);
        let commit = commit.filter(|at| image[*at..at + 8] == [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 2]).max().unwrap();
        let mut torn = image.clone();
        torn[commit..commit + 1024].fill(0);
        assert!(recovered(&torn, what) == content(b"ao"), "{what}");
        if open.contains("-c") {
            // A commit that was not written as a whole.
            let mut torn = image.clone();
            torn[commit + 500] ^= 1;
            assert!(recovered(&torn, what) == content(b"ao"), "{what}");
        }
    }
}

#[test]
fn a_damaged_copy_is_an_error() {
    let (image, blocks) = image_with_file(&["-t", "ext4"], 2);
    let image = debugfs_session(&image, &content(b"a"), &["jo -c", &format!("jw -b {} FILE", blocks[0]), "jc"]);
    let copy = journal_blocks(&image).into_iter().map(|block| block as usize * 1024);
    let copy = copy.filter(|at| image[*at..at + 1024] == content(b"a")).max().unwrap();
    let mut damaged = image;
    damaged[copy + 99] ^= 1;
    run(async move {
        let error = try_mount(&TestDisk::new(damaged, 1), false).await.err();
        assert_eq!(error, Some(Errno::EIO));
    });
}

#[test]
fn a_journal_can_be_left_as_it_is_by_readers_only() {
    let (image, blocks) = image_with_file(&["-t", "ext4"], 2);
    let image = debugfs_session(&image, &content(b"a"), &["jo -c", &format!("jw -b {} FILE", blocks[0]), "jc"]);
    let before = image.clone();
    let disk = TestDisk::new(image, 2);
    let inner = disk.clone();
    run(async move {
        let host = Host { spawn: |future| exec::spawn("ext2", future), now };
        let how = How { no_recovery: true, ..How::default() };
        let id = DeviceId::new(254, 0);
        assert_eq!(mount_on(inner.clone(), id, Vec::new(), how, host).await.err(), Some(Errno::EINVAL));
        let how = How { read_only: true, ..how };
        let fs = mount_on(inner, id, Vec::new(), how, host).await.unwrap();
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        assert!(read(&file).await.unwrap() == content(b"oo"));
        assert_eq!(fs.set_read_only(false).await, Err(Errno::EROFS));
    });
    assert!(disk.image() == before);
}

/// Where the journal has blocks of this kind, in the order of their transactions.
fn pieces(image: &[u8], kind: u8) -> Vec<usize> {
    let at = journal_blocks(image).into_iter().map(|block| block as usize * 1024);
    let mut found: Vec<usize> = at.filter(|at| image[*at..at + 8] == [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, kind]).collect();
    found.sort_by_key(|at| image[at + 8..at + 12].to_vec());
    found
}

/// A transaction of one block, whose number is at the beginning of the descriptor's first tag.
fn image_with_target(target: u32, copy: u8) -> Vec<u8> {
    let (image, blocks) = image_with_file(&["-t", "ext3"], 2);
    let mut image = debugfs_session(&image, &content(&[copy]), &["jo", &format!("jw -b {} FILE", blocks[0]), "jc"]);
    let descriptor = *pieces(&image, 1).last().unwrap();
    image[descriptor + 12..descriptor + 16].copy_from_slice(&target.to_be_bytes());
    image
}

fn mount_error(image: Vec<u8>) -> (Option<Errno>, Vec<u8>) {
    let disk = TestDisk::new(image, 1);
    let inner = disk.clone();
    let error = run(async move { try_mount(&inner, false).await.err() });
    (error, disk.image())
}

/// If it did, the commit would be gone when the second pass comes to it, and the pass would have no end.
#[test]
fn a_journal_does_not_overwrite_itself() {
    let image = image_with_target(0, 0);
    let commit = *pieces(&image, 2).last().unwrap() as u32 / 1024;
    let image = image_with_target(commit, 0);
    let (error, after) = mount_error(image.clone());
    assert_eq!(error, Some(Errno::EIO));
    assert!(after == image, "something was written");
}

#[test]
fn blocks_behind_the_old_end_of_the_file_system_are_copied() {
    // As after a power cut while the file system was being made larger.
    let mut image = image_with_target(16 * 1024 + 5, b'n');
    let (error, _) = mount_error(image.clone());
    assert_eq!(error, Some(Errno::EIO), "the device ends there");
    image.resize(17 * MIB, 0);
    let (error, after) = mount_error(image);
    assert_eq!(error, None);
    assert!(after[(16 * 1024 + 5) * 1024..][..1024] == content(b"n"));
}

#[test]
fn what_was_committed_is_not_thrown_away_because_of_what_is_damaged_before_it() {
    let (mut image, blocks) = image_with_file(&["-t", "ext4"], 3);
    for (byte, block) in [b"a", b"b", b"c"].into_iter().zip(&blocks) {
        image = debugfs_session(&image, &content(byte), &["jo -c", &format!("jw -b {block} FILE"), "jc"]);
    }
    assert!(recovered(&image, "whole") == content(b"abc"));
    for kind in [1, 2] {
        let mut damaged = image.clone();
        damaged[pieces(&image, kind)[1] + 500] ^= 1;
        let (error, after) = mount_error(damaged.clone());
        assert_eq!(error, Some(Errno::EUCLEAN), "kind {kind}");
        assert!(after == damaged, "something was written");
    }
    // Of the last transaction nothing was committed then.
    let mut torn = image.clone();
    torn[pieces(&image, 2)[2] + 500] ^= 1;
    assert!(recovered(&torn, "torn") == content(b"abo"));
}
