"""The timing loop for riscv64: rdtime, KVM_RUN, rdtime (RISC-V unprivileged ISA, Zicntr).

`long loop(struct *)`: see kvmscen.sent.timing.loop for the struct, the rows and the records. The
bytes are what assemblers make of SOURCE; a test holds them against each other.
"""

SOURCE = """\
    mv   t0, a0
    ld   t1, 16(t0)                 # struct kvm_run
again:
    ld   a0, 0(t0)                  # the descriptor
    ld   a1, 8(t0)                  # KVM_RUN
    li   a2, 0
    li   a7, 29                     # ioctl
    fence
    rdtime t2
    ecall
    fence
    rdtime t3
    sd   t2, 48(t0)
    sd   t3, 56(t0)
    bltz a0, out
    ld   a1, 64(t0)                 # the ring of coalesced writes
    lw   a2, 0(a1)
    lw   a3, 4(a1)
    bne  a2, a3, strange
    lw   a1, 8(t1)                  # exit_reason
    ld   a2, 24(t0)                 # the rows
    ld   a3, 32(t0)                 # and their end
    li   a4, 0                      # bits of the rows that fit
row:
    bgeu a2, a3, rows
    lw   a5, 0(a2)
    bne  a5, a1, next
    lw   a6, 4(a2)                  # conditions
    addi a7, a2, 40
condition:
    beqz a6, fits
    ld   a5, 0(a7)
    add  a5, a5, t1
    ld   a5, 0(a5)
    ld   t4, 8(a7)
    and  a5, a5, t4
    ld   t4, 16(a7)
    bltu a5, t4, next
    ld   t4, 24(a7)
    bltu t4, a5, next
    addi a7, a7, 32
    addi a6, a6, -1
    j    condition
fits:
    ld   a5, 8(a2)                  # bit
    or   a4, a4, a5
    lw   a5, 16(a2)                 # action
    beqz a5, next
    ld   a6, 24(a2)
    ld   a7, 32(a2)
    li   t4, 3
    bgeu a5, t4, device
    add  a7, a7, t1
    li   t4, 2
    bne  a5, t4, reply
    ld   a7, 0(a7)                  # io has it elsewhere
    add  a7, a7, t1
reply:
    sd   a6, 0(a7)
    j    next
device:
    lwu  t5, 48(t1)                 # mmio.len
    ld   t6, 32(t1)                 # mmio.phys_addr
    add  t4, t6, t5
    bltu a7, t4, strange            # behind the end of the section
    add  a6, a6, t6
    addi a7, t1, 40                 # mmio.data
    li   t4, 3
    beq  a5, t4, copy
    mv   t4, a6
    mv   a6, a7
    mv   a7, t4
copy:
    beqz t5, next
    lbu  t4, 0(a6)
    sb   t4, 0(a7)
    addi a6, a6, 1
    addi a7, a7, 1
    addi t5, t5, -1
    j    copy
next:
    addi a2, a2, 168
    j    row
rows:
    beqz a4, strange
    ld   a5, 40(t0)                 # the next record
    sd   t2, 0(a5)
    sd   t3, 8(a5)
    sd   a4, 16(a5)
    addi a5, a5, 24
    sd   a5, 40(t0)
    ld   a6, 72(t0)                 # the end of the records
    bltu a5, a6, again
    li   a0, 0
    ret
strange:
    li   a0, 1
out:
    ret
"""

CODE = bytes.fromhex(
    "9302050003b3020103b5020083b58200130600009308d0010f00f00ff32310c0"
    "730000000f00f00f732e10c023b8720223bcc2036344051283b5020403a60500"
    "83a64500631ad6108325830003b6820183b6020213070000637ad60c83270600"
    "6392b70c0328460093088602630a080283b70800b387670083b7070083be8800"
    "b3f7d70183be080163eed70983be880163eafe08938808021308f8ff6ff01ffd"
    "833786003367f70083270601638c07060338860183380602930e300063f0d703"
    "b3886800930e20006396d70183b80800b388680023b008016f00c004036f0303"
    "833f0302b38eef0163e8d8073308f80193088302930e30006388d701930e0800"
    "1388080093880e00630e0f00834e08002380d8011308180093881800130fffff"
    "6ff09ffe1306860a6ff01ff36306070283b7820223b0770023b4c70123b8e700"
    "9387870123b4f20203b88204e3ee07eb13050000678000001305100067800000"
)
