#include "common/rpc/reply_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace rein::rpc {
namespace {

bool InvitesRetry(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kResourceExhausted ||
         code == absl::StatusCode::kAborted || code == absl::StatusCode::kCancelled ||
         code == absl::StatusCode::kDeadlineExceeded;
}

size_t Size(const absl::StatusOr<std::string>& reply) { return reply.ok() ? reply->size() : 0; }

}  // namespace

absl::StatusOr<std::string> ReplyCache::OnceBytes(
    const std::string& request_id, absl::Duration patience,
    const std::function<absl::StatusOr<std::string>()>& work) {
  std::shared_ptr<Entry> mine;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    auto [found, inserted] = entries_.try_emplace(request_id, nullptr);
    if (!inserted) {
      std::shared_ptr<Entry> first = found->second;
      bool done = finished_.wait_for(lock, absl::ToChronoNanoseconds(patience),
                                     [&first] { return first->reply.has_value(); });
      if (done) return *first->reply;
      return absl::DeadlineExceededError(absl::StrCat("request ", request_id, " is still running"));
    }
    mine = found->second = std::make_shared<Entry>();
  }
  absl::StatusOr<std::string> reply = work();
  Finish(request_id, mine, reply);
  return reply;
}

void ReplyCache::Finish(const std::string& request_id, const std::shared_ptr<Entry>& entry,
                        absl::StatusOr<std::string> reply) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (InvitesRetry(reply.status().code())) {
    entries_.erase(request_id);
  } else {
    bytes_ += Size(reply);
    order_.push_back(request_id);
  }
  entry->reply = std::move(reply);
  while (order_.size() > max_replies_ || (bytes_ > max_bytes_ && order_.size() > 1)) {
    auto oldest = entries_.find(order_.front());
    bytes_ -= Size(*oldest->second->reply);
    entries_.erase(oldest);
    order_.pop_front();
  }
  finished_.notify_all();
}

void ReplyCache::Clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const std::string& id : order_) entries_.erase(id);
  order_.clear();
  bytes_ = 0;
}

}  // namespace rein::rpc
