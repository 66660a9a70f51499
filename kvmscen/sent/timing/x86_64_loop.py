"""The timing loop for x86_64: RDTSC, KVM_RUN, RDTSC (Intel SDM 2, RDTSC; LFENCE keeps what stands
before it from being timed).

`long loop(struct *)`: see kvmscen.sent.timing.loop for the struct, the rows and the records. The
bytes are what assemblers make of SOURCE; a test holds them against each other.
"""

SOURCE = """\
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov  r12, rdi
    mov  r13, qword ptr [r12 + 16]  # struct kvm_run
again:
    mov  rdi, qword ptr [r12]       # the descriptor
    mov  rsi, qword ptr [r12 + 8]   # KVM_RUN
    lfence
    rdtsc
    shl  rdx, 32
    or   rdx, rax
    mov  r14, rdx
    xor  edx, edx
    mov  eax, 16                    # ioctl
    syscall
    mov  rbx, rax
    lfence
    rdtsc
    shl  rdx, 32
    or   rdx, rax
    mov  r15, rdx
    mov  qword ptr [r12 + 48], r14
    mov  qword ptr [r12 + 56], r15
    mov  rax, rbx
    test rax, rax
    js   out
    mov  r8, qword ptr [r12 + 64]   # the ring of coalesced writes
    mov  eax, dword ptr [r8]
    cmp  eax, dword ptr [r8 + 4]
    jne  strange
    mov  r8d, dword ptr [r13 + 8]   # exit_reason
    mov  rbp, qword ptr [r12 + 24]  # the first row
    xor  ebx, ebx                   # bits of the rows that fit
row:
    cmp  rbp, qword ptr [r12 + 32]
    jae  rows
    cmp  r8d, dword ptr [rbp]
    jne  next
    mov  ecx, dword ptr [rbp + 4]   # conditions
    lea  rsi, [rbp + 40]
condition:
    test ecx, ecx
    jz   fits
    mov  rdx, qword ptr [rsi]
    mov  rdx, qword ptr [r13 + rdx]
    and  rdx, qword ptr [rsi + 8]
    cmp  rdx, qword ptr [rsi + 16]
    jb   next
    cmp  rdx, qword ptr [rsi + 24]
    ja   next
    add  rsi, 32
    dec  ecx
    jmp  condition
fits:
    or   rbx, qword ptr [rbp + 8]
    mov  eax, dword ptr [rbp + 16]
    test eax, eax
    jz   next
    cmp  eax, 3
    jae  device
    mov  rdx, qword ptr [rbp + 32]  # where the reply goes
    cmp  eax, 2
    jne  reply
    mov  rdx, qword ptr [r13 + rdx] # io has it elsewhere
reply:
    mov  rax, qword ptr [rbp + 24]
    mov  qword ptr [r13 + rdx], rax
    jmp  next
device:
    mov  ecx, dword ptr [r13 + 48]  # mmio.len
    mov  rsi, qword ptr [r13 + 32]  # mmio.phys_addr
    lea  rdx, [rsi + rcx]
    cmp  rdx, qword ptr [rbp + 32]  # the end of the section
    ja   strange
    add  rsi, qword ptr [rbp + 24]
    lea  rdi, [r13 + 40]            # mmio.data
    cmp  eax, 3
    je   copy
    xchg rsi, rdi
copy:
    rep movsb
next:
    add  rbp, 168
    jmp  row
rows:
    test rbx, rbx
    jz   strange
    mov  rdx, qword ptr [r12 + 40]  # the next record
    mov  qword ptr [rdx], r14
    mov  qword ptr [rdx + 8], r15
    mov  qword ptr [rdx + 16], rbx
    add  rdx, 24
    mov  qword ptr [r12 + 40], rdx
    cmp  rdx, qword ptr [r12 + 72]  # the end of the records
    jb   again
    xor  eax, eax
    jmp  out
strange:
    mov  eax, 1
out:
    pop  r15
    pop  r14
    pop  r13
    pop  r12
    pop  rbp
    pop  rbx
    ret
"""

CODE = bytes.fromhex(
    "535541544155415641574989fc4d8b6c2410498b3c24498b7424080faee80f31"
    "48c1e2204809c24989d631d2b8100000000f054889c30faee80f3148c1e22048"
    "09c24989d74d897424304d897c24384889d84885c00f88e40000004d8b442440"
    "418b00413b40040f85cd000000458b4508498b6c241831db493b6c24200f838a"
    "000000443b450075788b4d04488d752885c97420488b16498b54150048235608"
    "483b5610725b483b561877554883c620ffc9ebdc480b5d088b451085c0744283"
    "f8037319488b552083f8027505498b541500488b45184989441500eb24418b4d"
    "30498b7520488d140e483b5520774b48037518498d7d2883f80374034887fef3"
    "a44881c5a8000000e96bffffff4885db7428498b5424284c89324c897a084889"
    "5a104883c2184989542428493b5424480f82dcfeffff31c0eb05b80100000041"
    "5f415e415d415c5d5bc3"
)
