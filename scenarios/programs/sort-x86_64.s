	.file	"sort.c"
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
	.type	sink, @function
sink:
	lea	edx, [rdi+1+rdi]
	cmp	edx, esi
	jnb	.L1
	mov	eax, edi
	mov	r8d, DWORD PTR exchanges[rip]
	xor	r11d, r11d
	mov	r9d, DWORD PTR numbers[0+rax*4]
	jmp	.L7
	.p2align 4,,10
	.p2align 3
.L17:
	mov	r10d, eax
	mov	r10d, DWORD PTR numbers[0+r10*4]
	cmp	r10d, ecx
	jle	.L9
	mov	ecx, r10d
	cmp	r9d, ecx
	jge	.L16
.L5:
	mov	edx, eax
	mov	edi, edi
	add	r8d, 1
	mov	r11d, 1
	mov	DWORD PTR numbers[0+rdi*4], ecx
	mov	DWORD PTR numbers[0+rdx*4], r9d
	lea	edx, [rax+1+rax]
	cmp	edx, esi
	jnb	.L14
	mov	edi, eax
.L7:
	mov	ecx, edx
	lea	eax, [rdi+2+rdi]
	mov	ecx, DWORD PTR numbers[0+rcx*4]
	cmp	eax, esi
	jb	.L17
.L9:
	mov	eax, edx
	cmp	r9d, ecx
	jl	.L5
.L16:
	test	r11b, r11b
	je	.L1
.L14:
	mov	DWORD PTR exchanges[rip], r8d
.L1:
	ret
	.size	sink, .-sink
	.section	.text.startup,"ax",@progbits
	.p2align 4
	.globl	main
	.type	main, @function
main:
	push	rbx
	mov	ebx, 23
	.p2align 4,,10
	.p2align 3
.L19:
	mov	edi, ebx
	mov	esi, 48
	call	sink
	sub	ebx, 1
	jnb	.L19
	mov	rbx, OFFSET FLAT:numbers+188
	mov	esi, 47
	.p2align 4,,10
	.p2align 3
.L20:
	mov	edx, DWORD PTR numbers[rip]
	mov	eax, DWORD PTR [rbx]
	xor	edi, edi
	sub	rbx, 4
	add	DWORD PTR exchanges[rip], 1
	mov	DWORD PTR [rbx+4], edx
	mov	DWORD PTR numbers[rip], eax
	call	sink
	sub	esi, 1
	jne	.L20
	pop	rbx
	ret
	.size	main, .-main
	.globl	exchanges
	.bss
	.align 4
	.type	exchanges, @object
	.size	exchanges, 4
exchanges:
	.zero	4
	.globl	numbers
	.data
	.align 32
	.type	numbers, @object
	.size	numbers, 192
numbers:
	.long	503
	.long	-87
	.long	512
	.long	61
	.long	908
	.long	-170
	.long	897
	.long	275
	.long	653
	.long	426
	.long	-154
	.long	509
	.long	612
	.long	677
	.long	765
	.long	-703
	.long	44
	.long	19
	.long	-5
	.long	88
	.long	310
	.long	299
	.long	-1
	.long	0
	.long	77
	.long	76
	.long	75
	.long	-74
	.long	900
	.long	901
	.long	-902
	.long	903
	.long	1
	.long	2
	.long	3
	.long	-4
	.long	5
	.long	6
	.long	7
	.long	-8
	.long	409
	.long	408
	.long	407
	.long	406
	.long	-32768
	.long	32767
	.long	12
	.long	13
	.section	.note.GNU-stack,"",@progbits
