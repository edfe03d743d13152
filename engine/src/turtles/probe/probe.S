# SPDX-License-Identifier: GPL-3.0-or-later
# A boot ROM that finds out whether an accelerator really runs a guest.
#
# A device file that opens proves little, a guest in real mode hardly more: broken virtualisation often stalls with
# paging, exceptions or interrupts. So this goes from real mode over protected mode into long mode, takes a breakpoint
# exception and three local APIC timer interrupts, counts for a while, and ends QEMU through its isa-debug-exit device
# (port 0x501, value 0x2a: exit status 85). Every stage it reaches is a letter on the debug console (port 0x402):
#   R real mode  P protected mode  L long mode  I exception handled  T timer interrupts  C counted
#
# The code is linked for 0xf0000, where the last 64 KiB below 1 MiB show the ROM. The reset vector (a far jump to
# f000:0000 at offset 0xfff0) and the padding are added when the image is built from the assembled code:
#   as --64 probe.S -o probe.o; ld -Ttext=0xf0000 -e start probe.o -o probe.elf; objcopy -O binary -j .text probe.elf probe.bin

        .set    ROM, 0xf0000
        .set    STACK, 0x8000
        .set    PML4, 0x10000           # page tables: three pages from here
        .set    IDT, 0x20000
        .set    APIC, 0xfee00000
        .set    CODE32, 0x08
        .set    DATA, 0x10
        .set    CODE64, 0x18
        .set    TIMER_VECTOR, 0x20

        .macro  stage letter
        mov     $\letter, %al
        mov     $0x402, %dx
        out     %al, %dx
        .endm

        .text
        .code16
        .globl  start
start:  cli
        stage   'R'
        data32 lgdt %cs:(gdt_pointer - start)
        mov     %cr0, %eax
        or      $1, %eax                # protection enable
        mov     %eax, %cr0
        data32 ljmp $CODE32, $protected

        .code32
protected:
        mov     $DATA, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $STACK, %esp
        stage   'P'
        cld
        xor     %eax, %eax              # clear the page tables
        mov     $PML4, %edi
        mov     $(3 * 4096 / 4), %ecx
        rep stosl
        movl    $(PML4 + 0x1000 + 3), PML4
        movl    $(PML4 + 0x2000 + 3), PML4 + 0x1000
        movl    $0x83, PML4 + 0x2000    # the first 2 MiB, one large page
        # The APIC's page through a 1 GiB page would need a CPU feature; a second directory is below, in the fourth page.
        movl    $(PML4 + 0x3000 + 3), PML4 + 0x1000 + 3 * 8
        mov     $(PML4 + 0x3000), %edi
        mov     $1024, %ecx
        xor     %eax, %eax
        rep stosl
        movl    $(0xfee00000 + 0x9b), PML4 + 0x3000 + 0x1f7 * 8  # uncached
        mov     %cr4, %eax
        or      $0x20, %eax             # physical address extension
        mov     %eax, %cr4
        mov     $PML4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       # EFER: long mode enable
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax       # paging
        mov     %eax, %cr0
        ljmp    $CODE64, $long_mode

        .code64
long_mode:
        mov     $DATA, %ax
        mov     %ax, %ss
        mov     $STACK, %esp
        stage   'L'
        xor     %eax, %eax              # an interrupt table with two entries
        mov     $IDT, %edi
        mov     $(0x1000 / 4), %ecx
        rep stosl
        mov     $breakpoint, %eax
        mov     $(IDT + 3 * 16), %edi
        call    set_gate
        mov     $timer, %eax
        mov     $(IDT + TIMER_VECTOR * 16), %edi
        call    set_gate
        lidt    idt_pointer
        xor     %ebx, %ebx
        int3
        cmp     $0x51, %ebx
        jne     stuck
        stage   'I'
        mov     $APIC, %edi
        movl    $0x1ff, 0xf0(%rdi)      # software enable
        movl    $0x0b, 0x3e0(%rdi)      # divide by one
        movl    $(0x20000 | TIMER_VECTOR), 0x320(%rdi)  # periodic
        movl    $1000000, 0x380(%rdi)
        xor     %ebp, %ebp
        sti
1:      hlt
        cmp     $3, %ebp
        jb      1b
        cli
        stage   'T'
        mov     $20000000, %ecx         # well below a second wherever a guest is usable
2:      dec     %ecx
        jnz     2b
        stage   'C'
        mov     $0x2a, %al
        mov     $0x501, %dx
        out     %al, %dx
stuck:  hlt
        jmp     stuck

set_gate:                               # gate at %rdi for the handler at %eax, which is below 4 GiB
        mov     %ax, (%rdi)
        movw    $CODE64, 2(%rdi)
        movw    $0x8e00, 4(%rdi)
        shr     $16, %eax
        mov     %ax, 6(%rdi)
        ret

breakpoint:
        mov     $0x51, %ebx
        iretq

timer:  push    %rax
        inc     %ebp
        mov     $APIC, %eax
        movl    $0, 0xb0(%rax)          # end of interrupt
        pop     %rax
        iretq

        .align  8
gdt:    .quad   0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00af9a000000ffff
gdt_pointer:
        .word   4 * 8 - 1
        .long   gdt
idt_pointer:
        .word   0xfff
        .quad   IDT
