.global _start:

.section .text
_start:
    ldr x2, =counter        // outside every memslot
    str xzr, [x2]           // KVM_EXIT_MMIO
    str xzr, [x2, #8]       // KVM_EXIT_MMIO
    str xzr, [x2], #8       // and this one?
    b .

.section .data
counter:
    .quad 1
    .quad 2
