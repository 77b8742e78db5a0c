# A guest of 512 bytes: adds 1 to the first byte of every page from 1 MiB to END_MIB, for ever, and writes 'B'
# to the serial port after each pass. After the first pass any byte is equal to the next page's or one more.
    .code16
    .globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    inb $0x92, %al
    orb $2, %al
    outb %al, $0x92             # A20
    lgdt gdt_pointer
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmp $8, $protected

    .code32
protected:
    movw $16, %ax
    movw %ax, %ds
    movw $0x3f8, %dx
    movb $'A', %al
    outb %al, %dx
    movl $0x100000, %ebx        # the BIOS leaves things behind
clear:
    movb $0, (%ebx)
    addl $4096, %ebx
    cmpl $(END_MIB << 20), %ebx
    jb clear
again:
    movl $0x100000, %ebx
page:
    incb (%ebx)
    addl $4096, %ebx
    cmpl $(END_MIB << 20), %ebx
    jb page
    movb $'B', %al
    outb %al, %dx
    jmp again

    .p2align 2
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff    # code, flat
    .quad 0x00cf92000000ffff    # data, flat
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

    .org 510
    .word 0xaa55
