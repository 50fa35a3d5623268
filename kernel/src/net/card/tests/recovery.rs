//! How soon a connection goes on after segments have been lost.

use core::time::Duration;

use super::lasting::connect;
use super::wire::{Faults, Net};
use super::*;

const LOSSES: Faults = Faults { lost: 1, repeated: 1, swapped: 1, silent: false };

/// How long it takes until the other machine has all of this, if nothing but waiting takes time.
fn time_of(net: &mut Net, data: &[u8]) -> Duration {
    let (socket, there) = connect(net);
    let began = net.now;
    let (mut sent, mut got) = (0, Vec::new());
    net.until("all has come", |net| {
        sent += send(&*socket, &data[sent..data.len().min(sent + 100_000)]);
        let mut bytes = [0; 4096];
        while net.tcp(there).can_recv() {
            let len = net.tcp(there).recv_slice(&mut bytes).unwrap();
            got.extend_from_slice(&bytes[..len]);
        }
        got.len() >= data.len()
    });
    assert!(got == data);
    net.now.saturating_since(began)
}

#[test]
fn losses_are_made_good_without_a_time_out() {
    let mut total = Duration::ZERO;
    for seed in 60..70 {
        let mut net = Net::new(seed, LOSSES);
        let time = time_of(&mut net, &pattern(2_000_000));
        total += time;
    }
    assert!(total < Duration::from_secs(4), "{total:?}");
}

/// Both wait for the other one to read, one segment of which too much was sent again.
#[test]
fn what_is_sent_again_stays_in_the_window() {
    for seed in 100..140 {
        let mut net = Net::new(seed, Faults::default());
        let (socket, there) = connect(&mut net);
        net.faults = FAULTS;
        exchange(&mut net, &*socket, there, &pattern(100_000));
        socket.released();
    }
}
