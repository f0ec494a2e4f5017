// rein-sandbox: runs one program as reward/sandbox/sandbox.h says. Started by the reward service,
// which gives it the program's standard streams as 0, 1, 2, what to do as records in 3, and takes
// records from 4.

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reward/sandbox/confine.h"
#include "reward/sandbox/jail.h"
#include "reward/sandbox/records.h"
#include "reward/sandbox/system_filter.h"

namespace rein::reward::sandbox {
namespace {

constexpr int kOrders = 3, kReport = 4;
constexpr uid_t kNobody = 65534;
constexpr int kNamespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET |
                            CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
using Clock = std::chrono::steady_clock;

struct Orders {
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> files;
  std::vector<std::string> keep;
  uint64_t processor_ms = 2000, wall_ms = 4000, memory_bytes = 512 << 20, processes = 16;
  bool weak = false;
};

volatile sig_atomic_t stopped = 0;

std::string ReadAll(int fd, size_t limit) {
  std::string all;
  char buffer[65536];
  ssize_t count;
  while (all.size() < limit && (count = read(fd, buffer, sizeof(buffer))) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    all.append(buffer, static_cast<size_t>(count));
  }
  return all;
}

void WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    ssize_t count = write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

bool ReadOrders(Orders& orders) {
  const std::string text = ReadAll(kOrders, SIZE_MAX);
  std::string_view rest = text;
  while (auto key = TakeText(rest)) {
    auto value = TakeText(rest);
    if (!value) return false;
    auto number = [&] { return std::strtoull(std::string(*value).c_str(), nullptr, 10); };
    if (*key == "command")
      orders.command.emplace_back(*value);
    else if (key->substr(0, 5) == "file:")
      orders.files.emplace_back(key->substr(5), *value);
    else if (*key == "keep")
      orders.keep.emplace_back(*value);
    else if (*key == "processor_ms")
      orders.processor_ms = number();
    else if (*key == "wall_ms")
      orders.wall_ms = number();
    else if (*key == "memory_bytes")
      orders.memory_bytes = number();
    else if (*key == "processes")
      orders.processes = number();
    else if (*key == "weak")
      orders.weak = number() != 0;
    else
      return false;
  }
  return rest.empty() && !orders.command.empty();
}

[[noreturn]] void Report(const std::string& records, int code = 0) {
  WriteAll(kReport, records);
  _exit(code);
}

[[noreturn]] void Give(const std::string& key, const std::string& value) {
  std::string records;
  PutRecord(records, key, value);
  Report(records);
}

std::string WriteFiles(const Orders& orders) {
  for (const auto& [name, content] : orders.files) {
    int fd = open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0755);
    if (fd < 0) return Failed("create " + name);
    WriteAll(fd, content);
    struct stat about;
    const bool whole =
        fstat(fd, &about) == 0 && static_cast<size_t>(about.st_size) == content.size();
    close(fd);
    if (!whole) return "the files do not fit into the memory of the program";
  }
  return "";
}

void SendListener(int socket, int listener) {
  char byte = 'l', control[CMSG_SPACE(sizeof(int))] = {};
  iovec vector = {&byte, 1};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &listener, sizeof(int));
  sendmsg(socket, &message, 0);
}

// The listener, or -1 with what the program's process said instead.
int TakeListener(int socket, std::string& wrong) {
  char text[512], control[CMSG_SPACE(sizeof(int))] = {};
  iovec vector = {text, sizeof(text)};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (count <= 0 || header == nullptr) {
    wrong = count > 0 ? std::string(text, static_cast<size_t>(count))
                      : "the program's process ended early";
    return -1;
  }
  int listener = -1;
  std::memcpy(&listener, CMSG_DATA(header), sizeof(int));
  return listener;
}

// Becomes the program. Never returns; what fails before goes to `socket`.
[[noreturn]] void BecomeProgram(const Orders& orders, const Confinement& confinement, bool alone,
                                int socket) {
  if (alone)
    setpgid(0, 0);
  else
    setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGTERM, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  umask(022);
  std::vector<char*> arguments;
  for (const std::string& argument : orders.command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  std::string path = orders.command[0];
  if (path.find('/') == std::string::npos) {
    path = access(("/usr/bin/" + path).c_str(), X_OK) == 0 ? "/usr/bin/" + path
           : access(("/bin/" + path).c_str(), X_OK) == 0
               ? "/bin/" + path
               : std::string(confinement.writable) + "/" + path;
  }
  std::string wrong = access(path.c_str(), X_OK) == 0 ? "" : "no program " + orders.command[0];
  if (wrong.empty()) wrong = LimitResources(confinement);
  if (wrong.empty()) wrong = DropCapabilities();
  if (wrong.empty()) wrong = RestrictFiles(confinement);
  if (wrong.empty()) {
    int listener = InstallSystemFilter(alone);
    if (listener >= 0) {
      SendListener(socket, listener);
      syscall(SYS_close_range, 3, ~0U, 0);
      char search[] = "PATH=/usr/bin:/bin";  // compilers look for their parts
      std::string temporary = "TMPDIR=" + confinement.writable;
      char* environment[] = {search, temporary.data(), nullptr};
      execve(path.c_str(), arguments.data(), environment);
      _exit(127);
    }
    wrong = Failed("seccomp");
  }
  WriteAll(socket, wrong);
  _exit(127);
}

struct Ended {
  std::string wrong;  // not empty: the program never ran
  int status = 0;
  bool too_long = false;
  std::set<std::string> refused;
};

// Runs the program as a child and waits for it; `alone`: outside namespaces, so its group is killed
// here.
Ended RunChild(const Orders& orders, const Confinement& confinement, bool alone) {
  Ended ended;
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return {Failed("socketpair")};
  const Clock::time_point deadline = Clock::now() + std::chrono::milliseconds(orders.wall_ms);
  pid_t child = fork();
  if (child < 0) return {Failed("fork")};
  if (child == 0) {
    close(sockets[0]);
    BecomeProgram(orders, confinement, alone, sockets[1]);
  }
  close(sockets[1]);
  const int listener = TakeListener(sockets[0], ended.wrong);
  close(sockets[0]);
  const int process = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  while (listener >= 0) {
    pollfd waits[2] = {{process, POLLIN, 0}, {listener, POLLIN, 0}};
    auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0 || stopped) {
      ended.too_long = true;
      break;
    }
    if (poll(waits, 2, static_cast<int>(left) + 1) < 0 && errno != EINTR) break;
    if (waits[1].revents & POLLIN) {
      std::string name = AnswerRefusal(listener);
      if (!name.empty() && ended.refused.size() < 64) ended.refused.insert(name);
      continue;
    }
    if (waits[0].revents & POLLIN) break;
  }
  if (alone) kill(-child, SIGKILL);
  kill(child, SIGKILL);
  while (waitpid(child, &ended.status, 0) < 0 && errno == EINTR) continue;
  if (!alone) kill(-1, SIGKILL);  // whatever it left behind
  while (alone && (waitpid(-1, nullptr, 0) > 0 || errno == EINTR)) continue;
  return ended;
}

// The plain files that the caller asked for. Everything that could change them is dead.
void PutFiles(const Orders& orders, std::string& records) {
  for (const std::string& name : orders.keep) {
    int fd = open(name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat about;
    if (fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_nlink == 1 &&
        static_cast<uint64_t>(about.st_size) <= orders.memory_bytes) {
      PutRecord(records, "file:" + name, ReadAll(fd, static_cast<size_t>(about.st_size)));
    }
    if (fd >= 0) close(fd);
  }
}

std::string Records(const Orders& orders, const Ended& ended, bool namespaces) {
  std::string records;
  if (!ended.wrong.empty()) {
    PutRecord(records, "wrong", ended.wrong);
    return records;
  }
  PutRecord(records, "namespaces", namespaces ? "1" : "0");
  for (const std::string& name : ended.refused) PutRecord(records, "refused", name);
  if (ended.too_long)
    PutRecord(records, "end", "time");
  else if (WIFSIGNALED(ended.status))
    PutRecord(records, "signal", std::to_string(WTERMSIG(ended.status)));
  else
    PutRecord(records, "exit", std::to_string(WEXITSTATUS(ended.status)));
  PutFiles(orders, records);
  return records;
}

Confinement ConfinementOf(const Orders& orders, std::vector<std::string> readable,
                          std::string writable) {
  return {std::move(readable), std::move(writable), (orders.processor_ms + 999) / 1000,
          orders.memory_bytes, orders.processes};
}

// Process 1 of the namespaces.
[[noreturn]] void RunInside(const Orders& orders, int ready) {
  char byte;
  if (read(ready, &byte, 1) != 1) _exit(1);  // the launcher is gone
  close(ready);
  if (setgroups(0, nullptr) != 0 && errno != EPERM) Give("wrong", Failed("setgroups"));
  if (setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0) Give("wrong", Failed("setresuid"));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
  signal(SIGTERM, SIG_DFL);  // process 1 is deaf to what it does not handle
  if (sethostname("sandbox", 7) != 0) Give("wrong", Failed("sethostname"));
  if (std::string wrong = BuildJail(orders.memory_bytes); !wrong.empty()) Give("wrong", wrong);
  if (chdir(kWorkFolder) != 0) Give("wrong", Failed("work folder"));
  if (std::string wrong = WriteFiles(orders); !wrong.empty()) Give("wrong", wrong);
  Orders more = orders;
  more.processes += 1;  // this process counts too
  Report(Records(
      orders, RunChild(more, ConfinementOf(more, ReadableFolders(), kWorkFolder), /*alone=*/false),
      true));
}

bool WriteText(const std::string& path, const std::string& text) {
  int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return written;
}

// User 0 inside is nobody outside, or the caller where it may not choose.
bool MapUsers(pid_t child) {
  const std::string folder = "/proc/" + std::to_string(child);
  const bool root = geteuid() == 0;
  auto map = [&](const char* file, uid_t outside) {
    return WriteText(folder + file, "0 " + std::to_string(outside) + " 1\n");
  };
  if (root && map("/uid_map", kNobody)) return map("/gid_map", kNobody);
  WriteText(folder + "/setgroups", "deny");
  return map("/uid_map", geteuid()) && map("/gid_map", getegid());
}

[[noreturn]] void RunInNamespaces(pid_t child, int ready) {
  if (!MapUsers(child)) {
    const std::string wrong = Failed("user map");
    kill(child, SIGKILL);
    Give("forbidden", wrong);
  }
  WriteAll(ready, "g");
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    if (stopped) kill(child, SIGKILL);
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

// Processes and threads of a user on this host.
uint64_t TasksOf(uid_t user) {
  uint64_t tasks = 0;
  std::error_code wrong;
  for (const auto& process : std::filesystem::directory_iterator("/proc", wrong)) {
    struct stat about;
    if (stat(process.path().c_str(), &about) != 0 || about.st_uid != user) continue;
    for (const auto& task : std::filesystem::directory_iterator(process.path() / "task", wrong)) {
      (void)task;
      ++tasks;
    }
  }
  return tasks;
}

// Without namespaces: seccomp, Landlock and limits alone, in a folder of its own.
[[noreturn]] void RunWeakly(Orders orders) {
  if (LandlockVersion() == 0)
    Give("forbidden", "and without Landlock there is no weak mode either");
  if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
                         setresuid(kNobody, kNobody, kNobody) != 0)) {
    Give("wrong", Failed("setresuid"));
  }
  // The limit of processes counts all of this user's, also those of others.
  orders.processes += TasksOf(geteuid());
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  char folder[] = "/tmp/rein-sandbox-XXXXXX";
  if (mkdtemp(folder) == nullptr || chdir(folder) != 0) Give("wrong", Failed("mkdtemp"));
  Ended ended;
  ended.wrong = WriteFiles(orders);
  if (ended.wrong.empty())
    ended = RunChild(orders, ConfinementOf(orders, ReadableFolders(), folder), /*alone=*/true);
  const std::string records = Records(orders, ended, /*namespaces=*/false);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  Report(records);
}

}  // namespace
}  // namespace rein::reward::sandbox

int main() {
  using namespace rein::reward::sandbox;
  syscall(SYS_close_range, kReport + 1, ~0U, 0);
  fcntl(kReport, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  struct sigaction stop = {};
  stop.sa_handler = [](int) { stopped = 1; };
  sigaction(SIGTERM, &stop, nullptr);
  Orders orders;
  if (!ReadOrders(orders)) Give("wrong", "the orders cannot be read");
  close(kOrders);
  int ready[2];
  if (pipe2(ready, O_CLOEXEC) != 0) Give("wrong", Failed("pipe"));
  pid_t child = static_cast<pid_t>(
      std::getenv("REIN_SANDBOX_WITHOUT_NAMESPACES") != nullptr
          ? (errno = EPERM, -1)
          : syscall(SYS_clone, kNamespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
  if (child == 0) {
    close(ready[1]);
    RunInside(orders, ready[0]);
  }
  if (child > 0) RunInNamespaces(child, ready[1]);
  if (orders.weak) RunWeakly(orders);
  Give("forbidden", Failed("clone"));
}
