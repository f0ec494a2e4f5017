// ReplyCache does each request once: a repeat of a finished request id gets the first answer, and a
// repeat of one that is still running waits for it. A request id counts within its method: the type
// of the reply tells methods apart.
//
//   return replies.Once<v1::SaveReply>(request.fence().request_id(), deadline,
//                                      [&] { return trainer.Save(request); });
//
// Answers that invite a retry (UNAVAILABLE, RESOURCE_EXHAUSTED, ABORTED, CANCELLED,
// DEADLINE_EXCEEDED) are not kept: the repeat does the work again. The oldest finished answers are
// forgotten beyond the capacity. Thread-safe; `work` runs on the caller's thread, without a lock.

#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace rein::rpc {

class ReplyCache {
 public:
  // Finished answers that are kept, and their total size.
  explicit ReplyCache(size_t max_replies = 1024, size_t max_bytes = 64 << 20)
      : max_replies_(max_replies), max_bytes_(max_bytes) {}

  // DEADLINE_EXCEEDED when the first call of this id is still running after `patience`.
  template <typename Reply>
  absl::StatusOr<Reply> Once(const std::string& request_id, absl::Duration patience,
                             const std::function<absl::StatusOr<Reply>()>& work) {
    absl::StatusOr<std::string> bytes =
        OnceBytes(absl::StrCat(Reply::descriptor()->name(), " ", request_id), patience, [&work]() -> absl::StatusOr<std::string> {
          absl::StatusOr<Reply> reply = work();
          if (!reply.ok()) return reply.status();
          return reply->SerializeAsString();
        });
    if (!bytes.ok()) return bytes.status();
    Reply reply;
    if (!reply.ParseFromString(*bytes)) {
      return absl::InternalError("bug: a kept reply does not parse");
    }
    return reply;
  }

  // Forgets every finished answer: called when the incarnation changes.
  void Clear();

 private:
  struct Entry {
    std::optional<absl::StatusOr<std::string>> reply;  // unset while running
  };

  absl::StatusOr<std::string> OnceBytes(const std::string& request_id, absl::Duration patience,
                                        const std::function<absl::StatusOr<std::string>()>& work);
  void Finish(const std::string& request_id, const std::shared_ptr<Entry>& entry,
              absl::StatusOr<std::string> reply);

  const size_t max_replies_;
  const size_t max_bytes_;
  std::mutex mutex_;
  std::condition_variable finished_;
  std::unordered_map<std::string, std::shared_ptr<Entry>> entries_;
  std::deque<std::string> order_;  // finished ids, oldest first
  size_t bytes_ = 0;
};

}  // namespace rein::rpc
