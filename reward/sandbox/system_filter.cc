#include "reward/sandbox/system_filter.h"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace rein::reward::sandbox {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox knows x86-64 and aarch64"
#endif

#if defined(__x86_64__)
constexpr uint32_t kX32Bit = 0x40000000;
#endif
constexpr uint32_t kSetVma = 0x53564d41;  // PR_SET_VMA: glibc names its memory
constexpr uint32_t kNewNamespaces = CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
                                    CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWTIME;

// Memory, files, time, signals, threads, waiting: what a program needs that computes and prints.
constexpr int kAllowed[] = {
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_close,
    SYS_close_range,
    SYS_openat,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_mkdirat,
    SYS_unlinkat,
    SYS_renameat2,
    SYS_linkat,
    SYS_symlinkat,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_utimensat,
    SYS_ftruncate,
    SYS_truncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_fadvise64,
    SYS_flock,
    SYS_fcntl,
    SYS_copy_file_range,
    SYS_sendfile,
    SYS_splice,
    SYS_umask,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendto,
    SYS_recvfrom,
    SYS_shutdown,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_ppoll,
    SYS_pselect6,
    SYS_mmap,
    SYS_munmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_madvise,
    SYS_msync,
    SYS_mincore,
    SYS_brk,
    SYS_mlock,
    SYS_munlock,
    SYS_membarrier,
    SYS_get_mempolicy,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigsuspend,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_sigaltstack,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_times,
    SYS_getitimer,
    SYS_setitimer,
    SYS_timer_create,
    SYS_timer_settime,
    SYS_timer_gettime,
    SYS_timer_delete,
    SYS_timer_getoverrun,
    SYS_futex,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_restart_syscall,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_getpid,
    SYS_getppid,
    SYS_gettid,
    SYS_getpgid,
    SYS_getsid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_getpriority,
    SYS_capget,
    SYS_getrlimit,
    SYS_getrusage,
    SYS_sysinfo,
    SYS_uname,
    SYS_getcpu,
    SYS_getrandom,
    SYS_execve,
    SYS_exit,
    SYS_exit_group,
    SYS_wait4,
    SYS_waitid,
#if defined(__x86_64__)
    SYS_open,
    SYS_creat,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_getdents,
    SYS_mkdir,
    SYS_rmdir,
    SYS_unlink,
    SYS_rename,
    SYS_renameat,
    SYS_link,
    SYS_symlink,
    SYS_chmod,
    SYS_dup2,
    SYS_pipe,
    SYS_eventfd,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_poll,
    SYS_select,
    SYS_alarm,
    SYS_pause,
    SYS_time,
    SYS_fork,
    SYS_vfork,
    SYS_getpgrp,
    SYS_arch_prctl,
    SYS_utime,
    SYS_utimes,
    SYS_futimesat,
#endif
};

// Allowed in namespaces of one's own only.
constexpr int kAllowedApart[] = {SYS_kill, SYS_tkill, SYS_setsid, SYS_setpgid};

struct Name {
  int number;
  const char* name;
};

constexpr Name kNames[] = {
    {SYS_socket, "socket"},
    {SYS_connect, "connect"},
    {SYS_bind, "bind"},
    {SYS_socketpair, "socketpair"},
    {SYS_ptrace, "ptrace"},
    {SYS_process_vm_readv, "process_vm_readv"},
    {SYS_process_vm_writev, "process_vm_writev"},
    {SYS_pidfd_open, "pidfd_open"},
    {SYS_pidfd_getfd, "pidfd_getfd"},
    {SYS_pidfd_send_signal, "pidfd_send_signal"},
    {SYS_unshare, "unshare"},
    {SYS_setns, "setns"},
    {SYS_clone, "clone"},
    {SYS_mount, "mount"},
    {SYS_umount2, "umount2"},
    {SYS_pivot_root, "pivot_root"},
    {SYS_chroot, "chroot"},
    {SYS_open_tree, "open_tree"},
    {SYS_move_mount, "move_mount"},
    {SYS_fsopen, "fsopen"},
    {SYS_mount_setattr, "mount_setattr"},
    {SYS_keyctl, "keyctl"},
    {SYS_add_key, "add_key"},
    {SYS_request_key, "request_key"},
    {SYS_bpf, "bpf"},
    {SYS_perf_event_open, "perf_event_open"},
    {SYS_io_uring_setup, "io_uring_setup"},
    {SYS_userfaultfd, "userfaultfd"},
    {SYS_ioctl, "ioctl"},
    {SYS_mknodat, "mknodat"},
    {SYS_kill, "kill"},
    {SYS_tkill, "tkill"},
    {SYS_tgkill, "tgkill"},
    {SYS_setsid, "setsid"},
    {SYS_setpgid, "setpgid"},
    {SYS_prctl, "prctl"},
    {SYS_setuid, "setuid"},
    {SYS_setgid, "setgid"},
    {SYS_setresuid, "setresuid"},
    {SYS_setresgid, "setresgid"},
    {SYS_setgroups, "setgroups"},
    {SYS_fchown, "fchown"},
    {SYS_fchownat, "fchownat"},
    {SYS_memfd_create, "memfd_create"},
    {SYS_execveat, "execveat"},
    {SYS_init_module, "init_module"},
    {SYS_finit_module, "finit_module"},
    {SYS_kexec_load, "kexec_load"},
    {SYS_reboot, "reboot"},
    {SYS_clock_settime, "clock_settime"},
    {SYS_settimeofday, "settimeofday"},
    {SYS_sethostname, "sethostname"},
    {SYS_acct, "acct"},
    {SYS_swapon, "swapon"},
    {SYS_syslog, "syslog"},
    {SYS_open_by_handle_at, "open_by_handle_at"},
    {SYS_name_to_handle_at, "name_to_handle_at"},
    {SYS_fanotify_init, "fanotify_init"},
    {SYS_shmget, "shmget"},
    {SYS_msgget, "msgget"},
    {SYS_semget, "semget"},
    {SYS_mq_open, "mq_open"},
    {SYS_prlimit64, "prlimit64"},
    {SYS_setrlimit, "setrlimit"},
    {SYS_capset, "capset"},
    {SYS_personality, "personality"},
    {SYS_setpriority, "setpriority"},
    {SYS_sched_setaffinity, "sched_setaffinity"},
    {SYS_vmsplice, "vmsplice"},
    {SYS_tee, "tee"},
    {SYS_rt_sigqueueinfo, "rt_sigqueueinfo"},
    {SYS_kcmp, "kcmp"},
    {SYS_remap_file_pages, "remap_file_pages"},
    {SYS_inotify_init1, "inotify_init1"},
    {SYS_signalfd4, "signalfd4"},
    {SYS_accept, "accept"},
    {SYS_accept4, "accept4"},
    {SYS_listen, "listen"},
    {SYS_setxattr, "setxattr"},
    {SYS_landlock_create_ruleset, "landlock_create_ruleset"},
#if defined(__x86_64__)
    {SYS_mknod, "mknod"},
    {SYS_chown, "chown"},
    {SYS_lchown, "lchown"},
    {SYS_iopl, "iopl"},
    {SYS_ioperm, "ioperm"},
    {SYS_modify_ldt, "modify_ldt"},
    {SYS_inotify_init, "inotify_init"},
#endif
};

class Assembler {
 public:
  void Load(uint32_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset); }
  void LoadArgument(int argument, bool high = false) {
    Load(static_cast<uint32_t>(offsetof(seccomp_data, args) + 8 * argument + (high ? 4 : 0)));
  }
  void Return(uint32_t action) { Add(BPF_RET | BPF_K, 0, 0, action); }
  // The next `count` instructions run only when the loaded value is `value`, is not, has a bit of
  // it.
  void UnlessEqualSkip(uint32_t value, uint8_t count) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, 0, count, value);
  }
  void UnlessDifferentSkip(uint32_t value, uint8_t count) {
    Add(BPF_JMP | BPF_JEQ | BPF_K, count, 0, value);
  }
  void UnlessBitsSkip(uint32_t bits, uint8_t count) {
    Add(BPF_JMP | BPF_JSET | BPF_K, 0, count, bits);
  }
  void Allow(int number) {
    UnlessEqualSkip(static_cast<uint32_t>(number), 1);
    Return(SECCOMP_RET_ALLOW);
  }
  // Allows the call when its argument is one of `values`; the number is loaded before and after.
  void AllowWith(int number, int argument, const std::vector<uint32_t>& values) {
    UnlessEqualSkip(static_cast<uint32_t>(number), static_cast<uint8_t>(2 * values.size() + 2));
    LoadArgument(argument);
    for (uint32_t value : values) {
      UnlessEqualSkip(value, 1);
      Return(SECCOMP_RET_ALLOW);
    }
    Return(SECCOMP_RET_USER_NOTIF);
  }
  const std::vector<sock_filter>& code() const { return code_; }

 private:
  void Add(int code, uint8_t yes, uint8_t no, uint32_t k) {
    code_.push_back({static_cast<uint16_t>(code), yes, no, k});
  }

  std::vector<sock_filter> code_;
};

std::vector<sock_filter> Filter(bool alone) {
  Assembler filter;
  filter.Load(offsetof(seccomp_data, arch));
  filter.UnlessDifferentSkip(kArchitecture, 1);
  filter.Return(SECCOMP_RET_KILL_PROCESS);
  filter.Load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  filter.UnlessBitsSkip(kX32Bit, 1);
  filter.Return(SECCOMP_RET_KILL_PROCESS);
#endif
  for (int number : kAllowed) filter.Allow(number);
  if (!alone) {
    for (int number : kAllowedApart) filter.Allow(number);
    filter.Allow(SYS_tgkill);
  }
  filter.UnlessEqualSkip(SYS_clone3, 1);  // its flags cannot be seen: glibc takes clone instead
  filter.Return(SECCOMP_RET_ERRNO | ENOSYS);
  filter.UnlessEqualSkip(SYS_clone, 4);
  filter.LoadArgument(0);
  filter.UnlessBitsSkip(kNewNamespaces, 1);
  filter.Return(SECCOMP_RET_USER_NOTIF);
  filter.Return(SECCOMP_RET_ALLOW);
  filter.UnlessEqualSkip(SYS_prlimit64, 6);  // reads only
  filter.LoadArgument(2);
  filter.UnlessEqualSkip(0, 3);
  filter.LoadArgument(2, /*high=*/true);
  filter.UnlessEqualSkip(0, 1);
  filter.Return(SECCOMP_RET_ALLOW);
  filter.Return(SECCOMP_RET_USER_NOTIF);
  filter.AllowWith(SYS_ioctl, 1, {TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX});
  filter.AllowWith(SYS_socketpair, 0, {AF_UNIX});
  filter.AllowWith(SYS_prctl, 0, {PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, kSetVma});
  if (alone) filter.AllowWith(SYS_tgkill, 0, {static_cast<uint32_t>(getpid())});
  filter.Return(SECCOMP_RET_USER_NOTIF);
  return filter.code();
}

}  // namespace

int InstallSystemFilter(bool alone) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  std::vector<sock_filter> code = Filter(alone);
  sock_fprog program = {static_cast<unsigned short>(code.size()), code.data()};
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

std::string AnswerRefusal(int listener) {
  seccomp_notif call;
  std::memset(&call, 0, sizeof(call));
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) return "";
  seccomp_notif_resp answer;
  std::memset(&answer, 0, sizeof(answer));
  answer.id = call.id;
  answer.error = -EPERM;
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);  // fails when the process is gone
  for (const Name& name : kNames) {
    if (name.number == call.data.nr) return name.name;
  }
  return "syscall " + std::to_string(call.data.nr);
}

}  // namespace rein::reward::sandbox
