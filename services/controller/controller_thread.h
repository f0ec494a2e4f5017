// ControllerThread runs a Controller on its own thread and lets others call into it.
//
//   REIN_ASSIGN_OR_RETURN(v1::Job job, thread.Call<absl::StatusOr<v1::Job>>(
//                                          [&](Controller& c) { return c.GetJob(name); }));

#pragma once

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/statusor.h"

#include "common/sync/clock.h"
#include "services/controller/controller.h"
#include "services/controller/mailbox.h"

namespace rein::services {

class ControllerThread {
 public:
  // `make` is called here, with the function that wakes the thread; then the thread starts.
  static absl::StatusOr<std::unique_ptr<ControllerThread>> Start(
      const sync::Clock& clock,
      const std::function<absl::StatusOr<std::unique_ptr<Controller>>(std::function<void()> wake)>&
          make);
  ~ControllerThread();

  // Runs `work` on the controller's thread and waits for its result. DEADLINE_EXCEEDED cannot
  // happen: no step of the controller waits for a service.
  template <typename Result>
  Result Call(const std::function<Result(Controller&)>& work) {
    auto promise = std::make_shared<std::promise<Result>>();
    std::future<Result> result = promise->get_future();
    mailbox_.Post([this, promise, work] { promise->set_value(work(*controller_)); });
    return result.get();
  }

  // Grows when an event of any job was stored.
  uint64_t events();
  // Waits until events() is more than `seen`, at most so long.
  void WaitForEvents(uint64_t seen, absl::Duration timeout);

 private:
  explicit ControllerThread(const sync::Clock& clock);
  void Wake();
  void Run();

  const sync::Clock& clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
  bool stop_ = false;
  uint64_t events_ = 0;
  Mailbox mailbox_;
  std::unique_ptr<Controller> controller_;
  std::thread thread_;
};

}  // namespace rein::services
