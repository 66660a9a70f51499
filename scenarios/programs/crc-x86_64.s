	.file	"crc.c"
	.intel_syntax noprefix
	.text
#APP
	.text
.globl _start
_start:
    call main
    hlt

#NO_APP
	.section	.text.startup,"ax",@progbits
	.p2align 4
	.globl	main
	.type	main, @function
main:
	xor	edi, edi
	.p2align 4,,10
	.p2align 3
.L4:
	mov	eax, edi
	mov	edx, 8
	.p2align 4,,10
	.p2align 3
.L3:
	mov	esi, eax
	shr	eax
	mov	ecx, eax
	and	esi, 1
	xor	ecx, -306674912
	test	esi, esi
	cmovne	eax, ecx
	sub	edx, 1
	jne	.L3
	mov	DWORD PTR table[0+rdi*4], eax
	add	rdi, 1
	cmp	rdi, 256
	jne	.L4
	mov	rdx, OFFSET FLAT:text
	mov	rsi, OFFSET FLAT:text+43
	mov	eax, -1
	.p2align 4,,10
	.p2align 3
.L5:
	mov	ecx, eax
	xor	al, BYTE PTR [rdx]
	add	rdx, 1
	movzx	eax, al
	shr	ecx, 8
	xor	ecx, DWORD PTR table[0+rax*4]
	mov	eax, ecx
	cmp	rsi, rdx
	jne	.L5
	not	eax
	mov	DWORD PTR crc[rip], eax
	ret
	.size	main, .-main
	.globl	crc
	.bss
	.align 4
	.type	crc, @object
	.size	crc, 4
crc:
	.zero	4
	.globl	text
	.data
	.align 32
	.type	text, @object
	.size	text, 44
text:
	.string	"The quick brown fox jumps over the lazy dog"
	.globl	table
	.bss
	.align 32
	.type	table, @object
	.size	table, 1024
table:
	.zero	1024
	.section	.note.GNU-stack,"",@progbits
