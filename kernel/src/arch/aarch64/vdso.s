// The code of the vDSO: runs in user mode, at any address. The data page of `time::vdso` lies one page before the
// image, and this code starts VDSO_CODE_OFFSET into the image.
//
// Data page: 0 counter base, 8 nanoseconds per tick × 2^32, 16 wall clock − monotonic clock in ns. The first two never
// change, the third is one word: no reader ever sees a torn state, so there is no sequence count.

.equ VDSO_CODE_OFFSET, 0x800
.equ VDSO_DATA_DISTANCE, 0x1000 + VDSO_CODE_OFFSET

.equ NR_clock_gettime, 113
.equ NR_clock_getres, 114
.equ NR_gettimeofday, 169
.equ NR_rt_sigreturn, 139

// CLOCK_* as bits: those that count from boot (MONOTONIC, _RAW, _COARSE, BOOTTIME), from 1970 (REALTIME, _COARSE, TAI).
.equ BOOT_CLOCKS, 0x0d2
.equ WALL_CLOCKS, 0x821
.equ COARSE_CLOCKS, 0x060

.section .rodata.vdso, "a"
.balign 16
.global vdso_code_start
vdso_code_start:

// Unwinders look at the instruction before a return address: it must not belong to another function.
    nop
.global vdso_rt_sigreturn
vdso_rt_sigreturn:
    mov     x8, #NR_rt_sigreturn
    svc     #0

// x4 = nanoseconds on the monotonic clock, x9 = data page. Clobbers x5, x6.
.macro monotonic
    adr     x9, vdso_code_start - VDSO_DATA_DISTANCE
    ldp     x5, x6, [x9]
    isb                                     // no reading of the counter ahead of time
    mrs     x4, cntvct_el0
    sub     x4, x4, x5
    mul     x5, x4, x6
    umulh   x6, x4, x6
    extr    x4, x6, x5, #32
.endm

// x5 = seconds, x4 = rest of x4 nanoseconds. Clobbers x6.
.macro split
    mov     x6, #0xca00
    movk    x6, #0x3b9a, lsl #16
    udiv    x5, x4, x6
    msub    x4, x5, x6, x4
.endm

.balign 16
.global vdso_clock_gettime
vdso_clock_gettime:
    cmp     w0, #11
    b.hi    1f
    mov     w2, #1
    lsl     w2, w2, w0
    mov     w3, #(BOOT_CLOCKS | WALL_CLOCKS)
    tst     w2, w3
    b.eq    1f
    monotonic
    ldr     x5, [x9, #16]
    mov     w3, #WALL_CLOCKS
    tst     w2, w3
    csel    x5, x5, xzr, ne
    add     x4, x4, x5
    split
    stp     x5, x4, [x1]
    mov     w0, #0
    ret
1:  mov     x8, #NR_clock_gettime
    svc     #0
    ret

.balign 16
.global vdso_gettimeofday
vdso_gettimeofday:
    cbz     x0, 2f
    monotonic
    ldr     x5, [x9, #16]
    add     x4, x4, x5
    split
    mov     x6, #1000
    udiv    x4, x4, x6
    stp     x5, x4, [x0]
2:  cbz     x1, 3f
    str     xzr, [x1]                       // struct timezone: UTC
3:  mov     w0, #0
    ret

.balign 16
.global vdso_clock_getres
vdso_clock_getres:
    cmp     w0, #11
    b.hi    4f
    mov     w2, #1
    lsl     w2, w2, w0
    mov     w3, #(BOOT_CLOCKS | WALL_CLOCKS)
    tst     w2, w3
    b.eq    4f
    cbz     x1, 5f
    mov     x3, #1
    mov     x4, #0x0900                     // 4,000,000
    movk    x4, #0x3d, lsl #16
    mov     w5, #COARSE_CLOCKS
    tst     w2, w5
    csel    x3, x4, x3, ne
    stp     xzr, x3, [x1]
5:  mov     w0, #0
    ret
4:  mov     x8, #NR_clock_getres
    svc     #0
    ret

.balign 16
.global vdso_code_end
vdso_code_end:
.text
