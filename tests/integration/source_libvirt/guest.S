# A guest of one sector that does what its byte at offset 3 says, once it has run for half a second:
# 0 nothing, 1 panic (pvpanic port 0x505), 2 reset itself once, 3 power off, 4 arm the i6300esb watchdog and never pet it,
# 5 write ever new places of its disk, one each timer interrupt (18 a second), 6 fill 14 MiB of
# its memory, so that it is slow to migrate, 7 as 4, but only once.
.intel_syntax noprefix
.code16
.global _start
_start:
  jmp short begin
  nop
mode: .byte 0
begin:
  cli
  xor ax,ax
  mov ds,ax
  mov es,ax
  mov ss,ax
  mov sp,0x7c00
  sti
  mov [drive],dl
  mov cx,9
1: hlt
  loop 1b
  mov al,[mode]
  cmp al,1
  je panic
  cmp al,2
  je once
  cmp al,3
  je off
  cmp al,4
  je watchdog
  cmp al,5
  je write
  cmp al,6
  je fill
  cmp al,7
  je once
idle:
  hlt
  jmp idle
panic:
  mov dx,0x505
  mov al,1
  out dx,al
  jmp idle
once:                               # CMOS survives a reset, so the second boot sees the mark and stays
  mov al,0x40
  out 0x70,al
  in al,0x71
  cmp al,0x5a
  je idle
  mov al,0x40
  out 0x70,al
  mov al,0x5a
  out 0x71,al
  cmp byte ptr [mode],7
  je watchdog
  mov al,0xfe
  out 0x64,al
  jmp idle
off:                                # PIIX4 power management, soft off
  mov dx,0x604
  mov ax,0x2000
  out dx,ax
  jmp idle
watchdog:
  mov ebx,0x80000000
2: mov eax,ebx
  mov dx,0xcf8
  out dx,eax
  mov dx,0xcfc
  in eax,dx
  cmp eax,0x25ab8086
  je 3f
  add ebx,0x800
  cmp ebx,0x80010000
  jb 2b
  jmp idle
3: lea eax,[ebx+0x60]               # 1 MHz clock, act on expiry: 1 s for each of the two stages
  mov dx,0xcf8
  out dx,eax
  mov dx,0xcfc
  mov ax,0x0004
  out dx,ax
  lea eax,[ebx+0x68]               # enable
  mov dx,0xcf8
  out dx,eax
  mov dx,0xcfc
  mov al,2
  out dx,al
  jmp idle
fill:                               # the BIOS copies 64 KiB at a time to above 1 MiB
  mov bx,0x1000
  mov es,bx
  xor di,di
  mov cx,0x8000
  rep stosw
  mov es,cx
4: mov ah,0x87
  mov cx,0x8000
  mov si,offset descriptors
  int 0x15
  inc byte ptr [descriptors+0x1c]
  cmp byte ptr [descriptors+0x1c],0xf0
  jb 4b
  jmp idle
write:
  hlt
  mov ah,0x43
  mov dl,[drive]
  xor al,al
  mov si,offset packet
  mov word ptr [count],1           # after an error the BIOS has put 0 there
  int 0x13
  add dword ptr [place],128        # a new cluster of a qcow2 each time
  jmp write
drive: .byte 0
.align 4
packet: .byte 16,0
count: .word 1, 0x8000, 0
place: .long 128, 0
descriptors:
  .zero 16
  .byte 0xff,0xff, 0,0,1, 0x93, 0,0
  .byte 0xff,0xff, 0,0,0x10, 0x93, 0,0
  .zero 16
.org 446
  .byte 0x80,0,2,0,0x83,0,32,0
  .long 1, 2047
.org 510
  .word 0xaa55
