//! What comes along with urgent data.

use libc::*;

use super::{now, receive, set_inline, sockets, urge};
use crate::file::{close, read, shown, write};
use crate::say;
use crate::sys::{Ret, sys, zeroed};

pub(super) fn message_flags() {
    let [a, b] = sockets();
    let received = |flags: i32| {
        let mut buffer = [0u8; 8];
        let mut piece = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 };
        let mut message: msghdr = zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
        let ret = sys!(SYS_recvmsg, b, &mut message, flags | MSG_DONTWAIT);
        format!("{} {:#x} name {}", shown(ret, &buffer), message.msg_flags, message.msg_namelen)
    };
    urge(a, "!");
    say!("urgent: {}", received(MSG_OOB));
    say!("none: {}", received(MSG_OOB));
    now(b);
    set_inline(b, true);
    urge(a, "!");
    say!("in line: {}", received(0));
}

/// Sends text with descriptor `fd`.
fn send_with(socket: i32, text: &str, fd: i32, flags: i32) -> Ret {
    let mut control = [0u64; 3];
    control[0] = 20;
    control[1] = u64::from(SOL_SOCKET as u32) | u64::from(SCM_RIGHTS as u32) << 32;
    control[2] = fd as u64;
    let mut piece = iovec { iov_base: text.as_ptr() as *mut c_void, iov_len: text.len() };
    let mut message: msghdr = zeroed();
    (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), 24);
    sys!(SYS_sendmsg, socket, &message, flags)
}

/// Receives text, and says whether a descriptor came along.
fn receive_with(socket: i32, flags: i32) -> String {
    let again = |fd: i32| receive(fd, 1, MSG_DONTWAIT | MSG_PEEK) != "EAGAIN";
    let (mut buffer, mut control) = ([0u8; 32], [0u64; 8]);
    let mut piece = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message: msghdr = zeroed();
    (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), 64);
    let mut ret = sys!(SYS_recvmsg, socket, &mut message, flags | MSG_DONTWAIT);
    if ret.errno() == EAGAIN && again(socket) {
        // See `now`.
        ret = sys!(SYS_recvmsg, socket, &mut message, flags | MSG_DONTWAIT);
    }
    format!("{} control {}", shown(ret, &buffer), message.msg_controllen)
}

pub(super) fn descriptors() {
    let [a, b] = sockets();
    let [reader, writer] = crate::file::pipe();
    say!("with an urgent byte: {}", send_with(a, "!", writer, MSG_OOB));
    close(writer);
    say!("urgent: {}", receive_with(b, MSG_OOB));
    write(a, "text");
    say!("in line: {}", receive_with(b, 0));
    say!("the descriptor is gone: {}", read(reader, 1));
    let [reader, writer] = crate::file::pipe();
    say!("with text: {}", send_with(a, "text!", writer, MSG_OOB));
    close(writer);
    say!("in line: {}", receive_with(b, 0));
    say!("urgent: {}", receive_with(b, MSG_OOB));
    close(reader);
    let [a, b] = sockets();
    set_inline(b, true);
    let [_reader, writer] = crate::file::pipe();
    send_with(a, "!", writer, MSG_OOB);
    say!("an urgent byte in line: {}", receive_with(b, 0));
    let [a, b] = sockets();
    let [reader, writer] = crate::file::pipe();
    send_with(a, "!", writer, MSG_OOB);
    close(writer);
    write(a, "text");
    say!("not taken: {}", receive_with(b, 0));
    say!("the descriptor is gone: {}", read(reader, 1));
}

pub(super) fn credentials() {
    let [a, b] = sockets();
    sys!(SYS_setsockopt, b, SOL_SOCKET, SO_PASSCRED, &1i32, 4);
    urge(a, "!");
    say!("urgent: {}", receive_with(b, MSG_OOB));
    write(a, "text");
    urge(a, "!");
    write(a, "more");
    say!("in line: {}", receive_with(b, 0));
    say!("in line: {}", receive_with(b, 0));
}
