// Exception vectors, and the way to user mode and back.
//
// User mode is entered from a plain function, `enter_user_raw`, which leaves a frame on the kernel stack. An exception
// at EL0 finds SP_EL1 still pointing at that frame, saves the user's registers where the frame says, and returns
// from the function. So there is no per-thread kernel stack, and nothing to save but callee-saved registers.
//
//   frame: x29 x30 x19-x28, then +96 the UserRegs, +104 scratch

.macro save_rest
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
.endm

.macro el0_entry kind
    .balign 128
    str     x30, [sp, #104]
    ldr     x30, [sp, #96]
    stp     x0, x1, [x30, #0]
    mov     x0, #\kind
    b       from_user
.endm

.macro el1_entry kind
    .balign 128
    sub     sp, sp, #{EL1_FRAME}
    // Is SP in a guard? Its bit tells; no register may be lost over the test.
    add     sp, sp, x0
    sub     x0, sp, x0
    tbz     x0, #{STACK_BIT}, 1f
    sub     x0, sp, x0
    sub     sp, sp, x0
    stp     x0, x1, [sp, #0]
    mov     x0, #\kind
    b       from_kernel
1:  // The stack is gone, and so is this kernel: registers of the user may be overwritten.
    sub     x0, sp, x0
    msr     tpidr_el0, x0
    sub     x0, sp, x0
    add     x0, x0, #{EL1_FRAME}
    msr     tpidrro_el0, x0
    ldr     x0, =overflow_stack_top
    mov     sp, x0
    b       overflowed
.endm

.section .vectors.text, "ax"
    .balign 2048
.global exception_vectors
exception_vectors:
    el1_entry 4                     // current level with SP_EL0: never
    el1_entry 5
    el1_entry 6
    el1_entry 7
    el1_entry 0                     // current level: synchronous, IRQ, FIQ, SError
    el1_entry 1
    el1_entry 2
    el1_entry 3
    el0_entry 0                     // AArch64 user
    el0_entry 1
    el0_entry 2
    el0_entry 3
    el0_entry 4                     // AArch32 user: never, SPSR is checked
    el0_entry 5
    el0_entry 6
    el0_entry 7

    .balign 128
// fn enter_user_raw(regs: &mut UserRegs) -> (kind, ESR_EL1)
.global enter_user_raw
enter_user_raw:
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x0, [sp, #96]
    ldp     x30, x1, [x0, #240]     // x30, sp
    ldp     x2, x3, [x0, #256]      // pc, pstate
    ldr     x4, [x0, #272]          // tpidr
    and     x3, x3, #0xfffffffffffffc00 // EL0t, AArch64, nothing masked, whatever the caller says
    msr     sp_el0, x1
    msr     elr_el1, x2
    msr     spsr_el1, x3
    msr     tpidr_el0, x4
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldp     x0, x1, [x0, #0]
    eret

// x0 = kind, x30 = UserRegs; x0, x1 of the user are saved, its x30 is in the frame.
from_user:
    stp     x2, x3, [x30, #16]
    stp     x4, x5, [x30, #32]
    stp     x6, x7, [x30, #48]
    stp     x8, x9, [x30, #64]
    stp     x10, x11, [x30, #80]
    stp     x12, x13, [x30, #96]
    stp     x14, x15, [x30, #112]
    stp     x16, x17, [x30, #128]
    stp     x18, x19, [x30, #144]
    stp     x20, x21, [x30, #160]
    stp     x22, x23, [x30, #176]
    stp     x24, x25, [x30, #192]
    stp     x26, x27, [x30, #208]
    stp     x28, x29, [x30, #224]
    ldr     x2, [sp, #104]
    mrs     x3, sp_el0
    mrs     x4, elr_el1
    mrs     x5, spsr_el1
    mrs     x6, tpidr_el0
    stp     x2, x3, [x30, #240]
    stp     x4, x5, [x30, #256]
    str     x6, [x30, #272]
    mrs     x1, esr_el1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #112
    ret

// x0 = kind; x0, x1 of the kernel are saved.
from_kernel:
    save_rest
    add     x4, sp, #{EL1_FRAME}
    stp     x30, x4, [sp, #240]
    mrs     x4, elr_el1
    mrs     x5, spsr_el1
    stp     x4, x5, [sp, #256]
    mrs     x4, esr_el1
    mrs     x5, far_el1
    stp     x4, x5, [sp, #272]
    mov     x1, x0
    mov     x0, sp
    bl      {from_kernel}
    ldp     x4, x5, [sp, #256]
    msr     elr_el1, x4
    msr     spsr_el1, x5
    ldp     x0, x1, [sp, #0]
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    add     sp, sp, #{EL1_FRAME}
    eret

// SP is the overflow stack; the old SP is in TPIDRRO_EL0, the old x0 in TPIDR_EL0.
overflowed:
    sub     sp, sp, #{EL1_FRAME}
    mrs     x0, tpidr_el0
    stp     x0, x1, [sp, #0]
    save_rest
    mrs     x4, tpidrro_el0
    stp     x30, x4, [sp, #240]
    mrs     x4, elr_el1
    mrs     x5, spsr_el1
    stp     x4, x5, [sp, #256]
    mrs     x4, esr_el1
    mrs     x5, far_el1
    stp     x4, x5, [sp, #272]
    mov     x0, sp
    mov     x1, #8
    bl      {from_kernel}
    b       .
    .ltorg

.section .bss.overflow, "aw", %nobits
    .balign 16
    .space  16384
overflow_stack_top:
