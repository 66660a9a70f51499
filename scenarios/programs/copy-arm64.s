	.arch armv8-a
	.file	"copy.c"
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
	.global	memcpy
	.type	memcpy, %function
memcpy:
.LFB0:
	.cfi_startproc
	cbz	x2, .L2
	mov	x3, 0
	.p2align 3,,7
.L3:
	ldrb	w4, [x1, x3]
	strb	w4, [x0, x3]
	add	x3, x3, 1
	cmp	x3, x2
	bne	.L3
.L2:
	ret
	.cfi_endproc
.LFE0:
	.size	memcpy, .-memcpy
	.align	2
	.p2align 4,,11
	.global	memset
	.type	memset, %function
memset:
.LFB1:
	.cfi_startproc
	add	x4, x0, x2
	and	w1, w1, 255
	mov	x3, x0
	cbz	x2, .L15
	.p2align 3,,7
.L11:
	strb	w1, [x3], 1
	cmp	x3, x4
	bne	.L11
.L15:
	ret
	.cfi_endproc
.LFE1:
	.size	memset, .-memset
	.section	.text.startup,"ax",@progbits
	.align	2
	.p2align 4,,11
	.global	main
	.type	main, %function
main:
.LFB2:
	.cfi_startproc
	adrp	x5, .LANCHOR1
	add	x5, x5, :lo12:.LANCHOR1
	adrp	x0, .LANCHOR0
	add	x4, x0, :lo12:.LANCHOR0
	mov	x1, x4
	mov	x3, 1229782938247303441
	ldp	x7, x16, [x5]
	str	x16, [x4, 8]
	ldp	x8, x9, [x5, 16]
	stp	x8, x9, [x4, 16]
	ldp	x14, x15, [x5, 32]
	mvn	x2, x7
	str	x2, [x0, #:lo12:.LANCHOR0]
	add	x2, x4, 288
	ldp	x12, x13, [x5, 48]
	stp	x8, x9, [x4, 208]
	mov	x0, 0
	ldp	x10, x11, [x1], 96
	stp	x10, x11, [x4, 96]
	ldp	x10, x11, [x5, 64]
	stp	x8, x9, [x1, 16]
	ldp	x8, x9, [x5, 80]
	stp	x14, x15, [x4, 32]
	stp	x14, x15, [x1, 32]
	stp	x12, x13, [x4, 48]
	stp	x12, x13, [x1, 48]
	stp	x10, x11, [x1, 64]
	stp	x10, x11, [x4, 64]
	stp	x8, x9, [x1, 80]
	stp	x8, x9, [x4, 80]
	stp	x7, x16, [x4, 192]
	stp	x14, x15, [x4, 224]
	stp	x12, x13, [x4, 240]
	stp	x10, x11, [x4, 256]
	stp	x8, x9, [x4, 272]
	.p2align 3,,7
.L17:
	and	x1, x0, 15
	mul	x1, x1, x3
	str	x1, [x2, x0, lsl 3]
	add	x0, x0, 1
	cmp	x0, 32
	bne	.L17
	mov	x0, x2
	add	x1, x4, 416
	.p2align 3,,7
.L18:
	ldr	q0, [x0]
	add	x0, x0, 16
	str	q0, [x0, 112]
	cmp	x1, x0
	bne	.L18
	ldr	q1, [x4, 272]
	add	x2, x4, 616
	ldr	x3, [x4, 608]
	mov	w1, 5
	sxtl	v2.8h, v1.8b
	sxtl2	v1.8h, v1.16b
	movi	v3.16b, 0x5a
	ldp	d7, d6, [x5, 32]
	sxtl	v5.4s, v2.4h
	sxtl2	v2.4s, v2.8h
	str	q3, [x4, 544]
	sxtl	v4.4s, v1.4h
	str	q3, [x4, 560]
	sxtl2	v0.2d, v5.4s
	str	d7, [x4, 552]
	sxtl2	v1.4s, v1.8h
	str	d6, [x4, 560]
	str	q3, [x4, 576]
	saddw	v0.2d, v0.2d, v5.2s
	saddw	v0.2d, v0.2d, v2.2s
	saddw2	v0.2d, v0.2d, v2.4s
	saddw	v0.2d, v0.2d, v4.2s
	saddw2	v0.2d, v0.2d, v4.4s
	saddw	v0.2d, v0.2d, v1.2s
	saddw2	v0.2d, v0.2d, v1.4s
	addp	d0, v0.2d
	fmov	x0, d0
	add	x0, x3, x0
	str	x0, [x4, 608]
	.p2align 3,,7
.L19:
.L23:
	ldaxr	w0, [x2]
	add	w0, w0, 3
	stlxr	w3, w0, [x2]
	cbnz	w3, .L23
	subs	w1, w1, #1
	bne	.L19
	ret
	.cfi_endproc
.LFE2:
	.size	main, .-main
	.global	counter
	.global	sum
	.global	bytes
	.global	words
	.global	third
	.global	second
	.global	first
	.data
	.align	4
	.set	.LANCHOR1,. + 0
	.type	first, %object
	.size	first, 96
first:
	.xword	81985529216486895
	.word	1
	.word	2
	.word	3
	.word	4
	.word	5
	.word	6
	.string	"a record"
	.zero	7
	.word	0
	.word	1071644672
	.word	0
	.word	-1074528256
	.word	0
	.word	1074266112
	.word	630506365
	.word	1420970413
	.ascii	"\377\002\375\004\373\006\371\b\367\n\365\f\363\016\361\020"
	.bss
	.align	4
	.set	.LANCHOR0,. + 0
	.type	second, %object
	.size	second, 96
second:
	.zero	96
	.type	third, %object
	.size	third, 192
third:
	.zero	192
	.type	words, %object
	.size	words, 256
words:
	.zero	256
	.type	bytes, %object
	.size	bytes, 64
bytes:
	.zero	64
	.type	sum, %object
	.size	sum, 8
sum:
	.zero	8
	.type	counter, %object
	.size	counter, 4
counter:
	.zero	4
	.section	.note.GNU-stack,"",@progbits
