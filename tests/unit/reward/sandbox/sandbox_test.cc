// What a program can reach from inside the sandbox: attempts that must all fail, and honest
// programs that must all work. Skipped loudly on a host without namespaces or Python.

#include "reward/sandbox/sandbox.h"

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

namespace rein::reward::sandbox {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// What attempts share: call(number, ...) prints GOT when the kernel did it, fails(f) when f did.
constexpr char kPreamble[] = R"(
import ctypes, os, sys, errno
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*a):
    if libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a]) >= 0: print("GOT", a)
def fails(f):
    try: f()
    except (OSError, MemoryError, RuntimeError, PermissionError) as e: print(type(e).__name__)
    else: print("GOT")
)";

Program Python(const std::string& source) {
  Program program;
  program.command = {"python3", "-I", "-S", "main"};
  program.files["main"] = kPreamble + source;
  program.limits.processor = absl::Seconds(4);
  program.limits.wall = absl::Seconds(8);
  program.limits.memory_bytes = 256 << 20;
  return program;
}

class SandboxTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (Weak()) setenv("REIN_SANDBOX_WITHOUT_NAMESPACES", "1", 1);
    absl::StatusOr<Sandbox> sandbox = Sandbox::Open({.weak = Weak()});
    if (!sandbox.ok()) GTEST_SKIP() << "NOT tried: " << sandbox.status();
    if (access("/usr/bin/python3", X_OK) != 0) GTEST_SKIP() << "NOT tried: no /usr/bin/python3";
    sandbox_ = *sandbox;
  }
  void TearDown() override { unsetenv("REIN_SANDBOX_WITHOUT_NAMESPACES"); }

  static bool Weak() { return GetParam(); }

  Outcome Run(const Program& program) {
    absl::StatusOr<Outcome> outcome = sandbox_->Run(program);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.value_or(Outcome());
  }
  Outcome Run(const std::string& source) { return Run(Python(source)); }

  // The attempt gets nothing; `refused` names the system call that was refused, if it is one.
  void Denied(const std::string& source, const std::string& refused = "") {
    Outcome outcome = Run(source + "\nprint('tried')");
    EXPECT_THAT(outcome.output, Not(HasSubstr("GOT"))) << source;
    EXPECT_THAT(outcome.output, HasSubstr("tried")) << source << outcome.errors;
    if (refused.empty()) return;
    EXPECT_THAT(outcome.refused, Contains(refused)) << source << outcome.errors;
  }

  std::optional<Sandbox> sandbox_;
};

INSTANTIATE_TEST_SUITE_P(Modes, SandboxTest, testing::Bool(),
                         [](const auto& mode) { return mode.param ? "Weak" : "Namespaces"; });

bool ProcessWith(const std::string& word) {
  DIR* all = opendir("/proc");
  bool found = false;
  while (dirent* entry = readdir(all)) {
    std::ifstream file(absl::StrCat("/proc/", entry->d_name, "/cmdline"));
    std::stringstream text;
    text << file.rdbuf();
    found = found || text.str().find(word) != std::string::npos;
  }
  closedir(all);
  return found;
}

TEST_P(SandboxTest, FilesOfTheHostAreOutOfReach) {
  char secret[] = "/tmp/rein-secret-XXXXXX";
  int fd = mkstemp(secret);
  ASSERT_EQ(write(fd, "secret", 6), 6);
  close(fd);
  for (const std::string& path :
       {std::string("/etc/shadow"), std::string("/etc/passwd"), std::string(secret),
        std::string("/proc/1/environ"), std::string("/proc/self/environ"),
        std::string("/proc/1/root/etc/passwd"), std::string("/proc/kcore"),
        std::string("/sys/kernel/notes"), std::string(getenv("REIN_SANDBOX")),
        std::string("/dev/sda"), std::string("/dev/mem"), std::string("/dev/nvidia0"),
        std::string("/dev/nvidiactl"), std::string("/root/.profile")}) {
    Denied(absl::StrCat("fails(lambda: open('", path, "', 'rb').read(1))"));
  }
  for (const char* folder : {"/proc", "/sys", "/home", "/root", "/dev/shm", "/etc", "/var", "/"}) {
    Denied(absl::StrCat("fails(lambda: os.listdir('", folder, "'))"));
  }
  for (const char* path :
       {"/usr/x", "/x", "/etc/x", "/dev/shm/x", "/usr/bin/python3", "/dev/x", "/var/tmp/x"}) {
    Denied(absl::StrCat("fails(lambda: open('", path, "', 'wb'))"));
  }
  Denied("fails(lambda: os.link('/usr/bin/env', 'x'))");
  Denied("fails(lambda: os.chmod('/usr/bin/env', 0o777))");
  Denied("fails(lambda: os.unlink('/usr/bin/env'))");
  unlink(secret);
}

TEST_P(SandboxTest, NothingIsLeftOfAnotherRun) {
  Outcome first = Run("open('mine', 'w').write('x'); print(sorted(os.listdir('.')))");
  EXPECT_EQ(first.output, "['main', 'mine']\n");
  EXPECT_EQ(Run("print(sorted(os.listdir('.')))").output, "['main']\n");
}

TEST_P(SandboxTest, CollectedFilesAreItsOwnPlainFiles) {
  Program program = Python(R"(
open('plain', 'w').write('yes')
os.symlink('/usr/bin/env', 'link')
open('one', 'w').write('x'); os.link('one', 'twice')
os.mkdir('folder')
try: os.mkfifo('fifo')
except OSError: pass
)");
  program.keep = {"plain", "link", "twice", "folder", "fifo", "absent"};
  Outcome outcome = Run(program);
  EXPECT_EQ(outcome.files.size(), 1u);
  EXPECT_EQ(outcome.files["plain"], "yes");
  // A child that swaps the file while it is collected is dead by then.
  program = Python(R"(
open('out', 'w').write('plain')
if os.fork() == 0:
    while True:
        os.symlink('/usr/bin/env', 'new'); os.rename('new', 'out')
        open('new', 'w').write('plain'); os.rename('new', 'out')
)");
  program.keep = {"out"};
  for (int i = 0; i < 5; ++i) {
    std::string out = Run(program).files["out"];
    EXPECT_TRUE(out.empty() || out == "plain") << out.size();
  }
}

TEST_P(SandboxTest, SpecialFilesAndSpaceAreBounded) {
  Denied("fails(lambda: os.mkfifo('x'))", "mknodat");
  Denied("fails(lambda: os.mknod('x', 0o020666, os.makedev(1, 1)))", "mknodat");
  Denied(
      "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nfails(lambda: open('x', "
      "'wb').truncate(1 << 40))");
  if (Weak()) return;  // there the host's own limits of its /tmp hold
  Denied(R"(
made = 0
try:
    for i in range(10_000_000): open(f'f{i}', 'w').close(); made += 1
except OSError: pass
print('GOT' if made > 5000 else made))");
  Denied(R"(
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = 0
try:
    for i in range(100):
        with open(f'f{i}', 'wb') as f:
            for j in range(64): f.write(bytes(1 << 20)); size += 1
except OSError: pass
print('GOT' if size > 300 else size))");
}

TEST_P(SandboxTest, ThereIsNoNetwork) {
  Denied("import _socket as s\nfails(lambda: s.socket(s.AF_INET, s.SOCK_STREAM))", "socket");
  for (const char* socket : {"2, 1, 0", "2, 2, 0", "2, 3, 1", "10, 1, 0", "10, 2, 0", "1, 1, 0",
                             "1, 2, 0", "40, 1, 0", "16, 3, 0", "38, 5, 0", "17, 3, 0"}) {
    Denied(absl::StrCat("call(41, ", socket, ")"), "socket");
  }
  Denied("call(53, 2, 1, 0, 0)", "socketpair");
  EXPECT_EQ(
      Run("import _socket as s\na, b = s.socketpair(); a.send(b'x'); print(b.recv(1))").output,
      "b'x'\n")
      << "a pair of its own";
}

TEST_P(SandboxTest, OtherProcessesAreOutOfReach) {
  Denied("call(101, 16, os.getppid(), 0, 0)", "ptrace");
  Denied("call(310, os.getppid(), 0, 0, 0, 0, 0)", "process_vm_readv");
  Denied("call(434, os.getppid(), 0)", "pidfd_open");
  Denied("call(438, 0, 0, 0)", "pidfd_getfd");
  Denied(
      "for fd in range(3, 1024):\n    try: os.fstat(fd); print('GOT', fd)\n    except OSError: "
      "pass\n");
  Denied("print('GOT' if os.environ.keys() - {'LC_CTYPE', 'PATH', 'TMPDIR'} else 'empty')");
  const auto begin = std::chrono::steady_clock::now();
  Run("import signal\nfor s in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):\n    for p in "
      "(-1, 1, os.getppid()):\n"
      "        try: os.kill(p, s)\n        except OSError as e: pass\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_EQ(Run("print('alive')").output, "alive\n") << "nobody else was killed";
}

TEST_P(SandboxTest, NothingSurvives) {
  for (const std::string& escape :
       {std::string("os.fork() or (os.fork() == 0) or os._exit(0)"),
        std::string("pass\ntry: os.setsid()\nexcept OSError: pass"),
        std::string("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
                    "signal.signal(signal.SIGHUP, signal.SIG_IGN)")}) {
    const std::string word = absl::StrCat("survivor", getpid());
    Run(absl::StrCat("if os.fork() == 0:\n    ", "\n    ", "exec(", "'''", escape, "'''",
                     ")\n    os.execv('/usr/bin/python3', ['python3', '-I', '-S', '-c', 'import "
                     "time; time.sleep(60)', '",
                     word, "'])\nimport time; time.sleep(0.3)"));
    for (int i = 0; i < 400 && ProcessWith(word); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(25));
    EXPECT_FALSE(ProcessWith(word)) << escape;
  }
}

TEST_P(SandboxTest, KernelDoorsAreShut) {
  for (auto [attempt, name] : std::vector<std::pair<const char*, const char*>>{
           {"call(272, 0x10000000)", "unshare"},
           {"call(272, 0x00020000)", "unshare"},
           {"call(56, 0x00020000 | 17, 0, 0, 0, 0)", "clone"},
           {"call(56, 0x10000000 | 17, 0, 0, 0, 0)", "clone"},
           {"call(165, b'none', b'/work', b'tmpfs', 0, 0)", "mount"},
           {"call(155, b'.', b'.')", "pivot_root"},
           {"call(161, b'/usr')", "chroot"},
           {"call(428, -100, b'/', 1)", "open_tree"},
           {"call(430, b'tmpfs', 0)", "fsopen"},
           {"call(308, 0, 0)", "setns"},
           {"call(250, 0, -3, 1)", "keyctl"},
           {"call(248, b'user', b'x', b'y', 1, -3)", "add_key"},
           {"call(321, 0, 0, 0)", "bpf"},
           {"call(298, 0, 0, -1, -1, 0)", "perf_event_open"},
           {"call(425, 8, ctypes.create_string_buffer(512))", "io_uring_setup"},
           {"call(323, 0)", "userfaultfd"},
           {"call(16, 0, 0x5412, b'x')", "ioctl"},
           {"call(175, 0, 0, b'')", "init_module"},
           {"call(246, 0, 0, 0, 0)", "kexec_load"},
           {"call(169, 0xfee1dead, 672274793, 0, 0)", "reboot"},
           {"call(304, -100, 0, 0)", "open_by_handle_at"},
           {"call(319, b'x', 0)", "memfd_create"},
           {"call(157, 4, 1, 0, 0, 0)", "prctl"},
           {"call(105, 0)", "setuid"},
           {"call(302, 0, 7, b'\\0' * 16, 0)", "prlimit64"},
           {"call(29, 0, 4096, 0o1600)", "shmget"},
           {"call(135, 0x0040000)", "personality"},
           {"call(227, 0, b'\\0' * 16)", "clock_settime"},
           {"call(103, 3, 0, 0)", "syslog"}}) {
    Denied(attempt, name);
  }
  Denied(
      "print('GOT' if libc.syscall(435, 0, 0) >= 0 or ctypes.get_errno() != errno.ENOSYS else 'no "
      "clone3')");
  // Calls of other architectures: x32 by its bit, ia32 by int 0x80.
  for (const char* foreign : {"call(0x40000000 + 39)",
                              "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes([0xb8, "
                              "20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\n"
                              "f = "
                              "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_"
                              "buffer(m)))\nprint('GOT', f())"}) {
    Outcome outcome = Run(foreign);
    EXPECT_THAT(outcome.output, Not(HasSubstr("GOT"))) << foreign;
    EXPECT_EQ(outcome.end, End::kKilled) << foreign << outcome.errors;
    EXPECT_EQ(outcome.code, SIGSYS);
  }
}

TEST_P(SandboxTest, ResourcesAreBounded) {
  Denied("fails(lambda: bytearray(10 << 30))");
  Program loop = Python("while True: pass");
  loop.limits.processor = absl::Seconds(1);
  Outcome outcome = Run(loop);
  EXPECT_EQ(outcome.end, End::kKilled);
  EXPECT_TRUE(outcome.code == SIGXCPU || outcome.code == SIGKILL) << outcome.code;
  Program sleep = Python("import time; print('begun', flush=True); time.sleep(60)");
  sleep.limits.wall = absl::Seconds(4);  // Python itself takes its time to start
  outcome = Run(sleep);
  EXPECT_EQ(outcome.end, End::kTooLong);
  EXPECT_EQ(outcome.output, "begun\n");
  outcome = Run("while True: os.write(1, b'x' * 65536)");
  EXPECT_EQ(outcome.end, End::kTooLoud);
  EXPECT_EQ(outcome.output.size(), Limits().output_bytes);
  EXPECT_EQ(Run("while True: os.write(2, b'x' * 65536)").end, End::kTooLoud);
  // Threads and processes stop at their limit, and take nobody with them.
  Denied(R"(
import threading, time
count = 0
try:
    for i in range(100_000): threading.Thread(target=time.sleep, args=(5,), daemon=True).start(); count += 1
except (RuntimeError, MemoryError): pass
print('GOT' if count > 64 else count, flush=True))");
  Program bomb = Python("while True:\n    try: os.fork()\n    except OSError: pass\n");
  bomb.limits.wall = absl::Seconds(1);
  outcome = Run(bomb);
  EXPECT_NE(outcome.end, End::kExited);
  EXPECT_EQ(Run("print(1)").output, "1\n");
}

TEST_P(SandboxTest, HonestProgramsWork) {
  Program sum = Python("print(sum(map(int, sys.stdin.read().split())))");
  sum.input = "1 2\n3\n";
  EXPECT_EQ(Run(sum).output, "6\n");
  for (auto [source, output] : std::vector<std::pair<const char*, const char*>>{
           {"print(2 ** 200 % 97)", "62\n"},
           {"import collections, itertools, heapq, bisect, math, re, json, random, string, "
            "functools, decimal, fractions, datetime\nprint(math.comb(10, 3))",
            "120\n"},
           {"sys.setrecursionlimit(10000)\ndef f(n): return 0 if n == 0 else 1 + f(n - "
            "1)\nprint(f(5000))",
            "5000\n"},
           {"import threading\nt = threading.Thread(target=lambda: print('thread')); t.start(); "
            "t.join()",
            "thread\n"},
           {"import subprocess\nprint(subprocess.run(['/usr/bin/env', 'echo', 'hi'], "
            "capture_output=True, text=True).stdout)",
            "hi\n\n"},
           {"import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'x'); f.seek(0); "
            "print(f.read())",
            "b'x'\n"},
           {"open('a', 'w').write('1\\n2'); print(len(open('a').readlines())); os.mkdir('d'); "
            "os.rename('a', 'd/a'); print(os.listdir('d'))",
            "2\n['a']\n"},
           {"import time\nt = time.time(); time.sleep(0.01); print(time.time() > t)", "True\n"},
           {"import asyncio\nasync def f(): await asyncio.sleep(0); "
            "print('async')\nasyncio.run(f())",
            "async\n"},
           {"import signal\nsignal.alarm(5); print(len(bytes(50 << 20)))", "52428800\n"},
           {"import array, zlib, hashlib\nprint(hashlib.sha256(b'').hexdigest()[:8])",
            "e3b0c442\n"},
           {"print(open('/dev/null').read() == '', len(os.urandom(8)))", "True 8\n"}}) {
    Outcome outcome = Run(source);
    EXPECT_EQ(outcome.output, output) << source << outcome.errors;
    EXPECT_EQ(outcome.end, End::kExited);
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.refused, IsEmpty()) << source;
  }
  Outcome failing = Run("sys.exit(3)");
  EXPECT_EQ(failing.code, 3);
  EXPECT_THAT(Run("raise ValueError('mine')").errors, HasSubstr("ValueError: mine"));
}

TEST_P(SandboxTest, OtherLanguagesAreBuiltAndRun) {
  if (access("/usr/bin/g++", X_OK) != 0) GTEST_SKIP() << "NOT tried: no /usr/bin/g++";
  Program build;
  build.command = {"g++", "-O1", "-x", "c++", "main", "-o", "program"};
  build.files["main"] =
      "#include <cstdio>\nint main() { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a * "
      "b); }\n";
  build.keep = {"program"};
  build.limits = {.processor = absl::Seconds(30), .wall = absl::Seconds(40)};
  Outcome built = Run(build);
  ASSERT_EQ(built.code, 0) << built.errors;
  Program run;
  run.command = {"program"};
  run.files = built.files;
  run.input = "6 7";
  EXPECT_EQ(Run(run).output, "42\n");
}

TEST_P(SandboxTest, MistakesOfTheCallerAreNamed) {
  auto error = [&](const Program& program) {
    return std::string(sandbox_->Run(program).status().message());
  };
  EXPECT_THAT(error({}), HasSubstr("no command"));
  EXPECT_THAT(error({.command = {"no-such-program"}}), HasSubstr("no program no-such-program"));
  EXPECT_THAT(error({.command = {"true"}, .files = {{"../x", ""}}}),
              HasSubstr("bad file name '../x'"));
  EXPECT_THAT(error({.command = {"true"}, .keep = {"/etc/passwd"}}),
              HasSubstr("bad file name '/etc/passwd'"));
  if (Weak()) return;
  EXPECT_THAT(error({.command = {"true"},
                     .files = {{"x", std::string(2 << 20, 'x')}},
                     .limits = {.memory_bytes = 1 << 20}}),
              HasSubstr("do not fit"));
}

TEST(SandboxOpenTest, AHostThatForbidsIsRefusedByName) {
  setenv("REIN_SANDBOX_WITHOUT_NAMESPACES", "1", 1);
  absl::Status status = Sandbox::Open({}).status();
  unsetenv("REIN_SANDBOX_WITHOUT_NAMESPACES");
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("this host gives no sandbox with namespaces"), HasSubstr("isolation: weak")));
  EXPECT_THAT(std::string(Sandbox::Open({.launcher = "/no/launcher"}).status().message()),
              HasSubstr("/no/launcher is not there"));
}

}  // namespace
}  // namespace rein::reward::sandbox
