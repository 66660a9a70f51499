"""The timing loop for arm64: CNTVCT_EL0, KVM_RUN, CNTVCT_EL0 (Arm ARM, D12; ISB keeps the reads of
the counter in their order).

`long loop(struct *)`: see kvmscen.sent.timing.loop for the struct, the rows and the records. The
bytes are what assemblers make of SOURCE; a test holds them against each other.
"""

SOURCE = """\
    stp  x19, x20, [sp, #-32]!
    stp  x21, x22, [sp, #16]
    mov  x19, x0
    ldr  x20, [x19, #16]            // struct kvm_run
again:
    ldr  x0, [x19]                  // the descriptor
    ldr  x1, [x19, #8]              // KVM_RUN
    mov  x2, #0
    mov  x8, #29                    // ioctl
    isb
    mrs  x21, cntvct_el0
    svc  #0
    isb
    mrs  x22, cntvct_el0
    stp  x21, x22, [x19, #48]
    tbnz x0, #63, out
    ldr  x9, [x19, #64]             // the ring of coalesced writes
    ldp  w10, w11, [x9]
    cmp  w10, w11
    b.ne strange
    ldr  w8, [x20, #8]              // exit_reason
    ldp  x9, x10, [x19, #24]        // the rows and their end
    mov  x11, #0                    // bits of the rows that fit
row:
    cmp  x9, x10
    b.hs rows
    ldp  w12, w13, [x9]             // reason, conditions
    cmp  w12, w8
    b.ne next
    add  x14, x9, #40
condition:
    cbz  w13, fits
    ldp  x15, x16, [x14]
    ldr  x15, [x20, x15]
    and  x15, x15, x16
    ldp  x16, x17, [x14, #16]
    cmp  x15, x16
    b.lo next
    cmp  x15, x17
    b.hi next
    add  x14, x14, #32
    sub  w13, w13, #1
    b    condition
fits:
    ldp  x12, x13, [x9, #8]         // bit, action
    orr  x11, x11, x12
    cbz  x13, next
    ldp  x14, x15, [x9, #24]
    cmp  x13, #3
    b.hs device
    cmp  x13, #2
    b.ne reply
    ldr  x15, [x20, x15]            // io has it elsewhere
reply:
    str  x14, [x20, x15]
    b    next
device:
    ldr  w16, [x20, #48]            // mmio.len
    ldr  x17, [x20, #32]            // mmio.phys_addr
    add  x12, x17, x16
    cmp  x12, x15                   // the end of the section
    b.hi strange
    add  x14, x14, x17
    add  x15, x20, #40              // mmio.data
    cmp  x13, #3
    csel x12, x14, x15, eq          // from
    csel x13, x15, x14, eq          // to
copy:
    cbz  w16, next
    ldrb w17, [x12], #1
    strb w17, [x13], #1
    sub  w16, w16, #1
    b    copy
next:
    add  x9, x9, #168
    b    row
rows:
    cbz  x11, strange
    ldr  x12, [x19, #40]            // the next record
    stp  x21, x22, [x12]
    str  x11, [x12, #16]
    add  x12, x12, #24
    str  x12, [x19, #40]
    ldr  x13, [x19, #72]            // the end of the records
    cmp  x12, x13
    b.lo again
    mov  x0, #0
    b    out
strange:
    mov  x0, #1
out:
    ldp  x21, x22, [sp, #16]
    ldp  x19, x20, [sp], #32
    ret
"""

CODE = bytes.fromhex(
    "f353bea9f55b01a9f30300aa740a40f9600240f9610640f9020080d2a80380d2"
    "df3f03d555e03bd5010000d4df3f03d556e03bd5755a03a94008f8b7692240f9"
    "2a2d40295f010b6ba1070054880a40b969aa41a90b0080d23f010aeba2050054"
    "2c3540299f01086b010500542ea100918d010034cf4140a98f6a6ff8ef01108a"
    "d04541a9ff0110eb03040054ff0111ebc8030054ce810091ad050051f5ffff17"
    "2cb540a96b010caa0d0300b42ebd41a9bf0d00f1c2000054bf0900f141000054"
    "8f6a6ff88e6a2ff810000014903240b9911240f92c02108b9f010feb08030054"
    "ce01118b8fa20091bf0d00f1cc018f9aed018e9ab000003491154038b1150038"
    "10060051fcffff1729a10291d3ffff176b0100b46c1640f9955900a98b0900f9"
    "8c6100916c1600f96d2640f99f010deb03f7ff54000080d202000014200080d2"
    "f55b41a9f353c2a8c0035fd6"
)
