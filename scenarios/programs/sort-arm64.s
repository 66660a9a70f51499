	.arch armv8-a
	.file	"sort.c"
	.text
#APP
	.text
.globl _start
_start:
    bl   main
    mov  w0, #0x0008
    movk w0, #0x8400, lsl #16
    hvc  #0

#NO_APP
	.align	2
	.p2align 4,,11
	.type	sink, %function
sink:
.LFB0:
	.cfi_startproc
	lsl	w3, w0, 1
	add	w3, w3, 1
	cmp	w1, w3
	bls	.L1
	adrp	x4, .LANCHOR1
	add	x4, x4, :lo12:.LANCHOR1
	adrp	x10, .LANCHOR0
	mov	w9, 0
	ldr	w7, [x4, w0, uxtw 2]
	ldr	w6, [x10, #:lo12:.LANCHOR0]
	b	.L7
	.p2align 2,,3
.L17:
	ldr	w8, [x4, x8, lsl 2]
	cmp	w8, w5
	ble	.L9
	mov	w5, w8
	cmp	w7, w5
	bge	.L16
.L5:
	lsl	w3, w2, 1
	str	w5, [x4, w0, uxtw 2]
	add	w3, w3, 1
	str	w7, [x4, w2, uxtw 2]
	mov	w0, w2
	add	w6, w6, 1
	mov	w9, 1
	cmp	w3, w1
	bcs	.L14
.L7:
	add	w2, w0, 1
	ldr	w5, [x4, w3, uxtw 2]
	lsl	w8, w2, 1
	mov	x2, x8
	cmp	w8, w1
	bcc	.L17
.L9:
	mov	w2, w3
	cmp	w7, w5
	blt	.L5
.L16:
	cbz	w9, .L1
.L14:
	str	w6, [x10, #:lo12:.LANCHOR0]
.L1:
	ret
	.cfi_endproc
.LFE0:
	.size	sink, .-sink
	.section	.text.startup,"ax",@progbits
	.align	2
	.p2align 4,,11
	.global	main
	.type	main, %function
main:
.LFB1:
	.cfi_startproc
	stp	x29, x30, [sp, -16]!
	.cfi_def_cfa_offset 16
	.cfi_offset 29, -16
	.cfi_offset 30, -8
	mov	w11, 23
	mov	x29, sp
	.p2align 3,,7
.L19:
	mov	w0, w11
	mov	w1, 48
	sub	w11, w11, #1
	bl	sink
	cmn	w11, #1
	bne	.L19
	adrp	x12, .LANCHOR1
	add	x12, x12, :lo12:.LANCHOR1
	adrp	x13, .LANCHOR0
	add	x11, x12, 188
	add	x13, x13, :lo12:.LANCHOR0
	mov	w1, 47
	.p2align 3,,7
.L20:
	ldr	w2, [x13]
	mov	w0, 0
	ldr	w3, [x11]
	ldr	w4, [x12]
	add	w2, w2, 1
	str	w4, [x11], -4
	str	w3, [x12]
	str	w2, [x13]
	bl	sink
	subs	w1, w1, #1
	bne	.L20
	ldp	x29, x30, [sp], 16
	.cfi_restore 30
	.cfi_restore 29
	.cfi_def_cfa_offset 0
	ret
	.cfi_endproc
.LFE1:
	.size	main, .-main
	.global	exchanges
	.global	numbers
	.data
	.align	4
	.set	.LANCHOR1,. + 0
	.type	numbers, %object
	.size	numbers, 192
numbers:
	.word	503
	.word	-87
	.word	512
	.word	61
	.word	908
	.word	-170
	.word	897
	.word	275
	.word	653
	.word	426
	.word	-154
	.word	509
	.word	612
	.word	677
	.word	765
	.word	-703
	.word	44
	.word	19
	.word	-5
	.word	88
	.word	310
	.word	299
	.word	-1
	.word	0
	.word	77
	.word	76
	.word	75
	.word	-74
	.word	900
	.word	901
	.word	-902
	.word	903
	.word	1
	.word	2
	.word	3
	.word	-4
	.word	5
	.word	6
	.word	7
	.word	-8
	.word	409
	.word	408
	.word	407
	.word	406
	.word	-32768
	.word	32767
	.word	12
	.word	13
	.bss
	.align	2
	.set	.LANCHOR0,. + 0
	.type	exchanges, %object
	.size	exchanges, 4
exchanges:
	.zero	4
	.section	.note.GNU-stack,"",@progbits
