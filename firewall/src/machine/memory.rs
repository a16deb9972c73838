//! `memcpy` and its family, which the compiler calls by name.
//!
//! Written in assembly: a loop in Rust would be turned into a call to itself. SSE moves of 64 octets
//! a round; `rep movsb` would cost an emulated instruction for every octet.

use core::arch::naked_asm;

/// Copies `n` octets between ranges that do not overlap.
///
/// # Safety
/// As in C: both ranges are valid for `n` octets.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // Below 16 octets two moves that may overlap. Else the last 16 octets are read first and
    // written last, and rounds of 64 and 16 octets cover the rest, up to 15 octets twice.
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 4f",
        "movups xmm0, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 16]",
        "sub rdx, 64",
        "jb 2f",
        "1:",
        "movups xmm1, [rsi]",
        "movups xmm2, [rsi + 16]",
        "movups xmm3, [rsi + 32]",
        "movups xmm4, [rsi + 48]",
        "movups [rdi], xmm1",
        "movups [rdi + 16], xmm2",
        "movups [rdi + 32], xmm3",
        "movups [rdi + 48], xmm4",
        "add rsi, 64",
        "add rdi, 64",
        "sub rdx, 64",
        "jae 1b",
        "2:",
        "add rdx, 48",
        "jnc 5f",
        "3:",
        "movups xmm1, [rsi]",
        "movups [rdi], xmm1",
        "add rsi, 16",
        "add rdi, 16",
        "sub rdx, 16",
        "jae 3b",
        "5:",
        "movups [r8], xmm0",
        "ret",
        "4:",
        "cmp edx, 8",
        "jb 6f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "6:",
        "cmp edx, 4",
        "jb 7f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "7:",
        "test edx, edx",
        "jz 8f",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "shr edx, 1",
        "movzx r9d, byte ptr [rsi + rdx]",
        "mov [rdi + rdx], r9b",
        "adc rdx, rdx",
        "mov [rdi], cl",
        "mov [rdi + rdx - 1], r8b",
        "8:",
        "ret",
    )
}

/// Copies `n` octets between ranges that may overlap.
///
/// # Safety
/// As in C: both ranges are valid for `n` octets.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // Forward is right unless `to` lies inside the source; then from the end, 16 octets a round,
    // the first 16 octets read first and written last. Short moves read all before they write.
    naked_asm!(
        "cmp rdx, 16",
        "jb {memcpy}",
        "mov rax, rdi",
        "sub rax, rsi",
        "cmp rax, rdx",
        "jb 2f",
        "mov rax, rdi",
        "movups xmm0, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 16]",
        "1:",
        "sub rdx, 16",
        "jbe 4f",
        "movups xmm1, [rsi]",
        "movups [rdi], xmm1",
        "add rsi, 16",
        "add rdi, 16",
        "jmp 1b",
        "4:",
        "movups [r8], xmm0",
        "ret",
        "2:",
        "mov rax, rdi",
        "movups xmm0, [rsi]",
        "3:",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi + rdx - 16], xmm1",
        "sub rdx, 16",
        "cmp rdx, 16",
        "jae 3b",
        "movups [rdi], xmm0",
        "ret",
        memcpy = sym memcpy,
    )
}

/// Fills `n` octets with `value`.
///
/// # Safety
/// As in C: the range is valid for `n` octets.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx ecx, sil",
        "mov r8, 0x0101010101010101",
        "imul rcx, r8",
        "cmp rdx, 16",
        "jb 4f",
        "movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "movups [rdi + rdx - 16], xmm0",
        "sub rdx, 64",
        "jb 2f",
        "1:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "movups [rdi + 32], xmm0",
        "movups [rdi + 48], xmm0",
        "add rdi, 64",
        "sub rdx, 64",
        "jae 1b",
        "2:",
        "add rdx, 48",
        "jnc 5f",
        "3:",
        "movups [rdi], xmm0",
        "add rdi, 16",
        "sub rdx, 16",
        "jae 3b",
        "5:",
        "ret",
        "4:",
        "cmp edx, 8",
        "jb 6f",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rcx",
        "ret",
        "6:",
        "test edx, edx",
        "jz 5b",
        "7:",
        "mov [rdi + rdx - 1], cl",
        "dec edx",
        "jnz 7b",
        "ret",
    )
}

/// Compares `n` octets: negative, zero or positive as the first that differ.
///
/// # Safety
/// As in C: both ranges are valid for `n` octets.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, n: usize) -> i32 {
    naked_asm!(
        "sub rdx, 8",
        "jb 2f",
        "1:",
        "mov rax, [rdi]",
        "mov rcx, [rsi]",
        "cmp rax, rcx",
        "jne 5f",
        "add rdi, 8",
        "add rsi, 8",
        "sub rdx, 8",
        "jae 1b",
        "2:",
        "add edx, 8",
        "jz 4f",
        "3:",
        "movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "sub eax, ecx",
        "jne 6f",
        "inc rdi",
        "inc rsi",
        "dec edx",
        "jnz 3b",
        "4:",
        "xor eax, eax",
        "6:",
        "ret",
        "5:",
        "bswap rax",
        "bswap rcx",
        "cmp rax, rcx",
        "sbb eax, eax",
        "or eax, 1",
        "ret",
    )
}

/// Compares `n` octets for equality: zero if equal.
///
/// # Safety
/// As in C: both ranges are valid for `n` octets.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, n: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}
