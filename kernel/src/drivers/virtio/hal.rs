//! What `virtio-drivers` asks of the kernel: memory that devices reach. All of RAM is in the linear map and devices
//! see physical addresses and are coherent, so sharing a buffer is only an address translation.

use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::arch::paging;
use crate::mm;

pub struct KernelHal;

// SAFETY: `dma_alloc` answers zeroed, page-aligned, physically contiguous memory that belongs to the caller until
// `dma_dealloc`; the address functions answer the addresses that the kernel's own page tables use.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // The crate takes physical address 0 for "no memory".
        let Ok(run) = mm::alloc_contiguous(pages) else { return (0, NonNull::dangling()) };
        let (phys, memory) = run.leak();
        // SAFETY: the run is `pages` pages of RAM that belong to us alone.
        unsafe { memory.write_bytes(0, pages * mm::PAGE_SIZE) };
        match NonNull::new(memory) {
            Some(memory) => (phys.0, memory),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller gives back what `dma_alloc` answered, which was leaked from a run.
        drop(unsafe { mm::FrameRun::from_phys(mm::PhysAddr(paddr), pages) });
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        let cpu = crate::drivers::pci::bus_to_cpu(paddr);
        NonNull::new(paging::map_mmio(cpu, size as u64)).expect("device registers are not mapped at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        paging::virt_to_phys(buffer.as_ptr().cast())
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
