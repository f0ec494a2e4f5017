#include "reward/sandbox/confine.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace rein::reward::sandbox {
namespace {

// Rights by the Landlock version that brought them; headers may be older than the kernel.
constexpr uint64_t kRefer = 1ULL << 13, kTruncate = 1ULL << 14, kDeviceIoctl = 1ULL << 15;
constexpr uint64_t kBasic = (1ULL << 13) - 1;
constexpr uint64_t kRead =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kMakeOdd = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                              LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO;
constexpr uint64_t kOnFiles = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |
                              LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate | kDeviceIoctl;

struct Ruleset {
  uint64_t files = 0;
  uint64_t net = 0;    // version 4: bind and connect of TCP
  uint64_t scope = 0;  // version 6: abstract sockets and signals of others
};

Ruleset Handled(int version) {
  Ruleset handled;
  handled.files = kBasic | (version >= 2 ? kRefer : 0) | (version >= 3 ? kTruncate : 0) |
                  (version >= 5 ? kDeviceIoctl : 0);
  if (version >= 4) handled.net = 3;
  if (version >= 6) handled.scope = 3;
  return handled;
}

size_t SizeOf(int version) { return version >= 6 ? 24 : version >= 4 ? 16 : 8; }

bool Allow(int ruleset, const std::string& path, uint64_t access) {
  int fd = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;  // a host without it
  struct stat about;
  if (fstat(fd, &about) == 0 && !S_ISDIR(about.st_mode)) access &= kOnFiles;
  landlock_path_beneath_attr rule;
  std::memset(&rule, 0, sizeof(rule));
  rule.allowed_access = access;
  rule.parent_fd = fd;
  bool added = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
  close(fd);
  return added;
}

bool Limit(int resource, uint64_t soft, uint64_t hard) {
  rlimit limit = {soft, hard};
  return setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0;
}

}  // namespace

std::string Failed(const std::string& doing) { return doing + ": " + std::strerror(errno); }

int LandlockVersion() {
  long version = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version < 0 ? 0 : static_cast<int>(version);
}

std::string DropCapabilities() {
  // A later exec gives nothing back, also to user 0 of a namespace.
  const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                             SECBIT_KEEP_CAPS_LOCKED;
  prctl(PR_SET_SECUREBITS, bits, 0, 0, 0);  // EPERM for who has no capabilities
  for (int capability = 0; capability <= 63; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno == EINVAL) break;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2];
  std::memset(none, 0, sizeof(none));
  return syscall(SYS_capset, &header, none) == 0 ? "" : Failed("capset");
}

std::string RestrictFiles(const Confinement& confinement) {
  const int version = LandlockVersion();
  if (version == 0) return "";
  Ruleset handled = Handled(version);
  int ruleset =
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &handled, SizeOf(version), 0));
  if (ruleset < 0) return Failed("landlock_create_ruleset");
  bool all = Allow(ruleset, confinement.writable, handled.files & ~kMakeOdd & ~kDeviceIoctl);
  for (const std::string& path : confinement.readable) all = all && Allow(ruleset, path, kRead);
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/urandom"}) {
    all = all && Allow(ruleset, device,
                       handled.files & (LANDLOCK_ACCESS_FS_READ_FILE |
                                        LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate));
  }
  if (!all) return Failed("landlock_add_rule");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failed("no_new_privs");
  const bool restricted = syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  close(ruleset);
  return restricted ? "" : Failed("landlock_restrict_self");
}

std::string LimitResources(const Confinement& c) {
  const bool set =
      Limit(RLIMIT_CORE, 0, 0) && Limit(RLIMIT_CPU, c.processor_seconds, c.processor_seconds + 1) &&
      Limit(RLIMIT_AS, c.memory_bytes, c.memory_bytes) &&
      Limit(RLIMIT_FSIZE, c.memory_bytes, c.memory_bytes) && Limit(RLIMIT_NOFILE, 256, 256) &&
      Limit(RLIMIT_NPROC, c.processes, c.processes) && Limit(RLIMIT_MEMLOCK, 0, 0) &&
      Limit(RLIMIT_MSGQUEUE, 0, 0);
  return set ? "" : Failed("setrlimit");
}

}  // namespace rein::reward::sandbox
