// From the boot loader to Rust: Image header, EL2 to EL1, first page tables, MMU on.
// Until the MMU is on everything is addressed relative to the program counter, so the image may lie anywhere.

.macro load_pa reg, symbol
    adrp    \reg, \symbol
    add     \reg, \reg, #:lo12:\symbol
.endm

.section .head.text, "ax"
.global _head
_head:
    b       primary_entry
    .long   0
    .quad   0                       // text_offset
    .quad   __image_size            // includes .bss
    .quad   0xa                     // little endian, 4 KiB pages, anywhere in RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

// x0 = physical address of the device tree.
primary_entry:
    mov     x20, x0
    mrs     x22, cntvct_el0         // time zero
    bl      drop_to_el1

    // The tables are written uncached: no stale line may cover them now or later.
    load_pa x0, __tables_start
    load_pa x1, __tables_end
    bl      invalidate_range
    load_pa x0, __tables_start
    load_pa x1, __tables_end
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b

    load_pa x21, _head              // where the image lies

    // TTBR0: the 2 MiB of the image that hold this code, at their physical address, read-only.
    load_pa x0, idmap_l0
    load_pa x1, idmap_l1
    load_pa x2, idmap_l2
    ubfx    x3, x21, #39, #9
    orr     x4, x1, #3
    str     x4, [x0, x3, lsl #3]
    ubfx    x3, x21, #30, #9
    orr     x4, x2, #3
    str     x4, [x1, x3, lsl #3]
    ubfx    x3, x21, #21, #9
    ldr     x5, ={TEXT_BLOCK}
    orr     x4, x21, x5
    str     x4, [x2, x3, lsl #3]

    // TTBR1: the image in 2 MiB blocks, and four MiB of RAM around the device tree.
    load_pa x0, early_l0
    load_pa x1, early_l1
    load_pa x2, early_l2_image
    load_pa x3, early_l2_dtb
    orr     x4, x1, #3
    str     x4, [x0, #511 * 8]
    orr     x4, x2, #3
    str     x4, [x1, #510 * 8]
    orr     x4, x3, #3
    str     x4, [x1, #511 * 8]
    ldr     x5, ={EARLY_BLOCK}
    ldr     x6, =__image_size
    orr     x4, x21, x5
2:  str     x4, [x2], #8
    add     x4, x4, #0x200000
    subs    x6, x6, #0x200000
    b.gt    2b
    bic     x4, x20, #0x1fffff
    orr     x4, x4, x5
    str     x4, [x3]
    add     x4, x4, #0x200000
    str     x4, [x3, #8]

    load_pa x0, __tables_start
    load_pa x1, __tables_end
    bl      invalidate_range

    load_pa x1, early_l0
    bl      enable_mmu
    ldr     x8, =primary_high
    br      x8

// Secondary CPUs come here from PSCI CPU_ON: x0 = CPU number.
.global secondary_entry
secondary_entry:
    mov     x20, x0
    bl      drop_to_el1
    load_pa x1, kernel_l0
    bl      enable_mmu
    ldr     x8, =secondary_high
    br      x8

// Returns at EL1 with the MMU off, whichever level it was called at. Clobbers x9, x10.
drop_to_el1:
    mrs     x9, CurrentEL
    cmp     x9, #(2 << 2)
    ldr     x10, ={SCTLR_OFF}
    b.eq    1f
    msr     sctlr_el1, x10
    isb
    ret
1:  msr     sctlr_el1, x10
    ldr     x9, ={HCR_EL2}
    msr     hcr_el2, x9
    isb
    mrs     x9, cnthctl_el2
    orr     x9, x9, #3              // EL1 may use the physical counter and timer
    msr     cnthctl_el2, x9
    msr     cntvoff_el2, xzr
    mrs     x9, midr_el1
    msr     vpidr_el2, x9
    mrs     x9, mpidr_el1
    msr     vmpidr_el2, x9
    mov     x9, #0x33ff             // no trap of FP and SIMD
    msr     cptr_el2, x9
    msr     hstr_el2, xzr
    msr     vttbr_el2, xzr
    mov     x10, xzr
    mrs     x9, id_aa64dfr0_el1
    ubfx    x9, x9, #8, #4          // PMUVer
    cbz     x9, 2f
    cmp     x9, #15
    b.eq    2f
    mrs     x10, pmcr_el0
    ubfx    x10, x10, #11, #5       // every event counter belongs to EL1
2:  msr     mdcr_el2, x10
    mrs     x9, id_aa64pfr0_el1
    ubfx    x9, x9, #24, #4         // system registers of a GICv3
    cbz     x9, 3f
    mrs     x9, S3_4_C12_C9_5       // ICC_SRE_EL2: SRE, Enable
    orr     x9, x9, #1
    orr     x9, x9, #8
    msr     S3_4_C12_C9_5, x9
    isb
    mrs     x9, S3_4_C12_C9_5
    tbz     x9, #0, 3f
    msr     S3_4_C12_C11_0, xzr     // ICH_HCR_EL2
3:  mov     x9, #0x3c5              // EL1h, everything masked
    msr     spsr_el2, x9
    msr     elr_el2, x30
    eret

// TTBR1 := x1, TTBR0 := the identity map; MMU and caches on. Clobbers x2-x4.
enable_mmu:
    load_pa x2, idmap_l0
    msr     ttbr0_el1, x2
    msr     ttbr1_el1, x1
    ldr     x2, ={MAIR}
    msr     mair_el1, x2
    ldr     x2, ={TCR}
    mrs     x3, id_aa64mmfr0_el1
    and     x3, x3, #0xf            // PARange
    mov     x4, #5                  // 48 bits are enough
    cmp     x3, x4
    csel    x3, x3, x4, ls
    bfi     x2, x3, #32, #3         // TCR.IPS
    msr     tcr_el1, x2
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x2, ={SCTLR_ON}
    msr     sctlr_el1, x2
    isb
    ret

// Discards the cache lines of [x0, x1). Clobbers x2, x3.
invalidate_range:
    dmb     sy
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4
    mov     x3, #4
    lsl     x3, x3, x2
1:  dc      ivac, x0
    add     x0, x0, x3
    cmp     x0, x1
    b.lo    1b
    dsb     sy
    ret

// fn switch_kernel_root(root: u64, image: u64): TTBR1 := root with no stale translation left. The block sizes of
// live addresses change, so the CPU runs in the identity map (still in TTBR0) meanwhile: break before make.
.global switch_kernel_root
switch_kernel_root:
    adr     x2, 1f
    ldr     x3, =_head
    sub     x2, x2, x3
    add     x2, x2, x1
    br      x2
1:  load_pa x2, empty_root
    msr     ttbr1_el1, x2
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    msr     ttbr1_el1, x0
    isb
    ret

    .ltorg

.section .text.boot, "ax"
primary_high:
    ldr     x0, =__bss_start
    ldr     x1, =__bss_end
1:  stp     xzr, xzr, [x0], #16
    cmp     x0, x1
    b.lo    1b
    ldr     x0, =boot_stack_top
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    mov     x1, x21
    mov     x2, x22
    bl      {primary_init}
    ldr     x8, ={STACK_TOP_0}      // the same memory, now above a guard
    mov     sp, x8
    mov     x29, xzr
    mov     x30, xzr
    bl      {primary_main}
    b       .

secondary_high:
    ldr     x8, ={STACK_TOP_0}
    mov     x9, #{STACK_SLOT}
    madd    x8, x20, x9, x8
    mov     sp, x8
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    bl      {secondary_main}
    b       .
    .ltorg

.section .bss.stack, "aw", %nobits
    .balign 4096
.global boot_stack
boot_stack:
    .space  {STACK_SIZE}
boot_stack_top:

.section .boot.tables, "aw", %nobits
    .balign 4096
.global idmap_l0
idmap_l0:       .space 4096
idmap_l1:       .space 4096
idmap_l2:       .space 4096
early_l0:       .space 4096
early_l1:       .space 4096
early_l2_image: .space 4096
early_l2_dtb:   .space 4096
.global empty_root
empty_root:     .space 4096
.global kernel_l0
kernel_l0:      .space 4096
