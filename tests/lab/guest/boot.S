# "tick": an operating system of one sector. Once a second it counts on COM1 and in sector 1 of its own disk, so that anyone who
# reads that sector from outside knows whether the guest lives, how often it was started and whether its data was kept.
# Sector 1: +0 "NOVATEST", +8 ticks since this boot, +12 boots, +16 ticks over all boots (three little-endian 32-bit counters).
# After a failed write (INT 13h sets carry) it prints WRITE-ERROR and goes on.
.intel_syntax noprefix
.code16
.global _start
_start:
  cli
  xor ax,ax
  mov ds,ax
  mov es,ax
  mov ss,ax
  mov sp,0x7c00
  cld
  sti
  mov [drive],dl
  mov ah,0x42                       # extended read of sector 1
  call disk
  mov dword ptr [0x8000],0x41564f4e # "NOVA"
  mov dword ptr [0x8004],0x54534554 # "TEST"
  mov dword ptr [0x8008],0
  inc dword ptr [0x800c]
  mov si,offset up
  call print
tick:
  inc dword ptr [0x8008]
  inc dword ptr [0x8010]
  mov ah,0x43                       # extended write of sector 1
  call disk
  mov si,offset write_error
  jc 1f
  mov si,offset tick_text
1: call print
  mov eax,[0x800c]
  call hex
  mov eax,[0x8008]
  call hex
  mov eax,[0x8010]
  call hex
  mov si,offset newline
  call print
  mov cx,18                         # 18 timer interrupts are a second
2: hlt
  loop 2b
  jmp tick
disk:
  mov word ptr [packet+2],1         # the BIOS has put there how many sectors it did: none after an error
  mov dl,[drive]
  xor al,al
  mov si,offset packet
  int 0x13
  ret
print:
  lodsb
  test al,al
  jz 9f
  call putc
  jmp print
putc:
  push dx
  push ax
  mov dx,0x3fd
3: in al,dx
  test al,0x20
  jz 3b
  pop ax
  mov dx,0x3f8
  out dx,al
  pop dx
9: ret
hex:
  mov cx,8
4: rol eax,4
  push eax
  and al,15
  add al,'0'
  cmp al,'9'
  jbe 5f
  add al,7
5: call putc
  pop eax
  loop 4b
  mov al,' '
  jmp putc
up: .asciz "GUEST-UP\r\n"
tick_text: .asciz "tick "
write_error: .asciz "WRITE-ERROR "
newline: .asciz "\r\n"
drive: .byte 0
.align 4
packet: .byte 16,0
 .word 1, 0x8000, 0
 .quad 1
.org 446                            # one partition: some BIOSes boot nothing without
 .byte 0x80,0,2,0,0x83,0,32,0
 .long 1, 2047
.org 510
 .word 0xaa55
