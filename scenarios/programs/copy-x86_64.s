	.file	"copy.c"
	.intel_syntax noprefix
	.text
#APP
	.text
.globl _start
_start:
    call main
    hlt

#NO_APP
	.p2align 4
	.globl	memcpy
	.type	memcpy, @function
memcpy:
	mov	rax, rdi
	test	rdx, rdx
	je	.L2
	xor	ecx, ecx
	.p2align 4,,10
	.p2align 3
.L3:
	movzx	r8d, BYTE PTR [rsi+rcx]
	mov	BYTE PTR [rax+rcx], r8b
	add	rcx, 1
	cmp	rcx, rdx
	jne	.L3
.L2:
	ret
	.size	memcpy, .-memcpy
	.p2align 4
	.globl	memset
	.type	memset, @function
memset:
	mov	rax, rdi
	lea	r8, [rdi+rdx]
	mov	rcx, rdi
	test	rdx, rdx
	je	.L15
	.p2align 4,,10
	.p2align 3
.L11:
	add	rcx, 1
	mov	BYTE PTR [rcx-1], sil
	cmp	rcx, r8
	jne	.L11
.L15:
	ret
	.size	memset, .-memset
	.section	.text.startup,"ax",@progbits
	.p2align 4
	.globl	main
	.type	main, @function
main:
	mov	rcx, QWORD PTR first[rip+72]
	mov	rax, QWORD PTR first[rip+88]
	push	r13
	mov	r11, QWORD PTR first[rip+24]
	mov	r9, QWORD PTR first[rip+40]
	push	r12
	mov	r12, QWORD PTR first[rip]
	mov	r8, QWORD PTR first[rip+48]
	push	rbp
	mov	rdi, QWORD PTR first[rip+56]
	mov	rbp, QWORD PTR first[rip+8]
	push	rbx
	mov	rsi, QWORD PTR first[rip+64]
	mov	rbx, QWORD PTR first[rip+16]
	mov	r13, r12
	mov	QWORD PTR second[rip+72], rcx
	mov	rdx, QWORD PTR first[rip+80]
	mov	r10, QWORD PTR first[rip+32]
	not	r13
	mov	QWORD PTR second[rip+88], rax
	mov	QWORD PTR second[rip+8], rbp
	mov	QWORD PTR second[rip+16], rbx
	mov	QWORD PTR second[rip+24], r11
	mov	QWORD PTR second[rip+32], r10
	mov	QWORD PTR second[rip+40], r9
	mov	QWORD PTR second[rip+48], r8
	mov	QWORD PTR second[rip+56], rdi
	mov	QWORD PTR second[rip+64], rsi
	mov	QWORD PTR second[rip+80], rdx
	mov	QWORD PTR second[rip], r13
	mov	QWORD PTR third[rip], r13
	mov	QWORD PTR third[rip+8], rbp
	mov	QWORD PTR third[rip+16], rbx
	mov	QWORD PTR third[rip+24], r11
	mov	QWORD PTR third[rip+32], r10
	mov	QWORD PTR third[rip+40], r9
	mov	QWORD PTR third[rip+48], r8
	mov	QWORD PTR third[rip+56], rdi
	mov	QWORD PTR third[rip+64], rsi
	mov	QWORD PTR third[rip+80], rdx
	mov	QWORD PTR third[rip+96], r12
	mov	QWORD PTR third[rip+104], rbp
	mov	QWORD PTR third[rip+112], rbx
	mov	QWORD PTR third[rip+120], r11
	mov	QWORD PTR third[rip+128], r10
	mov	QWORD PTR third[rip+136], r9
	mov	QWORD PTR third[rip+144], r8
	mov	QWORD PTR third[rip+152], rdi
	mov	QWORD PTR third[rip+160], rsi
	mov	QWORD PTR third[rip+176], rdx
	mov	QWORD PTR third[rip+72], rcx
	mov	QWORD PTR third[rip+88], rax
	mov	QWORD PTR third[rip+168], rcx
	movabs	rcx, 1229782938247303441
	mov	QWORD PTR third[rip+184], rax
	xor	eax, eax
	.p2align 4,,10
	.p2align 3
.L17:
	mov	rdx, rax
	and	edx, 15
	imul	rdx, rcx
	mov	QWORD PTR words[0+rax*8], rdx
	add	rax, 1
	cmp	rax, 32
	jne	.L17
	mov	rax, OFFSET FLAT:words
	mov	rcx, OFFSET FLAT:words+128
	.p2align 4,,10
	.p2align 3
.L18:
	mov	rdx, QWORD PTR [rax]
	add	rax, 8
	mov	QWORD PTR [rax+120], rdx
	cmp	rcx, rax
	jne	.L18
	mov	rax, OFFSET FLAT:bytes
	mov	rcx, OFFSET FLAT:bytes+48
	movabs	rdx, 6510615555426900570
	.p2align 4,,10
	.p2align 3
.L19:
	mov	QWORD PTR [rax], rdx
	add	rax, 8
	cmp	rcx, rax
	jne	.L19
	mov	rax, QWORD PTR first[rip+32]
	mov	rdx, QWORD PTR sum[rip]
	mov	rsi, OFFSET FLAT:third+192
	mov	QWORD PTR bytes[rip+8], rax
	mov	rax, QWORD PTR first[rip+40]
	mov	QWORD PTR bytes[rip+16], rax
	mov	rax, OFFSET FLAT:third+176
	.p2align 4,,10
	.p2align 3
.L20:
	movsx	rcx, BYTE PTR [rax]
	add	rax, 1
	add	rdx, rcx
	cmp	rsi, rax
	jne	.L20
	mov	QWORD PTR sum[rip], rdx
	mov	eax, 5
	.p2align 4,,10
	.p2align 3
.L21:
	lock add	DWORD PTR counter[rip], 3
	sub	eax, 1
	jne	.L21
	pop	rbx
	pop	rbp
	pop	r12
	pop	r13
	ret
	.size	main, .-main
	.globl	counter
	.bss
	.align 4
	.type	counter, @object
	.size	counter, 4
counter:
	.zero	4
	.globl	sum
	.align 8
	.type	sum, @object
	.size	sum, 8
sum:
	.zero	8
	.globl	bytes
	.align 32
	.type	bytes, @object
	.size	bytes, 64
bytes:
	.zero	64
	.globl	words
	.align 32
	.type	words, @object
	.size	words, 256
words:
	.zero	256
	.globl	third
	.align 32
	.type	third, @object
	.size	third, 192
third:
	.zero	192
	.globl	second
	.align 32
	.type	second, @object
	.size	second, 96
second:
	.zero	96
	.globl	first
	.data
	.align 32
	.type	first, @object
	.size	first, 96
first:
	.quad	81985529216486895
	.long	1
	.long	2
	.long	3
	.long	4
	.long	5
	.long	6
	.string	"a record"
	.zero	7
	.long	0
	.long	1071644672
	.long	0
	.long	-1074528256
	.long	0
	.long	1074266112
	.long	630506365
	.long	1420970413
	.ascii	"\377\002\375\004\373\006\371\b\367\n\365\f\363\016\361\020"
	.section	.note.GNU-stack,"",@progbits
