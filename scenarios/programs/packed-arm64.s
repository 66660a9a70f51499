	.arch armv8-a
	.file	"packed.c"
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
	adrp	x11, .LANCHOR0
	adrp	x0, .LANCHOR1
	add	x7, x11, :lo12:.LANCHOR0
	add	x0, x0, :lo12:.LANCHOR1
	ldr	x8, [x11, #:lo12:.LANCHOR0]
	add	x1, x7, 128
	add	x10, x0, 135
	add	x7, x7, 144
	.p2align 3,,7
.L2:
	ldrb	w2, [x0]
	add	x0, x0, 15
	ldr	x6, [x0, -14]
	strb	w2, [x1]
	ldrsh	w5, [x0, -2]
	sub	x1, x1, #15
	ldr	x3, [x7, x2, lsl 3]
	rev	x9, x6
	ldr	w4, [x0, -6]
	add	x8, x8, w5, sxtw
	add	x3, x3, x6
	str	x3, [x7, x2, lsl 3]
	rev	w4, w4
	str	x9, [x1, 16]
	str	w4, [x1, 24]
	strh	w5, [x1, 28]
	cmp	x10, x0
	bne	.L2
	str	x8, [x11, #:lo12:.LANCHOR0]
	ret
	.cfi_endproc
.LFE0:
	.size	main, .-main
	.global	changes
	.global	amounts
	.global	turned
	.global	list
	.data
	.align	3
	.set	.LANCHOR1,. + 0
	.type	list, %object
	.size	list, 135
list:
	.byte	1
	.8byte	1000000000000
	.4byte	20200101
	.2byte	-1
	.byte	2
	.8byte	2000000000000
	.4byte	20200102
	.2byte	-2
	.byte	1
	.8byte	3000000000000
	.4byte	20200103
	.2byte	-3
	.byte	2
	.8byte	4000000000000
	.4byte	20200104
	.2byte	4
	.byte	1
	.8byte	5000000000000
	.4byte	20200105
	.2byte	5
	.byte	2
	.8byte	6000000000000
	.4byte	20200106
	.2byte	6
	.byte	1
	.8byte	7000000000000
	.4byte	20200107
	.2byte	-7
	.byte	2
	.8byte	8000000000000
	.4byte	20200108
	.2byte	-8
	.byte	1
	.8byte	9000000000000
	.4byte	20200109
	.2byte	9
	.bss
	.align	4
	.set	.LANCHOR0,. + 0
	.type	changes, %object
	.size	changes, 8
changes:
	.zero	8
	.type	turned, %object
	.size	turned, 135
turned:
	.zero	135
	.zero	1
	.type	amounts, %object
	.size	amounts, 24
amounts:
	.zero	24
	.section	.note.GNU-stack,"",@progbits
