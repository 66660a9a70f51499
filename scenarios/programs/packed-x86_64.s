	.file	"packed.c"
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
	mov	r10, QWORD PTR changes[rip]
	mov	rax, OFFSET FLAT:list
	mov	rdx, OFFSET FLAT:turned+120
	mov	r11, OFFSET FLAT:list+135
	.p2align 4,,10
	.p2align 3
.L2:
	movzx	r9d, BYTE PTR [rax]
	movzx	edi, WORD PTR [rax+13]
	add	rax, 15
	sub	rdx, 15
	mov	rcx, QWORD PTR [rax-14]
	mov	esi, DWORD PTR [rax-6]
	add	QWORD PTR amounts[0+r9*8], rcx
	mov	r8, r9
	movsx	r9, di
	bswap	rcx
	bswap	esi
	mov	BYTE PTR [rdx+15], r8b
	add	r10, r9
	mov	QWORD PTR [rdx+16], rcx
	mov	DWORD PTR [rdx+24], esi
	mov	WORD PTR [rdx+28], di
	cmp	r11, rax
	jne	.L2
	mov	QWORD PTR changes[rip], r10
	ret
	.size	main, .-main
	.globl	changes
	.bss
	.align 8
	.type	changes, @object
	.size	changes, 8
changes:
	.zero	8
	.globl	amounts
	.align 16
	.type	amounts, @object
	.size	amounts, 24
amounts:
	.zero	24
	.globl	turned
	.align 32
	.type	turned, @object
	.size	turned, 135
turned:
	.zero	135
	.globl	list
	.data
	.align 32
	.type	list, @object
	.size	list, 135
list:
	.byte	1
	.quad	1000000000000
	.long	20200101
	.value	-1
	.byte	2
	.quad	2000000000000
	.long	20200102
	.value	-2
	.byte	1
	.quad	3000000000000
	.long	20200103
	.value	-3
	.byte	2
	.quad	4000000000000
	.long	20200104
	.value	4
	.byte	1
	.quad	5000000000000
	.long	20200105
	.value	5
	.byte	2
	.quad	6000000000000
	.long	20200106
	.value	6
	.byte	1
	.quad	7000000000000
	.long	20200107
	.value	-7
	.byte	2
	.quad	8000000000000
	.long	20200108
	.value	-8
	.byte	1
	.quad	9000000000000
	.long	20200109
	.value	9
	.section	.note.GNU-stack,"",@progbits
