"""System calls by name: their numbers, and which of our processes needs which."""

from __future__ import annotations

# Columns of NUMBERS by `uname -m`; arm64 and riscv64 share the kernel's generic table
# (asm-generic/unistd.h).
COLUMN = {"x86_64": 0, "aarch64": 1, "riscv64": 1}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}

# What computing, memory, clocks, waiting and the descriptors that are there already take.
_CALM = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, lseek 8 62,
    close 3 57, fstat 5 80,
    fcntl 72 25, dup 32 23, dup2 33 -1, dup3 292 24, fsync 74 82, ftruncate 77 46,
    close_range 436 436,
    mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, madvise 28 233, mincore 27 232,
    brk 12 214, membarrier 324 283,
    memfd_create 319 279,
    poll 7 -1, ppoll 271 73, select 23 -1, pselect6 270 72, epoll_create1 291 20, epoll_ctl 233 21,
    epoll_wait 232 -1,
    epoll_pwait 281 22, eventfd2 290 19,
    futex 202 98, set_robust_list 273 99, get_robust_list 274 100, set_tid_address 218 96,
    rseq 334 293, sched_yield 24 124,
    sched_getaffinity 204 123, sched_setaffinity 203 122, getcpu 309 168, restart_syscall 219 128,
    arch_prctl 158 -1,
    nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
    gettimeofday 96 169, time 201 -1,
    getitimer 36 102, setitimer 38 103, alarm 37 -1, times 100 153, getrusage 98 165,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
    rt_sigtimedwait 128 137,
    rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -1, tgkill 234 131,
    getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176,
    getegid 108 177,
    getpgrp 111 -1, getpgid 121 155, getsid 124 156, uname 63 160, sysinfo 99 179, getrlimit 97 163,
    prlimit64 302 261,
    getrandom 318 278, ioctl 16 29, clone 56 220, exit 60 93, exit_group 231 94
"""
# Files by their names. Left out on purpose: chmod, chown, utime, xattr, link, symlink, mknod, mount
# and what else Landlock does not keep a process from.
_FILES = """
    open 2 -1, openat 257 56, stat 4 -1, lstat 6 -1, newfstatat 262 79, statx 332 291, access 21 -1,
    faccessat 269 48,
    faccessat2 439 439, readlink 89 -1, readlinkat 267 78, getdents64 217 61, getdents 78 -1,
    getcwd 79 17, statfs 137 43,
    fstatfs 138 44, fadvise64 221 223, unlink 87 -1, unlinkat 263 35, mkdir 83 -1, mkdirat 258 34,
    rmdir 84 -1,
    rename 82 -1, renameat 264 38, renameat2 316 276, umask 95 166, creat 85 -1, fallocate 285 47,
    flock 73 32
"""
# Starting as and ld, and ending them.
_START = """
    fork 57 -1, vfork 58 -1, execve 59 221, wait4 61 260, waitid 247 95, kill 62 129, pipe 22 -1,
    pipe2 293 59, chdir 80 49,
    fchdir 81 50, setsid 112 157, setpgid 109 154, setrlimit 160 164, prctl 157 167,
    seccomp 317 277,
    socketpair 53 199, landlock_create_ruleset 444 444, landlock_add_rule 445 445,
    landlock_restrict_self 446 446
"""
# libc and Python try these first, and do without them where a kernel is too old for them. clone3
# hides its flags in memory.
_WITHOUT = (
    "clone3 435 435, openat2 437 437, io_uring_setup 425 425, pidfd_open 434 434, "
    "pidfd_send_signal 424 424"
)

NUMBERS: dict[str, tuple[int, int]] = {}


def _names(table: str) -> tuple[str, ...]:
    rows = [row.split() for row in table.split(",")]
    NUMBERS.update((name, (int(x86), int(generic))) for name, x86, generic in rows)
    return tuple(name for name, _, _ in rows)


CALM = _names(_CALM)
FILES = _names(_FILES)
START = _names(_START)
WITHOUT = _names(_WITHOUT)
