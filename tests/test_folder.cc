// Every test program has a folder of its own for its files, gone when it ends: others run beside it, of other builds too. It
// lies in memory where there is room: on a busy disk each commit of a test takes its time. TEST_TMPDIR names another.

#include <cstdlib>
#include <filesystem>
#include <string>

#include <sys/statvfs.h>
#include <unistd.h>

namespace rein {
namespace {

constexpr char kMemory[] = "/dev/shm";
constexpr size_t kRoom = size_t{2} << 30;

bool HasRoom() {
  struct statvfs memory {};
  return statvfs(kMemory, &memory) == 0 && memory.f_bavail * memory.f_frsize > kRoom && access(kMemory, W_OK) == 0;
}

class TestFolder {
 public:
  TestFolder() {
    if (getenv("TEST_TMPDIR") != nullptr) return;
    path_ = std::string(HasRoom() ? kMemory : "/tmp") + "/rein-test-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) std::abort();
    setenv("TEST_TMPDIR", path_.c_str(), 1);
  }
  ~TestFolder() {
    std::error_code left;
    if (getpid() == owner_ && !path_.empty()) std::filesystem::remove_all(path_, left);
  }

 private:
  const pid_t owner_ = getpid();  // what it forks may end before it
  std::string path_;
};

const TestFolder folder;

}  // namespace
}  // namespace rein
