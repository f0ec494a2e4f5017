#include "reward/sandbox/jail.h"

#include <array>
#include <cerrno>
#include <climits>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "reward/sandbox/confine.h"

namespace rein::reward::sandbox {
namespace {

constexpr int kMaxFiles = 4096;

// mount_setattr(2); its header is newer than some systems.
struct MountAttributes {
  uint64_t set = 0, clear = 0, propagation = 0, userns_fd = 0;
};
constexpr uint64_t kReadOnly = 1, kNoSetuid = 2, kNoDevices = 4;
constexpr int kRecursive = 0x8000;

bool MakeReadOnly(const std::string& path) {
  MountAttributes attributes;
  attributes.set = kReadOnly | kNoSetuid | kNoDevices;
  if (syscall(SYS_mount_setattr, AT_FDCWD, path.c_str(), kRecursive, &attributes,
              sizeof(attributes)) == 0) {
    return true;
  }
  if (errno != ENOSYS) return false;
  return mount(nullptr, path.c_str(), nullptr,
               MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr) == 0;
}

// A folder that can be covered by the new root until it is the root.
std::string MountPoint() {
  for (const char* path : {"/tmp", "/mnt", "/run", "/var"}) {
    struct stat about;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) return path;
  }
  return "";
}

bool MakeFolders(const std::string& root, const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string folder = root + path.substr(0, slash);
    if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) return false;
    if (slash == std::string::npos) return true;
  }
}

// Shows `path` of the host in the new root: a link as the link, others bound read-only.
std::string Show(const std::string& root, const std::string& path) {
  struct stat about;
  if (lstat(path.c_str(), &about) != 0) return errno == ENOENT ? "" : Failed(path);
  const std::string target = root + path;
  if (size_t parent = path.rfind('/'); parent > 0 && !MakeFolders(root, path.substr(0, parent))) {
    return Failed("mkdir " + path);
  }
  if (S_ISLNK(about.st_mode)) {
    char link[PATH_MAX];
    ssize_t length = readlink(path.c_str(), link, sizeof(link) - 1);
    if (length < 0) return Failed(path);
    link[length] = '\0';
    return symlink(link, target.c_str()) == 0 ? "" : Failed("symlink " + path);
  }
  if (S_ISDIR(about.st_mode)) {
    if (!MakeFolders(root, path)) return Failed("mkdir " + path);
  } else {
    int fd = open(target.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
    if (fd < 0) return Failed("create " + path);
    close(fd);
  }
  if (mount(path.c_str(), target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return Failed("bind " + path);
  const bool device = path.rfind("/dev/", 0) == 0;
  if (!device && !MakeReadOnly(target)) return Failed("read-only " + path);
  return "";
}

}  // namespace

const std::vector<std::string>& ReadableFolders() {
  static const auto& folders = *new std::vector<std::string>{"/usr",
                                                             "/bin",
                                                             "/sbin",
                                                             "/lib",
                                                             "/lib32",
                                                             "/lib64",
                                                             "/libx32",
                                                             "/etc/alternatives",
                                                             "/etc/ld.so.cache"};
  return folders;
}

std::string BuildJail(uint64_t bytes) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return Failed("private mounts");
  const std::string root = MountPoint();
  if (root.empty()) return "no folder to mount on";
  const unsigned long safe = MS_NOSUID | MS_NODEV;
  if (mount("none", root.c_str(), "tmpfs", safe, "size=1m,nr_inodes=256,mode=755") != 0) {
    return Failed("mount a memory file system");
  }
  for (const std::string& path : ReadableFolders()) {
    // Under the covered mount point nothing of the host can be found any more: it is never listed.
    if (std::string wrong = Show(root, path); !wrong.empty()) return wrong;
  }
  for (const char* device : {"/dev/null", "/dev/zero", "/dev/urandom"}) {
    if (std::string wrong = Show(root, device); !wrong.empty()) return wrong;
  }
  const std::string work = root + kWorkFolder;
  const std::string options =
      "size=" + std::to_string(bytes) + ",nr_inodes=" + std::to_string(kMaxFiles) + ",mode=755";
  if (mkdir(work.c_str(), 0755) != 0 ||
      mount("none", work.c_str(), "tmpfs", safe, options.c_str()) != 0) {
    return Failed("mount the work folder");
  }
  if (symlink(kWorkFolder, (root + "/tmp").c_str()) != 0) return Failed("symlink /tmp");
  if (chdir(root.c_str()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0)
    return Failed("pivot_root");
  if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return Failed("leave the old root");
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | safe, nullptr) != 0) {
    return Failed("read-only root");
  }
  return "";
}

}  // namespace rein::reward::sandbox
