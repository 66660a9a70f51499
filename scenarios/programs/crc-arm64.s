	.arch armv8-a
	.file	"crc.c"
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
	.section	.text.startup,"ax",@progbits
	.align	2
	.p2align 4,,11
	.global	main
	.type	main, %function
main:
.LFB0:
	.cfi_startproc
	adrp	x0, .LC0
	adrp	x3, .LANCHOR0
	movi	v6.4s, 0x4
	add	x3, x3, :lo12:.LANCHOR0
	ldr	q5, [x0, #:lo12:.LC0]
	adrp	x0, .LC1
	movi	v4.4s, 0x1
	mov	x1, x3
	ldr	q3, [x0, #:lo12:.LC1]
	add	x2, x3, 1024
	.p2align 3,,7
.L2:
	mov	v0.16b, v5.16b
	mov	w0, 8
	add	v5.4s, v5.4s, v6.4s
	.p2align 3,,7
.L3:
	ushr	v2.4s, v0.4s, 1
	subs	w0, w0, #1
	and	v0.16b, v0.16b, v4.16b
	eor	v1.16b, v2.16b, v3.16b
	cmeq	v0.4s, v0.4s, #0
	bsl	v0.16b, v2.16b, v1.16b
	bne	.L3
	str	q0, [x1], 16
	cmp	x2, x1
	bne	.L2
	adrp	x2, .LANCHOR1
	add	x2, x2, :lo12:.LANCHOR1
	add	x4, x2, 43
	mov	w1, -1
	.p2align 3,,7
.L5:
	ldrb	w0, [x2], 1
	eor	w0, w0, w1
	and	x0, x0, 255
	ldr	w0, [x3, x0, lsl 2]
	eor	w1, w0, w1, lsr 8
	cmp	x4, x2
	bne	.L5
	mvn	w1, w1
	str	w1, [x3, 1024]
	ret
	.cfi_endproc
.LFE0:
	.size	main, .-main
	.global	crc
	.global	text
	.global	table
	.section	.rodata.cst16,"aM",@progbits,16
	.align	4
.LC0:
	.word	0
	.word	1
	.word	2
	.word	3
	.align	4
.LC1:
	.word	-306674912
	.word	-306674912
	.word	-306674912
	.word	-306674912
	.data
	.align	4
	.set	.LANCHOR1,. + 0
	.type	text, %object
	.size	text, 44
text:
	.string	"The quick brown fox jumps over the lazy dog"
	.bss
	.align	4
	.set	.LANCHOR0,. + 0
	.type	table, %object
	.size	table, 1024
table:
	.zero	1024
	.type	crc, %object
	.size	crc, 4
crc:
	.zero	4
	.section	.note.GNU-stack,"",@progbits
