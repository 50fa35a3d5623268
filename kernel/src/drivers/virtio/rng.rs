//! Virtio entropy source (virtio 1.1, section 5.4).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use smallvec::SmallVec;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{SomeTransport, Transport};

use super::hal::KernelHal;
use crate::drivers::irq::{self, Interrupt};
use crate::sync::{Once, SpinLock};

/// Descriptors; one request is in flight at a time.
const QUEUE: usize = 4;
const REQUESTS: u16 = 0;
/// Bytes asked for at a time.
const CHUNK: usize = 64;

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Features: u64 {
        const VERSION_1 = 1 << 32;
    }
}

struct Inner {
    transport: SomeTransport<'static>,
    queue: VirtQueue<KernelHal, QUEUE>,
    /// What the device writes to while a request is in flight, and what is left of its last answer.
    buffer: Box<[u8; CHUNK]>,
    token: Option<u16>,
    available: usize,
    wakers: SmallVec<[Waker; 2]>,
}

struct VirtioRng(SpinLock<Inner>);

static DEVICE: Once<Arc<VirtioRng>> = Once::new();

pub fn start(mut transport: SomeTransport<'static>, irq: Option<u32>) -> virtio_drivers::Result<()> {
    let (Some(intid), None) = (irq, DEVICE.get()) else { return Ok(()) };
    transport.begin_init(Features::all());
    let queue = VirtQueue::new(&mut transport, REQUESTS, false, false)?;
    transport.finish_init();
    let device = Arc::new(VirtioRng(SpinLock::new(Inner {
        transport,
        queue,
        buffer: Box::new([0; CHUNK]),
        token: None,
        available: 0,
        wakers: SmallVec::new(),
    })));
    irq::attach(intid, device.clone());
    DEVICE.call_once(|| device);
    log::info!("virtio entropy source");
    Ok(())
}

/// True if there is a device to read from.
pub fn present() -> bool {
    DEVICE.get().is_some()
}

/// Random bytes from the device, at most 64 at a time; 0 if there is no device or it fails.
pub async fn read(out: &mut [u8]) -> usize {
    let Some(device) = DEVICE.get() else { return 0 };
    if out.is_empty() {
        return 0;
    }
    poll_fn(|cx| {
        let mut inner = device.0.lock();
        if inner.available == 0 {
            if inner.token.is_none() && !inner.request() {
                return Poll::Ready(0);
            }
            if !inner.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                inner.wakers.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let len = inner.available.min(out.len());
        let start = inner.available - len;
        out[..len].copy_from_slice(&inner.buffer[start..start + len]);
        // What was handed out once must not stay readable.
        inner.buffer[start..start + len].fill(0);
        inner.available = start;
        Poll::Ready(len)
    })
    .await
}

impl Inner {
    fn request(&mut self) -> bool {
        let Inner { queue, buffer, .. } = self;
        // SAFETY: the buffer is owned by the driver, which never goes away, and is not touched while `token` is set.
        match unsafe { queue.add(&[], &mut [&mut buffer[..]]) } {
            Ok(token) => {
                self.token = Some(token);
                self.transport.notify(REQUESTS);
                true
            }
            Err(_) => false,
        }
    }
}

impl Interrupt for VirtioRng {
    fn service(&self) {
        let wakers = {
            let mut inner = self.0.lock();
            inner.transport.ack_interrupt();
            let Some(token) = inner.token else { return };
            let Inner { queue, buffer, .. } = &mut *inner;
            // SAFETY: the same buffer that was added with this token.
            let Ok(len) = (unsafe { queue.pop_used(token, &[], &mut [&mut buffer[..]]) }) else { return };
            inner.token = None;
            inner.available = (len as usize).min(CHUNK);
            core::mem::take(&mut inner.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
