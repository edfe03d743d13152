# SPDX-License-Identifier: GPL-3.0-or-later
# What runs in the container of a containerDisk's image: nothing of the image, only this.
#
#   container-disk SOCKET
#
# It listens on the Unix socket SOCKET and does nothing else: who connects learns from the kernel (SO_PEERCRED) which
# process this is, and so where the files of the image are. The first client that writes a byte is virt-launcher. From
# then on this process lives exactly as long as that connection: the disk must not go while the guest shuts down, so
# SIGTERM is ignored, and the Pod must not stay when the launcher has ended, however it did. Without a launcher, SIGTERM
# ends it (as process 1 of its container it would be ignored otherwise).
#
# It needs no libraries, as images have none it could rely on, and costs a page or two of memory. The ELF header is
# written out here so that the file is the same whichever version of binutils makes it:
#   as --64 container-disk.S -o c.o; ld -Ttext=0x400000 -e start c.o -o c.elf; objcopy -O binary -j .text c.elf container-disk.bin

        .set    BASE, 0x400000
        .set    READ, 0
        .set    WRITE, 1
        .set    CLOSE, 3
        .set    RT_SIGACTION, 13
        .set    RT_SIGPROCMASK, 14
        .set    SOCKET, 41
        .set    ACCEPT, 43
        .set    BIND, 49
        .set    LISTEN, 50
        .set    EXIT_GROUP, 231
        .set    SIGTERM, 15
        .set    SA_RESTORER, 0x04000000
        .set    AF_UNIX, 1
        .set    SOCK_STREAM, 1
        .set    PATH_MAX_UNIX, 107

        .text
        .globl  start
header: .byte   0x7f
        .ascii  "ELF"
        .byte   2, 1, 1, 0                      # 64 bit, little endian, version, System V
        .quad   0
        .short  2, 62                           # executable, x86-64
        .long   1
        .quad   start, programs - header, 0     # entry, program headers, no section headers
        .long   0
        .short  64, 56, 2, 0, 0, 0
programs:
        .long   1, 5                            # PT_LOAD, read and execute
        .quad   0, BASE, BASE, end - header, end - header, 0x1000
        .long   0x6474e551, 6                   # PT_GNU_STACK, read and write
        .quad   0, 0, 0, 0, 0, 16

start:  cmpq    $2, (%rsp)
        jne     fail
        mov     16(%rsp), %rsi                  # argv[1]
        sub     $128, %rsp                      # struct sockaddr_un
        mov     %rsp, %rbp
        movw    $AF_UNIX, (%rbp)
        lea     2(%rbp), %rdi
        mov     $(PATH_MAX_UNIX + 1), %ecx
1:      lodsb
        stosb
        test    %al, %al
        jz      2f
        dec     %ecx
        jnz     1b
        jmp     fail                            # too long
2:      mov     %rdi, %r13
        sub     %rbp, %r13                      # the address's length

        mov     $RT_SIGACTION, %eax
        mov     $SIGTERM, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall

        mov     $SOCKET, %eax
        mov     $AF_UNIX, %edi
        mov     $SOCK_STREAM, %esi
        xor     %edx, %edx
        syscall
        test    %eax, %eax
        js      fail
        mov     %eax, %ebx
        mov     $BIND, %eax
        mov     %ebx, %edi
        mov     %rbp, %rsi
        mov     %r13d, %edx
        syscall
        test    %eax, %eax
        js      fail
        mov     $LISTEN, %eax
        mov     %ebx, %edi
        mov     $8, %esi
        syscall
        test    %eax, %eax
        js      fail

wait:   mov     $ACCEPT, %eax
        mov     %ebx, %edi
        xor     %esi, %esi
        xor     %edx, %edx
        syscall
        test    %eax, %eax
        js      fail
        mov     %eax, %r12d
        call    read
        jg      attached
        mov     $CLOSE, %eax                    # it only wanted to know who is here
        mov     %r12d, %edi
        syscall
        jmp     wait

attached:
        mov     $RT_SIGPROCMASK, %eax
        xor     %edi, %edi                      # SIG_BLOCK
        lea     term_mask(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
3:      call    read
        jg      3b
quit:   xor     %edi, %edi
        jmp     exit

read:   mov     $READ, %eax                     # one byte from %r12d, over the address; flags say how many it were
        mov     %r12d, %edi
        mov     %rbp, %rsi
        mov     $1, %edx
        syscall
        test    %rax, %rax
        ret

fail:   mov     $WRITE, %eax
        mov     $2, %edi
        lea     message(%rip), %rsi
        mov     $(message_end - message), %edx
        syscall
        mov     $1, %edi
exit:   mov     $EXIT_GROUP, %eax
        syscall

        .balign 8
action: .quad   quit, SA_RESTORER, quit, 0      # struct sigaction of the kernel
term_mask:
        .quad   1 << (SIGTERM - 1)
message:
        .ascii  "container-disk: can't listen on the socket named as its one argument\n"
message_end:
end:
