//! The system calls of a container, with the effect of Docker's default profile: what could reach the machine needs
//! the capability for it, all else of the kernel's table is allowed.

use serde_json::{Value, json};

const FILES: &str = "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 \
    fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate \
    ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lseek \
    _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv \
    preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat \
    renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat \
    sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes \
    vmsplice write writev cachestat";
const MEMORY: &str = "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap \
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages \
    process_mrelease";
const PROCESSES: &str = "capget capset execve execveat exit exit_group fork getegid getegid32 geteuid geteuid32 getgid \
    getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid \
    getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self pidfd_open pidfd_send_signal prctl prlimit64 pselect6 \
    pselect6_time64 rseq seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
    setuid setuid32 tgkill times tkill ugetrlimit uname vfork wait4 waitid waitpid sysinfo getcpu getrandom \
    arch_prctl modify_ldt set_thread_area get_thread_area set_tid_address set_robust_list get_robust_list \
    pidfd_getfd process_vm_readv process_vm_writev ptrace restart_syscall";
const SCHEDULING: &str = "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake nanosleep \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
    sched_yield";
const SIGNALS: &str = "alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal signalfd signalfd4 sigprocmask sigreturn";
const TIME: &str = "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday setitimer time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64";
const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair epoll_create \
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 poll ppoll \
    ppoll_time64 select _newselect";
const IPC: &str = "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ipc \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
    msgctl msgget msgrcv msgsnd name_to_handle_at semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt \
    shmget";

/// What a capability opens.
const BY_CAPABILITY: [(&str, &str); 13] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fanotify_mark fsconfig fsmount fsopen fspick listmount lookup_dcookie mount \
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns statmount \
         syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// `linux.seccomp` for a container with these capabilities.
pub(super) fn docker(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|own| own == name);
    let mut names: Vec<&str> = [FILES, MEMORY, PROCESSES, SCHEDULING, SIGNALS, TIME, SOCKETS, IPC]
        .into_iter()
        .flat_map(str::split_whitespace)
        .collect();
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            names.extend(calls.split_whitespace().filter(|call| !names.contains(call)).collect::<Vec<_>>());
        }
    }
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        // Sockets to the hypervisor would leave every network namespace.
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]}),
    ];
    for persona in [0x0u64, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": persona, "op": "SCMP_CMP_EQ"}]}));
    }
    if !has("CAP_SYS_ADMIN") {
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}));
        // Its flags lie in memory, where a filter can't look; C libraries fall back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(capabilities: &[&str], call: &str) -> bool {
        let own: Vec<String> = capabilities.iter().map(|name| name.to_string()).collect();
        let profile = docker(&own);
        profile["syscalls"][0]["names"].as_array().expect("names").iter().any(|name| name == call)
    }

    #[test]
    fn dangerous_calls_need_their_capability() {
        for call in ["mount", "unshare", "bpf", "reboot", "keyctl", "add_key", "kexec_load", "clone3", "io_uring_setup"]
        {
            assert!(!allowed(&["CAP_CHOWN"], call), "{call}");
        }
        assert!(allowed(&["CAP_SYS_ADMIN"], "mount") && allowed(&["CAP_SYS_ADMIN"], "clone3"));
        assert!(allowed(&[], "openat") && allowed(&[], "futex"));
    }

    #[test]
    fn no_name_twice() {
        let all: Vec<&str> = [FILES, MEMORY, PROCESSES, SCHEDULING, SIGNALS, TIME, SOCKETS, IPC]
            .into_iter()
            .flat_map(str::split_whitespace)
            .collect();
        for (at, name) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(name), "{name}");
        }
    }
}
