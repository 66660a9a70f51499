/* Where a program begins: a stack is there, main is called, and the machine is switched off. No library. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

#ifdef __aarch64__
asm(".text\n"
    ".globl _start\n"
    "_start:\n"
    "    bl   main\n"
    "    mov  w0, #0x0008\n"
    "    movk w0, #0x8400, lsl #16\n" /* PSCI SYSTEM_OFF */
    "    hvc  #0\n");
#else
asm(".text\n"
    ".globl _start\n"
    "_start:\n"
    "    call main\n"
    "    hlt\n");
#endif
