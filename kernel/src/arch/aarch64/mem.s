// memcpy, memmove, memset, memcmp, bcmp: what the compiler calls. The portable ones that come with the target take
// four times as many instructions. Small sizes use overlapping accesses at both ends; large ones the SIMD registers,
// which hold some user thread's values and are put back.

.arch_extension fp
.arch_extension simd
.section .text.mem, "ax"

// Registers: x0 dst (kept), x1 src, x2 n; x5, x6 ends of src and dst.
    .balign 64
.global memcpy
memcpy:
    add     x5, x1, x2
    add     x6, x0, x2
    cmp     x2, #16
    b.hs    20f
    tbz     x2, #3, 10f
    ldr     x3, [x1]
    ldr     x4, [x5, #-8]
    str     x3, [x0]
    str     x4, [x6, #-8]
    ret
10: tbz     x2, #2, 11f
    ldr     w3, [x1]
    ldr     w4, [x5, #-4]
    str     w3, [x0]
    str     w4, [x6, #-4]
    ret
11: cbz     x2, 12f
    lsr     x7, x2, #1
    ldrb    w3, [x1]
    ldrb    w4, [x1, x7]
    ldrb    w8, [x5, #-1]
    strb    w3, [x0]
    strb    w4, [x0, x7]
    strb    w8, [x6, #-1]
12: ret
20: ldp     x3, x4, [x1]
    ldp     x7, x8, [x5, #-16]
    cmp     x2, #32
    b.hi    21f
    stp     x3, x4, [x0]
    stp     x7, x8, [x6, #-16]
    ret
21: ldp     x9, x10, [x1, #16]
    ldp     x11, x12, [x5, #-32]
    cmp     x2, #64
    b.hi    30f
    stp     x3, x4, [x0]
    stp     x9, x10, [x0, #16]
    stp     x11, x12, [x6, #-32]
    stp     x7, x8, [x6, #-16]
    ret
    // More than 64: whole lines while more than 64 are left, then the last 64.
30: mov     x14, x0
    cmp     x2, #512
    b.hs    40f
31: ldp     x3, x4, [x1]
    ldp     x7, x8, [x1, #16]
    ldp     x9, x10, [x1, #32]
    ldp     x11, x12, [x1, #48]
    add     x1, x1, #64
    stp     x3, x4, [x14]
    stp     x7, x8, [x14, #16]
    stp     x9, x10, [x14, #32]
    stp     x11, x12, [x14, #48]
    add     x14, x14, #64
    sub     x2, x2, #64
    cmp     x2, #64
    b.hi    31b
    ldp     x3, x4, [x5, #-64]
    ldp     x7, x8, [x5, #-48]
    ldp     x9, x10, [x5, #-32]
    ldp     x11, x12, [x5, #-16]
    stp     x3, x4, [x6, #-64]
    stp     x7, x8, [x6, #-48]
    stp     x9, x10, [x6, #-32]
    stp     x11, x12, [x6, #-16]
    ret
40: stp     q0, q1, [sp, #-128]!
    stp     q2, q3, [sp, #32]
    stp     q4, q5, [sp, #64]
    stp     q6, q7, [sp, #96]
41: ldp     q0, q1, [x1]
    ldp     q2, q3, [x1, #32]
    ldp     q4, q5, [x1, #64]
    ldp     q6, q7, [x1, #96]
    stp     q0, q1, [x14]
    stp     q2, q3, [x14, #32]
    stp     q4, q5, [x14, #64]
    stp     q6, q7, [x14, #96]
    ldp     q0, q1, [x1, #128]
    ldp     q2, q3, [x1, #160]
    ldp     q4, q5, [x1, #192]
    ldp     q6, q7, [x1, #224]
    stp     q0, q1, [x14, #128]
    stp     q2, q3, [x14, #160]
    stp     q4, q5, [x14, #192]
    stp     q6, q7, [x14, #224]
    add     x1, x1, #256
    add     x14, x14, #256
    sub     x2, x2, #256
    cmp     x2, #256
    b.hs    41b
    ldp     q2, q3, [sp, #32]
    ldp     q4, q5, [sp, #64]
    ldp     q6, q7, [sp, #96]
    ldp     q0, q1, [sp], #128
    cbz     x2, 12b
    cmp     x2, #64
    b.hi    31b
    // At most 64 are left, and far more than 64 lie before the end.
    ldp     x3, x4, [x5, #-64]
    ldp     x7, x8, [x5, #-48]
    ldp     x9, x10, [x5, #-32]
    ldp     x11, x12, [x5, #-16]
    stp     x3, x4, [x6, #-64]
    stp     x7, x8, [x6, #-48]
    stp     x9, x10, [x6, #-32]
    stp     x11, x12, [x6, #-16]
    ret

    .balign 64
.global memmove
memmove:
    // Up to 64 bytes memcpy reads all before it writes.
    cmp     x2, #64
    b.ls    memcpy
    sub     x3, x0, x1
    cmp     x3, x2
    b.lo    60f                     // dst inside [src, src + n): from the end
    neg     x3, x3
    cmp     x3, x2
    b.hs    memcpy                  // no overlap
    mov     x14, x0
50: ldp     x3, x4, [x1]
    ldp     x7, x8, [x1, #16]
    ldp     x9, x10, [x1, #32]
    ldp     x11, x12, [x1, #48]
    add     x1, x1, #64
    stp     x3, x4, [x14]
    stp     x7, x8, [x14, #16]
    stp     x9, x10, [x14, #32]
    stp     x11, x12, [x14, #48]
    add     x14, x14, #64
    sub     x2, x2, #64
    cmp     x2, #64
    b.hs    50b
51: cmp     x2, #8
    b.lo    52f
    ldr     x3, [x1], #8
    str     x3, [x14], #8
    sub     x2, x2, #8
    b       51b
52: cbz     x2, 53f
    ldrb    w3, [x1], #1
    strb    w3, [x14], #1
    sub     x2, x2, #1
    b       52b
53: ret
60: add     x5, x1, x2
    add     x6, x0, x2
61: ldp     x3, x4, [x5, #-16]
    ldp     x7, x8, [x5, #-32]
    ldp     x9, x10, [x5, #-48]
    ldp     x11, x12, [x5, #-64]
    sub     x5, x5, #64
    stp     x3, x4, [x6, #-16]
    stp     x7, x8, [x6, #-32]
    stp     x9, x10, [x6, #-48]
    stp     x11, x12, [x6, #-64]
    sub     x6, x6, #64
    sub     x2, x2, #64
    cmp     x2, #64
    b.hs    61b
62: cmp     x2, #8
    b.lo    63f
    ldr     x3, [x5, #-8]!
    str     x3, [x6, #-8]!
    sub     x2, x2, #8
    b       62b
63: cbz     x2, 64f
    ldrb    w3, [x5, #-1]!
    strb    w3, [x6, #-1]!
    sub     x2, x2, #1
    b       63b
64: ret

    .balign 64
.global memset
memset:
    and     x1, x1, #0xff
    orr     x1, x1, x1, lsl #8
    orr     x1, x1, x1, lsl #16
    orr     x1, x1, x1, lsl #32
    add     x6, x0, x2
    cmp     x2, #16
    b.hs    20f
    tbz     x2, #3, 10f
    str     x1, [x0]
    str     x1, [x6, #-8]
    ret
10: tbz     x2, #2, 11f
    str     w1, [x0]
    str     w1, [x6, #-4]
    ret
11: cbz     x2, 12f
    lsr     x7, x2, #1
    strb    w1, [x0]
    strb    w1, [x0, x7]
    strb    w1, [x6, #-1]
12: ret
20: cmp     x2, #64
    b.hi    30f
    stp     x1, x1, [x0]
    stp     x1, x1, [x6, #-16]
    cmp     x2, #32
    b.ls    21f
    stp     x1, x1, [x0, #16]
    stp     x1, x1, [x6, #-32]
21: ret
30: // The first 64, then whole aligned lines, then the last 64.
    stp     x1, x1, [x0]
    stp     x1, x1, [x0, #16]
    stp     x1, x1, [x0, #32]
    stp     x1, x1, [x0, #48]
    sub     x7, x6, #64
    add     x14, x0, #64
    and     x14, x14, #~63
    cbnz    x1, 32f
    cmp     x2, #512
    b.lo    32f
    mrs     x3, dczid_el0
    cmp     x3, #4                  // DC ZVA allowed, of 64 bytes
    b.ne    32f
    sub     x8, x7, #192
    cmp     x14, x8
    b.hs    33f
31: dc      zva, x14
    add     x14, x14, #64
    dc      zva, x14
    add     x14, x14, #64
    dc      zva, x14
    add     x14, x14, #64
    dc      zva, x14
    add     x14, x14, #64
    cmp     x14, x8
    b.lo    31b
32: cmp     x14, x7
    b.hs    34f
33: stp     x1, x1, [x14]
    stp     x1, x1, [x14, #16]
    stp     x1, x1, [x14, #32]
    stp     x1, x1, [x14, #48]
    add     x14, x14, #64
    b       32b
34: stp     x1, x1, [x7]
    stp     x1, x1, [x7, #16]
    stp     x1, x1, [x7, #32]
    stp     x1, x1, [x7, #48]
    ret

    .balign 64
.global bcmp
.global memcmp
bcmp:
memcmp:
    cmp     x2, #8
    b.lo    20f
    add     x5, x0, x2
    add     x6, x1, x2
    sub     x7, x5, #8
10: ldr     x3, [x0], #8
    ldr     x4, [x1], #8
    cmp     x3, x4
    b.ne    30f
    cmp     x0, x7
    b.ls    10b
    // Up to seven left: the last eight again.
    ldr     x3, [x5, #-8]
    ldr     x4, [x6, #-8]
    cmp     x3, x4
    b.ne    30f
    mov     w0, #0
    ret
20: cbz     x2, 21f
    ldrb    w3, [x0], #1
    ldrb    w4, [x1], #1
    subs    w5, w3, w4
    b.ne    22f
    sub     x2, x2, #1
    b       20b
21: mov     w0, #0
    ret
22: mov     w0, w5
    ret
30: rev     x3, x3
    rev     x4, x4
    cmp     x3, x4
    cset    w0, hi
    csinv   w0, w0, wzr, hi
    ret
