// Access to user memory (TTBR0) with fix-ups.
//
// All of it lies in one section. A data abort in here goes on at the address in x17, with the fault address in x16;
// every routine therefore loads x17 first and uses neither register otherwise. The bulk routines use privileged
// loads and stores between `pan_off` and `pan_on` (NOPs on a CPU without PAN, see user.rs); the small ones use
// unprivileged ones. Descriptors that EL0 may not use lack the access flag, so both mean the same.

.arch_extension fp
.arch_extension simd

.macro pan_off
    .inst   0xd500409f              // msr pan, #0
.endm
.macro pan_on
    .inst   0xd500419f              // msr pan, #1
.endm

.section .uaccess.text, "ax"

// fn uaccess_copy(dst, src, len) -> bytes left. Either side may be user memory, the other is not.
// At each access x0, x1 and x2 say what is left, so a fault can go on with single bytes and stop exactly.
    .balign 64
.global uaccess_copy
uaccess_copy:
    adr     x17, 70f
    pan_off
    cmp     x2, #384
    b.hs    40f
10: cmp     x2, #64
    b.lo    20f
    ldp     x3, x4, [x1]
    ldp     x5, x6, [x1, #16]
    ldp     x7, x8, [x1, #32]
    ldp     x9, x10, [x1, #48]
    stp     x3, x4, [x0]
    stp     x5, x6, [x0, #16]
    stp     x7, x8, [x0, #32]
    stp     x9, x10, [x0, #48]
    add     x1, x1, #64
    add     x0, x0, #64
    sub     x2, x2, #64
    b       10b
20: tbz     x2, #5, 21f
    ldp     x3, x4, [x1]
    ldp     x5, x6, [x1, #16]
    stp     x3, x4, [x0]
    stp     x5, x6, [x0, #16]
    add     x1, x1, #32
    add     x0, x0, #32
    sub     x2, x2, #32
21: tbz     x2, #4, 22f
    ldp     x3, x4, [x1]
    stp     x3, x4, [x0]
    add     x1, x1, #16
    add     x0, x0, #16
    sub     x2, x2, #16
22: cbz     x2, 90f
    tbz     x2, #3, 23f
    ldr     x3, [x1]
    str     x3, [x0]
    add     x1, x1, #8
    add     x0, x0, #8
    sub     x2, x2, #8
23: tbz     x2, #2, 24f
    ldr     w3, [x1]
    str     w3, [x0]
    add     x1, x1, #4
    add     x0, x0, #4
    sub     x2, x2, #4
24: tbz     x2, #1, 25f
    ldrh    w3, [x1]
    strh    w3, [x0]
    add     x1, x1, #2
    add     x0, x0, #2
    sub     x2, x2, #2
25: tbz     x2, #0, 90f
    ldrb    w3, [x1]
    strb    w3, [x0]
    sub     x2, x2, #1
90: pan_on
    mov     x0, x2
    ret

// Large: through the SIMD registers, which hold some user thread's values and are put back.
40: adr     x17, 60f
    stp     q0, q1, [sp, #-128]!
    stp     q2, q3, [sp, #32]
    stp     q4, q5, [sp, #64]
    stp     q6, q7, [sp, #96]
41: ldp     q0, q1, [x1]
    ldp     q2, q3, [x1, #32]
    ldp     q4, q5, [x1, #64]
    ldp     q6, q7, [x1, #96]
    stp     q0, q1, [x0]
    stp     q2, q3, [x0, #32]
    stp     q4, q5, [x0, #64]
    stp     q6, q7, [x0, #96]
    ldp     q0, q1, [x1, #128]
    ldp     q2, q3, [x1, #160]
    ldp     q4, q5, [x1, #192]
    ldp     q6, q7, [x1, #224]
    stp     q0, q1, [x0, #128]
    stp     q2, q3, [x0, #160]
    stp     q4, q5, [x0, #192]
    stp     q6, q7, [x0, #224]
    add     x1, x1, #256
    add     x0, x0, #256
    sub     x2, x2, #256
    cmp     x2, #256
    b.hs    41b
    adr     x17, 70f
    ldp     q2, q3, [sp, #32]
    ldp     q4, q5, [sp, #64]
    ldp     q6, q7, [sp, #96]
    ldp     q0, q1, [sp], #128
    b       10b

// Faults: put SIMD registers back; then single bytes, unless the very next byte is what faulted.
60: ldp     q2, q3, [sp, #32]
    ldp     q4, q5, [sp, #64]
    ldp     q6, q7, [sp, #96]
    ldp     q0, q1, [sp], #128
70: cmp     x16, x0
    b.eq    90b
    cmp     x16, x1
    b.eq    90b
    adr     x17, 90b
71: cbz     x2, 90b
    ldrb    w3, [x1]
    strb    w3, [x0]
    add     x1, x1, #1
    add     x0, x0, #1
    sub     x2, x2, #1
    b       71b

// fn uaccess_zero(dst, len, zva) -> bytes left. zva: size of a DC ZVA block, a power of two of at least 16; or 0.
    .balign 64
.global uaccess_zero
uaccess_zero:
    adr     x17, 70f
    pan_off
    cbz     x2, 20f
    cmp     x1, x2, lsl #1
    b.lo    20f
    sub     x3, x2, #1
    neg     x4, x0
    and     x4, x4, x3              // bytes up to the first whole block
    sub     x5, x1, x4              // bytes from there on
    mov     x1, x4
    b       21f
10: // x0 is aligned; x5 bytes are left, up to x6. Four blocks a round, then one.
    add     x6, x0, x5
    mov     x5, xzr
    sub     x7, x6, x2, lsl #2
    adr     x17, 60f
11: cmp     x0, x7
    b.hi    13f
12: dc      zva, x0
    add     x0, x0, x2
    dc      zva, x0
    add     x0, x0, x2
    dc      zva, x0
    add     x0, x0, x2
    dc      zva, x0
    add     x0, x0, x2
    cmp     x0, x7
    b.ls    12b
13: sub     x1, x6, x0
    cmp     x1, x2
    b.lo    14f
    dc      zva, x0
    add     x0, x0, x2
    b       13b
14: adr     x17, 70f
20: mov     x5, xzr
21: cmp     x1, #16
    b.lo    22f
    stp     xzr, xzr, [x0]
    add     x0, x0, #16
    sub     x1, x1, #16
    b       21b
22: tbz     x1, #3, 23f
    str     xzr, [x0], #8
    sub     x1, x1, #8
23: tbz     x1, #2, 24f
    str     wzr, [x0], #4
    sub     x1, x1, #4
24: tbz     x1, #1, 25f
    strh    wzr, [x0], #2
    sub     x1, x1, #2
25: tbz     x1, #0, 26f
    strb    wzr, [x0], #1
    sub     x1, x1, #1
26: cbnz    x5, 10b
90: pan_on
    add     x0, x1, x5
    ret
60: sub     x1, x6, x0
70: adr     x17, 90b
71: cbz     x1, 90b
    strb    wzr, [x0]
    add     x0, x0, #1
    sub     x1, x1, #1
    b       71b

// fn uaccess_string(dst, src, max) -> (bytes copied before the NUL, 0 or 1 for a fault).
    .balign 64
.global uaccess_string
uaccess_string:
    adr     x17, 70f
    mov     x3, x0
    mov     x4, #0x0101010101010101
    add     x5, x2, x0              // end of the destination
    tst     x1, #7
    b.ne    20f
10: sub     x6, x5, x0
    cmp     x6, #8
    b.lo    20f
    ldtr    x6, [x1]                // aligned: never beyond the page of its first byte
    sub     x7, x6, x4
    bic     x7, x7, x6
    ands    x7, x7, #0x8080808080808080
    b.ne    15f
    str     x6, [x0], #8
    add     x1, x1, #8
    b       10b
15: str     x6, [x0]                // the bytes after the NUL are harmless: they are within max
    rev     x7, x7
    clz     x7, x7
    add     x0, x0, x7, lsr #3
    b       30f
20: cmp     x0, x5
    b.hs    30f
    ldtrb   w6, [x1]
    cbz     w6, 30f
    strb    w6, [x0], #1
    add     x1, x1, #1
    tst     x1, #7
    b.eq    10b
    b       20b
30: sub     x0, x0, x3
    mov     x1, #0
    ret
70: sub     x0, x0, x3
    mov     x1, #1
    ret

// Each answers (value, 0 or 1 for a fault).
    .balign 32
.global uaccess_load_u32
uaccess_load_u32:
    adr     x17, 70f
    ldtr    w0, [x0]
    dmb     ishld
    mov     x1, #0
    ret
.global uaccess_load_u64
uaccess_load_u64:
    adr     x17, 70f
    ldtr    x0, [x0]
    dmb     ishld
    mov     x1, #0
    ret
.global uaccess_store_u32
uaccess_store_u32:
    adr     x17, 70f
    dmb     ish
    sttr    w1, [x0]
    mov     x1, #0
    ret
.global uaccess_store_u64
uaccess_store_u64:
    adr     x17, 70f
    dmb     ish
    sttr    x1, [x0]
    mov     x1, #0
    ret
70: mov     x1, #1
    ret

// fn uaccess_cmpxchg_u32(address, old, new) -> (value found, 0 or 1 for a fault). Other CPUs that store the same value
// over and over can keep the exclusive store from succeeding: after a while the answer is a value other than `old`.
.global uaccess_cmpxchg_u32
uaccess_cmpxchg_u32:
    adr     x17, 70f
    mov     x3, x0
    mov     w5, #128
    pan_off
1:  ldaxr   w0, [x3]
    cmp     w0, w1
    b.ne    3f
    stlxr   w4, w2, [x3]
    cbz     w4, 2f
    sub     w5, w5, #1
    cbnz    w5, 1b
    mvn     w0, w1
    b       3f
2:  dmb     ish
3:  pan_on
    mov     x1, #0
    ret
70: pan_on
    mov     x1, #1
    ret
