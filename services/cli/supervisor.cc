#include "services/cli/supervisor.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <signal.h>
#include <unistd.h>

#include "common/config/host_port.h"
#include "common/config/name.h"
#include "common/status/status_macros.h"
#include "services/cli/connection.h"

namespace rein::cli {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kPoll = absl::Milliseconds(50);
constexpr absl::Duration kFirstRestart = absl::Milliseconds(200);
constexpr absl::Duration kLongestRestart = absl::Seconds(10);
constexpr absl::Duration kSteady = absl::Seconds(30);  // a life so long forgives earlier failures
constexpr absl::Duration kCheckLost = absl::Seconds(2);
constexpr absl::Duration kAskDeadline = absl::Seconds(5);  // nothing is tended meanwhile
constexpr absl::Duration kKindness = absl::Seconds(10);

void Sleep(absl::Duration duration) {
  std::this_thread::sleep_for(absl::ToChronoMilliseconds(duration));
}

}  // namespace

Supervisor::Supervisor(LocalOptions options, const sync::Clock& clock)
    : options_(std::move(options)), clock_(clock) {
  for (int i = 0; i < std::max(options_.controllers, 1); ++i) {
    auto controller = std::make_unique<Service>();
    controller->role = "controller";
    controller->name = i == 0 ? "controller" : absl::StrCat("controller-", i);
    controller->address = i == 0 ? options_.listen : "127.0.0.1:0";
    controller->admin = i == 0 ? options_.admin : "127.0.0.1:0";
    services_.push_back(std::move(controller));
  }
  for (int group = 0; group < options_.groups; ++group) AddGroup(group);
}

Supervisor::~Supervisor() { Stop(); }

void Supervisor::AddGroup(int group) {
  const std::string name = group == 0 ? std::string(config::kDefaultGroup) : absl::StrCat("group-", group + 1);
  auto part = [&](const std::vector<std::string>& devices) {
    if (devices.size() < static_cast<size_t>(options_.groups)) return devices;
    const auto length = static_cast<std::ptrdiff_t>(devices.size()) / options_.groups;
    return std::vector<std::string>(devices.begin() + group * length, devices.begin() + (group + 1) * length);
  };
  auto copies = [&](const std::vector<std::string>& devices, int count) {
    std::vector<std::string> dealt = part(devices);
    const std::vector<std::string> shared = part(options_.devices);
    for (int i = 0; devices.empty() && i < count; ++i) dealt.push_back(shared[i % shared.size()]);
    return dealt;
  };
  AddRole("trainer", name, copies(options_.trainer_devices, std::max(options_.trainers, 1)));
  AddRole("rollout", name, copies(options_.rollout_devices, options_.rollouts));
  AddRole("reference", name, copies(options_.reference_devices, options_.references));
  AddRole("reward", name, std::vector<std::string>(std::max(options_.rewards, 0)));
}

void Supervisor::AddRole(const std::string& role, const std::string& group, const std::vector<std::string>& devices) {
  const std::string prefix = group == config::kDefaultGroup ? "" : group + "-";
  for (size_t i = 0; i < devices.size(); ++i) {
    auto service = std::make_unique<Service>();
    service->role = role;
    service->name = absl::StrCat(prefix, role, "-", i);
    service->group = group;
    service->device = devices[i];
    service->address = service->admin = "127.0.0.1:0";
    if (role == "trainer" && i > 0) service->leader = services_[services_.size() - i].get();
    service->rank = service->leader == nullptr ? 0 : i;
    services_.push_back(std::move(service));
  }
}

size_t Supervisor::RanksOf(const Service& trainer) const {
  return 1 + static_cast<size_t>(std::count_if(services_.begin(), services_.end(), [&](const auto& other) { return AreRanks(trainer, *other); }));
}

int Supervisor::SharersBefore(const Service& service) const {
  int sharers = 0;
  for (const auto& other : services_) {
    if (other.get() == &service) break;
    if (service.device.rfind("gpu", 0) == 0 && other->device == service.device) ++sharers;
  }
  return sharers;
}

bool Supervisor::DevicesAreShared() const {
  return std::any_of(services_.begin(), services_.end(),
                     [this](const auto& service) { return SharersBefore(*service) > 0; });
}

std::string Supervisor::LogOf(const Service& service) const {
  return absl::StrCat(options_.state, "/logs/", service.name, ".log");
}

std::string Supervisor::AddressFileOf(const Service& service) const {
  return absl::StrCat(options_.state, "/run/", service.name, ".address");
}

std::string Supervisor::LastLogLine(const Service& service) const {
  std::ifstream in(LogOf(service));
  std::string line, last;
  while (std::getline(in, line)) {
    if (!line.empty()) last = line;
  }
  return last;
}

ChildCommand Supervisor::CommandOf(const Service& service) const {
  ChildCommand command{.program = absl::StrCat(options_.programs, "/rein-", service.role),
                       .log_file = LogOf(service)};
  // A restarted service keeps its ports.
  command.arguments = {"--name",  service.name,  "--listen",       service.address,
                       "--admin", service.admin, "--address-file", AddressFileOf(service),
                       "--log-file", command.log_file, "--log-mib", absl::StrCat(options_.log_mib)};
  auto add = [&](std::vector<std::string> more) {
    command.arguments.insert(command.arguments.end(), more.begin(), more.end());
  };
  if (!options_.tls.empty()) add({"--tls", absl::StrCat(options_.tls, "/", service.role)});
  if (options_.reflection) add({"--reflection"});
  if (service.role == "controller") {
    add({"--state", options_.state, "--lease-seconds", absl::StrCat(options_.lease_seconds)});
    if (!options_.tokens.empty()) add({"--tokens", options_.tokens});
    if (!options_.store.empty()) add({"--store", options_.store});
    if (!options_.store_password_file.empty()) add({"--store-password-file", options_.store_password_file});
    return command;
  }
  int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  int threads = options_.threads > 0 ? options_.threads : std::max(1, cores / options_.groups);
  // Groups and ranks compute at the same time, the other services in turns.
  if (service.role == "trainer" && service.device == "cpu") {
    threads = std::max<int>(1, threads / static_cast<int>(RanksOf(service)));
  }
  add({"--threads", absl::StrCat(threads)});
  if (service.role == "rollout") {
    if (!options_.tokens.empty()) add({"--tokens", options_.tokens});
    if (service.name == "rollout-0" && !options_.openai.empty()) add({"--openai", options_.openai});
  }
  if (!service.device.empty()) add({"--device", service.device});
  add({"--group", service.group});
  add({"--controller", context_.controller.empty() ? Reached(options_.listen) : context_.controller});
  if (service.leader != nullptr) {
    // It only counts its peers, whose ports are not known yet.
    add({"--rank", absl::StrCat(service.rank), "--peers",
         absl::StrJoin(std::vector<std::string>(RanksOf(service) - 1, "127.0.0.1:0"), ",")});
  } else {
    std::vector<std::string> ranks;
    for (const auto& other : services_) {
      if (other->leader == &service) ranks.push_back(other->address);
    }
    if (!ranks.empty()) add({"--peers", absl::StrJoin(ranks, ",")});
  }
  // Several services share the cores: none may spin while it waits.
  command.environment = {{"OMP_NUM_THREADS", absl::StrCat(threads)},
                         {"OMP_WAIT_POLICY", "passive"},
                         {"GOMP_SPINCOUNT", "0"}};
  if (DevicesAreShared()) {
    // NCCL refuses two ranks on one GPU unless it takes them for two hosts. Those that come first
    // on their GPUs count as one host, so that ranks of a trainer reach each other directly.
    command.environment["NCCL_HOSTID"] = absl::StrCat("rein-", SharersBefore(service));
    command.environment["NCCL_SOCKET_IFNAME"] = "lo";
    command.environment["NCCL_IB_DISABLE"] = "1";
  }
  return command;
}

std::string Supervisor::Reached(const std::string& address) {
  const std::string host = config::HostOf(address);
  const bool any = host == "0.0.0.0" || host == "[::]";
  return any ? "127.0.0.1" + config::PortOf(address) : address;
}

absl::Status Supervisor::Check() {
  std::string wrong;
  for (const auto& service : services_) {
    ChildCommand command = CommandOf(*service);
    command.arguments.push_back("--check");
    command.log_file = "/dev/stderr";
    ChildProcess process;
    REIN_RETURN_IF_ERROR(process.Start(command));
    int code = 0;
    while (!process.Reap(code)) Sleep(kPoll);
    if (code != 0) absl::StrAppend(&wrong, wrong.empty() ? "" : ", ", service->name);
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("wrong flags or files: ", wrong));
}

absl::Status Supervisor::StartService(Service& service) {
  std::error_code error;
  fs::remove(AddressFileOf(service), error);
  REIN_RETURN_IF_ERROR(service.process.Start(CommandOf(service)));
  // Whole, or as before: others read it at any moment.
  const std::string pid = absl::StrCat(options_.state, "/run/", service.name, ".pid"), next = pid + ".new";
  std::ofstream(next) << service.process.pid() << "\n";
  fs::rename(next, pid, error);
  service.started = clock_.Now();
  service.restart_at = absl::InfiniteFuture();
  return absl::OkStatus();
}

bool Supervisor::ReadAddress(Service& service) {
  std::ifstream in(AddressFileOf(service));
  return static_cast<bool>(in >> service.address >> service.admin);
}

absl::Status Supervisor::WaitFor(absl::Time until, const std::function<bool()>& condition,
                                 const std::string& what) {
  while (!condition()) {
    for (auto& service : services_) {
      int code = 0;
      if (!service->process.Reap(code)) continue;
      absl::Status reason(code == 7 ? absl::StatusCode::kUnavailable : absl::StatusCode::kInternal,
                          absl::StrCat(service->name, " ended with code ", code, "\n  ",
                                       LastLogLine(*service), "\n  log: ", LogOf(*service)));
      return reason;
    }
    if (clock_.Now() > until) {
      return absl::DeadlineExceededError(
          absl::StrCat("gave up waiting for ", what, "; logs: ", options_.state, "/logs"));
    }
    Sleep(kPoll);
  }
  return absl::OkStatus();
}

std::string Supervisor::Controllers() const {
  std::vector<std::string> addresses;
  for (const auto& service : services_) {
    if (service->role == "controller") addresses.push_back(Reached(service->address));
  }
  return absl::StrJoin(addresses, ",");
}

// One after the other, so that the first leads.
absl::Status Supervisor::StartControllers(absl::Time until) {
  for (auto& service : services_) {
    if (service->role != "controller") continue;
    REIN_RETURN_IF_ERROR(StartService(*service));
    REIN_RETURN_IF_ERROR(WaitFor(until, [&] { return ReadAddress(*service); }, service->name));
  }
  return absl::OkStatus();
}

absl::Status Supervisor::StartAll() {
  absl::Time until = clock_.Now() + absl::Minutes(1);
  REIN_RETURN_IF_ERROR(StartControllers(until));
  context_ = {.controller = Controllers(),
              .admin = Reached(services_.front()->admin),
              .state = options_.state,
              .tls = options_.tls,
              .supervisor = getpid()};
  if (!options_.tls.empty()) {
    const std::string own = absl::StrCat(options_.tls, "/user/admin");
    REIN_RETURN_IF_ERROR(UseConnection({.server = context_.controller, .tls = own}).status());
  }
  controller_ = std::make_unique<ControllerClient>(context_.controller);
  // Ranks first: rank 0 is told where they are.
  for (bool ranks : {true, false}) {
    for (auto& service : services_) {
      if (service->role == "controller" || (service->leader != nullptr) != ranks) continue;
      REIN_RETURN_IF_ERROR(StartService(*service));
    }
    auto known = [this] {
      return std::all_of(services_.begin(), services_.end(), [this](const auto& service) {
        return service->leader == nullptr || ReadAddress(*service);
      });
    };
    REIN_RETURN_IF_ERROR(WaitFor(until, known, "the ranks of the trainer"));
  }
  return absl::OkStatus();
}

absl::Status Supervisor::Start(absl::Duration patience) {
  std::error_code error;
  for (const char* folder : {"/logs", "/run"})
    fs::create_directories(options_.state + folder, error);
  if (error)
    return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", options_.state));
  REIN_RETURN_IF_ERROR(StartAll());
  auto all_registered = [this] {
    auto actors = controller_->ListActors();
    if (!actors.ok()) return false;
    auto ready = [&](const std::unique_ptr<Service>& service) {
      return service->role == "controller" ||
             std::any_of(actors->actors().begin(), actors->actors().end(), [&](const auto& actor) {
               // Of this start, not remembered from the last.
               return actor.name() == service->name && actor.state() == "READY" &&
                      ReadAddress(*service) && actor.address() == service->address;
             });
    };
    return std::all_of(services_.begin(), services_.end(), ready);
  };
  REIN_RETURN_IF_ERROR(WaitFor(clock_.Now() + patience, all_registered, "the services"));
  REIN_RETURN_IF_ERROR(WriteContext(context_));
  up_ = true;
  next_check_ = clock_.Now() + kCheckLost;
  return absl::OkStatus();
}

void Supervisor::Tend() {
  absl::Time now = clock_.Now();
  for (auto& service : services_) {
    int code = 0;
    if (!service->process.Reap(code)) continue;
    if (now - service->started > kSteady) service->failures = 0;
    absl::Duration pause =
        std::min(kFirstRestart * (1 << std::min(service->failures, 6)), kLongestRestart);
    ++service->failures;
    service->restart_at = now + pause;
    if (!std::exchange(service->ended_with_ranks, false)) EndRanksOf(*service);
  }
  for (auto& service : services_) {
    if (service->process.running() || service->restart_at > now || RanksAreEnding(*service)) {
      continue;
    }
    if (!StartService(*service).ok()) service->restart_at = now + kLongestRestart;
  }
  if (now >= next_check_) {
    next_check_ = now + kCheckLost;
    KillLost();
  }
}

bool Supervisor::AreRanks(const Service& a, const Service& b) {
  const Service* leader = a.leader != nullptr ? a.leader : &a;
  return &a != &b && (&b == leader || b.leader == leader);
}

bool Supervisor::RanksAreEnding(const Service& service) const {
  return std::any_of(services_.begin(), services_.end(), [&](const auto& other) {
    return AreRanks(service, *other) && other->ended_with_ranks;
  });
}

// What one rank of a trainer held in common with the others is lost: they start again with it.
void Supervisor::EndRanksOf(const Service& service) {
  for (auto& other : services_) {
    if (!AreRanks(service, *other) || !other->process.running()) continue;
    other->ended_with_ranks = true;
    other->process.Signal(SIGKILL);
  }
}

// A process that lives but was given up (it hangs, or is stopped) makes room for a new one.
void Supervisor::KillLost() {
  auto actors = controller_->ListActors(kAskDeadline);
  if (!actors.ok()) return;
  for (const v1::Actor& actor : actors->actors()) {
    if (actor.state() != "LOST" || actor.silent_seconds() < 2 * options_.lease_seconds) continue;
    for (auto& service : services_) {
      bool old = clock_.Now() - service->started > absl::Seconds(2 * options_.lease_seconds);
      if (service->name == actor.name() && old) service->process.Signal(SIGKILL);
    }
  }
}

void Supervisor::Stop() {
  // The services first: their last words reach the controller.
  for (auto service = services_.rbegin(); service != services_.rend(); ++service) {
    (*service)->process.Signal(SIGTERM);
    (*service)->process.Signal(SIGCONT);
  }
  absl::Time until = clock_.Now() + kKindness;
  auto any_running = [this] {
    bool running = false;
    int code = 0;
    for (auto& service : services_) {
      service->process.Reap(code);
      running = running || service->process.running();
    }
    return running;
  };
  bool killed = false;
  while (any_running()) {
    if (!killed && clock_.Now() > until) {
      for (auto& service : services_) service->process.Signal(SIGKILL);
      killed = true;
    }
    Sleep(kPoll);
  }
  if (up_) RemoveContext();
  up_ = false;
}

std::string Supervisor::Describe() const {
  std::string names;
  for (const auto& service : services_) {
    if (service->role != "controller") absl::StrAppend(&names, " · ", service->name);
  }
  return absl::StrCat("up   controller ", context_.controller, names, "   page ",
                      context_.Url(), "\nlogs ", options_.state, "/logs\n");
}

}  // namespace rein::cli
